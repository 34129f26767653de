"""How a request that can't be answered is told to its client: always a JSON object, in the shape of its dialect.

```
RequestError    raised by the model; `errors.PRESENTATION` says how it is shown
RejectedError   the request never reached the model: one of the `Reason`s
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from msgspec import Struct

from ...errors import OverloadedError, RequestError, presentation
from .response import Header, Reply


class Reason(NamedTuple):
    """Why a request is rejected: the HTTP status and the `error_type` that goes with it."""

    status: int
    error_type: str


MALFORMED_REQUEST = Reason(400, "Malformed")
MALFORMED_JSON = Reason(400, "Malformed")
WRONG_TYPE = Reason(422, "Malformed")
UNAUTHORIZED = Reason(401, "Unauthorized")
NOT_FOUND = Reason(404, "NotFound")
METHOD_NOT_ALLOWED = Reason(405, "MethodNotAllowed")
TIMEOUT = Reason(408, "Timeout")
TOO_LARGE = Reason(413, "PayloadTooLarge")
NOT_JSON = Reason(415, "UnsupportedMediaType")
HEAD_TOO_LARGE = Reason(431, "HeadTooLarge")
INTERNAL = Reason(500, "Internal")
NOT_IMPLEMENTED = Reason(501, "NotImplemented")
NO_CONNECTION = Reason(503, "Overloaded")


class RejectedError(Exception):
    """The request can't be handed to the model. `str(error)` is the message the client gets."""

    def __init__(self, reason: Reason, message: str, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told of an error, in whatever shape."""

    status: int
    error_type: str
    message: str
    headers: tuple[Header, ...] = ()

    @staticmethod
    def of(error: Exception) -> Failure:
        """Errors that are not ours keep what happened to themselves."""
        if isinstance(error, RejectedError):
            return Failure(*error.reason, str(error), error.headers)
        if isinstance(error, RequestError):
            status, _, error_type, _ = presentation(error)
            headers: tuple[Header, ...] = ((b"retry-after", b"1"),) if isinstance(error, OverloadedError) else ()
            if error.place is not None:
                headers += ((b"x-error-place", error.place.encode()),)
            return Failure(status, error_type, str(error), headers)
        return Failure(*INTERNAL, "internal error: see the server's log")

    def reply(self, body: Struct) -> Reply:
        """The answer with its headers; body: what tells of it."""
        return Reply.json([msgspec.json.encode(body)], status=self.status, headers=self.headers)

"""The errors of this package, and how each is shown to a client.

```
TextEmbeddingsError
├── StartError                the server or library can't start with what it was given
│   ├── SettingsError         a bad option or environment variable (exit code 2)
│   ├── CheckpointError       a file is missing, damaged or not what it should be
│   ├── UnsupportedError      a configuration that is understood but not implemented
│   └── HubError              the Hub could not be reached, or refused
└── RequestError              one request can't be answered; all others go on
    ├── EmptyBatchError       `inputs` (or `texts`, ...) is an empty list
    ├── BatchSizeError        more inputs than --max-client-batch-size
    ├── DimensionsError       `dimensions` out of range
    ├── ModelTypeError        the model can't do what the route asks
    ├── EmptyInputError       one input is empty
    ├── InputError            one input breaks a limit, names an unknown prompt or an unknown token
    ├── TokenizerError        the tokenizer library failed
    ├── OverloadedError       no free permit
    ├── InferenceError        the engine failed on the batch
    ├── NotANumberError       the engine returned NaN where a score is due
    └── UnhealthyError        the engine does not answer
```

`PRESENTATION` says, per class, which HTTP status, gRPC code, `error_type` and metric label it has; nothing else in the
package decides that.
"""

from __future__ import annotations

from typing import NamedTuple


class TextEmbeddingsError(Exception):
    """The root of every error this package raises on purpose."""


class StartError(TextEmbeddingsError):
    """The start can't go on. `hint`, if any, is the way out and is printed on a line of its own."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\nhint: {self.hint}" if self.hint else message


class SettingsError(StartError):
    """An option or environment variable is wrong."""


class CheckpointError(StartError):
    """A file of the checkpoint is missing, damaged, or does not fit its configuration."""


class UnsupportedError(StartError):
    """The checkpoint asks for something that is not implemented; the message names the key and its value."""


class HubError(StartError):
    """The Hub could not be reached, does not have the repository, or does not let us have it."""


class RequestError(TextEmbeddingsError):
    """One request can't be answered. `str(error)` is the message the client gets."""

    def __init__(self, message: str, *, logged: str | None = None, inputs: int = 1) -> None:
        super().__init__(message)
        self.logged = message if logged is None else logged
        """The message that the log gets; it quotes nothing that the client sent."""
        self.inputs = inputs
        """So many inputs fail by it: what is added to `te_request_failure`."""
        self.index: int | None = None
        """The place of the first of them in the request, None where it is no single input's error."""
        self.place: str | None = None
        """The same as the protocol of the request writes it, such as `inputs[1]`; set where it is known."""


class EmptyBatchError(RequestError):
    def __init__(self, field: str = "inputs") -> None:
        super().__init__(f"`{field}` cannot be empty")


class BatchSizeError(RequestError):
    def __init__(self, size: int | str, limit: int) -> None:
        super().__init__(f"batch size {size} > maximum allowed batch size {limit}")


class DimensionsError(RequestError):
    def __init__(self, problem: str) -> None:
        super().__init__(f"Input validation error: `dimensions` {problem}")


class ModelTypeError(RequestError):
    def __init__(self, problem: str) -> None:
        super().__init__(f"Backend error: {problem}")


class EmptyInputError(RequestError):
    def __init__(self, field: str = "inputs") -> None:
        super().__init__(f"Input validation error: `{field}` cannot be empty")


class InputError(RequestError):
    def __init__(self, problem: str, *, logged: str | None = None) -> None:
        start = "Input validation error: "
        super().__init__(start + problem, logged=None if logged is None else start + logged)


class TokenizerError(RequestError):
    def __init__(self, problem: str) -> None:
        super().__init__(f"tokenizer error {problem}")


class OverloadedError(RequestError):
    def __init__(self, inputs: int = 1) -> None:
        super().__init__("Model is overloaded", inputs=inputs)


class InferenceError(RequestError):
    def __init__(self, problem: str, *, inputs: int = 1) -> None:
        super().__init__(f"Backend error: {problem}", inputs=inputs)


class NotANumberError(RequestError):
    def __init__(self) -> None:
        super().__init__("score is NaN")


class UnhealthyError(RequestError):
    def __init__(self) -> None:
        super().__init__("unhealthy")


class Presentation(NamedTuple):
    """How a `RequestError` is shown: HTTP status, name of the gRPC code, `error_type`, and the value of the label
    `err` of `te_request_failure` (None: not counted)."""

    http_status: int
    grpc_code: str
    error_type: str
    metric_label: str | None


PRESENTATION: dict[type[RequestError], Presentation] = {
    EmptyBatchError: Presentation(400, "INVALID_ARGUMENT", "Empty", "validation"),
    BatchSizeError: Presentation(422, "INVALID_ARGUMENT", "Validation", "batch_size"),
    DimensionsError: Presentation(422, "INVALID_ARGUMENT", "Validation", "validation"),
    ModelTypeError: Presentation(424, "FAILED_PRECONDITION", "Backend", "model_type"),
    EmptyInputError: Presentation(400, "INVALID_ARGUMENT", "Empty", "tokenization"),
    InputError: Presentation(422, "INVALID_ARGUMENT", "Validation", "tokenization"),
    TokenizerError: Presentation(422, "FAILED_PRECONDITION", "Tokenizer", "tokenization"),
    OverloadedError: Presentation(429, "RESOURCE_EXHAUSTED", "Overloaded", "overloaded"),
    InferenceError: Presentation(424, "FAILED_PRECONDITION", "Backend", "inference"),
    NotANumberError: Presentation(424, "FAILED_PRECONDITION", "Backend", None),
    UnhealthyError: Presentation(503, "UNAVAILABLE", "Unhealthy", None),
}


def presentation(error: RequestError) -> Presentation:
    """The row of `PRESENTATION` for the class of `error` (or its nearest base)."""
    return next(PRESENTATION[cls] for cls in type(error).__mro__ if cls in PRESENTATION)

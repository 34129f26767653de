"""`/v1/embeddings`: the operation and the dialect of OpenAI's clients."""

from __future__ import annotations

from binascii import b2a_base64
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from ...types import EncodeOptions, Float32Array
from ..accounting import Served, Timed, usage_headers
from ..http.errors import Failure
from ..http.response import Reply
from .operation import Call, Dialect, Operation
from .requests import Dimensions, EmbedInput, check_embed_inputs
from .responses import NUMBER_OR_NULL, arrays, numbers, size
from .tei import embedded

VectorOrBase64 = Annotated[
    Raw, Meta(extra_json_schema={"anyOf": [{"type": "array", "items": NUMBER_OR_NULL}, {"type": "string"}]})
]


class OpenAIRequest(Struct):
    """One vector for each input, in the manner of OpenAI."""

    input: EmbedInput
    model: Annotated[str | None, Meta(description="Any name; another than the served one is logged.")] = None
    dimensions: Dimensions | None = None
    encoding_format: Annotated[
        Literal["float", "base64"], Meta(description="base64: of the vector's float32 values, little-endian.")
    ] = "float"
    user: Annotated[str | None, Meta(description="Taken and not used.")] = None

    def __post_init__(self) -> None:
        check_embed_inputs(self.input, "input")


class OpenAIEmbedding(Struct):
    """One vector."""

    object: Literal["embedding"]
    embedding: VectorOrBase64
    index: int


class OpenAIUsage(Struct):
    """Tokens that were run."""

    prompt_tokens: int
    total_tokens: int


class OpenAIResponse(Struct):
    """The vectors, in the manner of OpenAI."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIError(Struct):
    """An error as OpenAI's clients read it."""

    message: str
    type: str
    param: None = None
    code: int | None = None


class OpenAIErrorResponse(Struct):
    """What went wrong, for clients of text-embeddings-inference and, in `error`, for those of OpenAI."""

    message: Annotated[str, Meta(examples=["Model is overloaded"])]
    code: Annotated[int, Meta(examples=[429])]
    type: Annotated[str, Meta(examples=["Overloaded"])]
    error: OpenAIError


def error(failure: Failure) -> Reply:
    """The answer that tells of a failure."""
    inner = OpenAIError(failure.message, failure.error_type, code=failure.status)
    return failure.reply(OpenAIErrorResponse(failure.message, failure.status, failure.error_type, inner))


OPENAI = Dialect(error, OpenAIErrorResponse, usage_headers)


def openai_embed(served: Served, body: OpenAIRequest) -> Call:
    """Gives one vector for each input, as the OpenAI API does."""
    inputs = embedded(served, body.input, "input")
    how = EncodeOptions(truncate=served.settings.model.auto_truncate)
    return Call(partial(served.model.embed, inputs.items, how, dimensions=body.dimensions), inputs.place, inputs.method)


async def embeddings(served: Served, body: OpenAIRequest, done: Timed[list[Float32Array]]) -> list[bytes]:
    """The JSON of the answer, in pieces."""
    encode = _base64 if body.encoding_format == "base64" else numbers
    tokens = done.usage.tokens

    async def item(numbered: tuple[int, Float32Array]) -> list[bytes]:
        index, row = numbered
        return [msgspec.json.encode(OpenAIEmbedding("embedding", Raw(encode(row)), index))]

    around = msgspec.json.encode(OpenAIResponse("list", [], served.model.info.served_name, OpenAIUsage(tokens, tokens)))
    before, after = around.split(b"[]", 1)
    first, *others = await arrays(list(enumerate(done.value)), item)
    return [before + first, *others, after] if others else [before + first + after]


def _base64(row: Float32Array) -> bytes:
    """The little-endian bytes of a vector, as a JSON string."""
    return b'"%b"' % b2a_base64(row.astype("<f4", copy=False).data, newline=False)


EMBED = Operation(OpenAIRequest, openai_embed, embeddings, OpenAIResponse, size=size, model=lambda body: body.model)

"""`/v1/embeddings`: the request and the answer as OpenAI's clients know them."""

from __future__ import annotations

from binascii import b2a_base64
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from ...types import Float32Array
from .requests import Dimensions, EmbedInput, check_embed_inputs
from .responses import NUMBER_OR_NULL, arrays, numbers

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


async def embeddings(
    rows: list[Float32Array], tokens: int, model: str, encoding_format: Literal["float", "base64"]
) -> list[bytes]:
    """The body, in pieces; tokens: run for all inputs together."""
    encode = _base64 if encoding_format == "base64" else numbers

    async def item(numbered: tuple[int, Float32Array]) -> list[bytes]:
        index, row = numbered
        return [msgspec.json.encode(OpenAIEmbedding("embedding", Raw(encode(row)), index))]

    around = msgspec.json.encode(OpenAIResponse("list", [], model, OpenAIUsage(tokens, tokens)))
    before, after = around.split(b"[]", 1)
    first, *others = await arrays(list(enumerate(rows)), item)
    return [before + first, *others, after] if others else [before + first + after]


def _base64(row: Float32Array) -> bytes:
    """The little-endian bytes of a vector, as a JSON string."""
    return b'"%b"' % b2a_base64(row.astype("<f4", copy=False).data, newline=False)

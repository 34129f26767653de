"""What the calls do, as values: a message -> one call into `Model` -> a message. The twins of the HTTP routes.

Every call is told under which permits it runs: None for a unary call, which takes one or fails; an item of a stream has
waited for its turn. All of them raise RequestError or RefusedError.

Vectors are written in the wire format from NumPy's buffer: no Python float is made. A field is a tag, a length and its
bytes, and a message is its fields one after another (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from google.protobuf.message import Message

from ...inference.admission import Permit
from ...inference.model import Answer, Model
from ...inference.results import Prediction, Sparse
from ...settings import CONTRACT_VERSION
from ...types import EncodeOptions, Float32Array, Input, Kind, Token
from ..accounting import Served, Timed
from . import tei_pb2 as tei
from .statuses import RefusedError

MODEL_TYPES = {
    Kind.EMBEDDING: tei.MODEL_TYPE_EMBEDDING,
    Kind.CLASSIFIER: tei.MODEL_TYPE_CLASSIFIER,
    Kind.RERANKER: tei.MODEL_TYPE_RERANKER,
}
DIRECTIONS: dict[int, Literal["left", "right"]] = {
    tei.TRUNCATION_DIRECTION_RIGHT: "right",
    tei.TRUNCATION_DIRECTION_LEFT: "left",
}
LENGTH_DELIMITED = 2
"""The wire type of fields with a length."""


class Reply(NamedTuple):
    """An answer."""

    wire: bytes
    """The serialized message."""
    done: Timed[Any] | None = None
    """What it cost, for calls that tell in their metadata."""


Answering: TypeAlias = Callable[[Served, Any, Permit | None], Awaitable[Reply]]
Asked: TypeAlias = Awaitable[Answer[list[Any]]]
Asking: TypeAlias = Callable[[Model, Any, Permit | None], Asked]


@dataclass(frozen=True, slots=True)
class Call:
    """A unary method, and its twin for streams if it has one."""

    request: type[Message]
    """Type of the message."""
    answer: Answering
    streams: bool = False
    """Whether it has a twin, with `Stream` behind its name."""
    takes_permit: bool = True
    """Whether an item of a stream waits for a permit."""


def timed(name: str, ask: Asking, render: Callable[[Any], bytes]) -> Answering:
    """Answers by a call into the model that is counted and timed under `name`; render: of a single result."""

    async def answer(served: Served, request: Any, permit: Permit | None) -> Reply:
        method: Literal["single"] | None = "single" if permit is None else None
        done = await served.accounting.timed(name, method, ask(served.model, request, permit))
        return Reply(render(done.value[0]) + metadata(done), done)

    return answer


async def info(served: Served, request: tei.InfoRequest, permit: Permit | None) -> Reply:
    """Tells the model and the limits of the server."""
    found, limits = served.model.info, served.model.limits
    response = tei.InfoResponse(
        version=CONTRACT_VERSION,
        model_id=found.model_id,
        model_sha=found.revision,
        model_dtype=found.dtype,
        model_type=MODEL_TYPES[found.kind],
        max_concurrent_requests=limits.max_concurrent_requests,
        max_input_length=found.max_input_length,
        max_batch_tokens=limits.token_limit,
        max_batch_requests=limits.max_batch_requests or None,
        max_client_batch_size=limits.max_client_batch_size,
        tokenization_workers=served.settings.limits.tokenization_workers,
    )
    return Reply(response.SerializeToString())


def embed(model: Model, request: tei.EmbedRequest, permit: Permit | None) -> Asked:
    """One vector."""
    return model.embed(
        [request.inputs],
        options(request),
        normalize=optional(request, "normalize") is not False,
        dimensions=optional(request, "dimensions"),
        permit=permit,
    )


def embed_sparse(model: Model, request: tei.EmbedSparseRequest, permit: Permit | None) -> Asked:
    """One sparse vector (SPLADE)."""
    return model.embed_sparse([request.inputs], options(request), permit=permit)


def embed_all(model: Model, request: tei.EmbedAllRequest, permit: Permit | None) -> Asked:
    """One vector for each token."""
    return model.embed_all([request.inputs], options(request), permit=permit)


def predict(model: Model, request: tei.PredictRequest, permit: Permit | None) -> Asked:
    """The scores of all classes, best first."""
    return model.predict([request.inputs], options(request), raw_scores=request.raw_scores, permit=permit)


def predict_pair(model: Model, request: tei.PredictPairRequest, permit: Permit | None) -> Asked:
    """The same of one text or of a pair."""
    given: Input
    match request.inputs:
        case [text]:
            given = text
        case [text, pair]:
            given = text, pair
        case _:
            problem = f"`inputs` must have a single or two elements. Given: {len(request.inputs)}"
            raise RefusedError("INVALID_ARGUMENT", problem)
    return model.predict([given], options(request), raw_scores=request.raw_scores, permit=permit)


async def tokenize(served: Served, request: tei.EncodeRequest, permit: Permit | None) -> Reply:
    """Gives the tokens of a text."""
    call = served.model.tokenize(
        [request.inputs],
        add_special_tokens=request.add_special_tokens,
        prompt_name=optional(request, "prompt_name"),
    )
    [found] = await served.accounting.logged("tokenize", call)
    return Reply(tokens(found))


async def decode(served: Served, request: tei.DecodeRequest, permit: Permit | None) -> Reply:
    """Gives the text of token ids."""
    ids = request.ids[: served.model.max_ids + 1]  # one too many is enough to be refused, and a list of all takes long
    call = served.model.decode([ids], skip_special_tokens=request.skip_special_tokens)
    [text] = await served.accounting.logged("decode", call)
    return Reply(tei.DecodeResponse(text=text).SerializeToString())


# --- from messages ----------------------------------------------------------------------------------------------------


def options(request: Any) -> EncodeOptions:
    """How the texts of a request become tokens. Raises RefusedError."""
    direction = DIRECTIONS.get(request.truncation_direction)
    if direction is None:
        problem = f"`truncation_direction` must be 0 (right) or 1 (left). Given: {request.truncation_direction}"
        raise RefusedError("INVALID_ARGUMENT", problem)
    prompt_name = optional(request, "prompt_name") if hasattr(request, "prompt_name") else None
    return EncodeOptions(request.truncate, direction, prompt_name)


def optional(request: Any, field: str) -> Any:
    """The value of a field with explicit presence, None where it is absent."""
    return getattr(request, field) if request.HasField(field) else None


# --- to messages ------------------------------------------------------------------------------------------------------


def vector(row: Float32Array) -> bytes:
    """Field 1 as a packed `repeated float`: little-endian float32."""
    return field(1, row.astype("<f4", copy=False).tobytes()) if row.size else b""


def token_vectors(rows: Float32Array) -> bytes:
    return b"".join([field(1, vector(row)) for row in rows])


def sparse(row: Sparse) -> bytes:
    entries = zip(row.indices.tolist(), row.values.tolist(), strict=True)
    values = [tei.SparseValue(index=index, value=value) for index, value in entries]
    return bytes(tei.EmbedSparseResponse(sparse_embeddings=values).SerializeToString())


def predictions(classes: Sequence[Prediction]) -> bytes:
    found = [tei.Prediction(score=found.score, label=found.label) for found in classes]
    return bytes(tei.PredictResponse(predictions=found).SerializeToString())


def tokens(text: Sequence[Token]) -> bytes:
    found = [tei.SimpleToken(id=t.id, text=t.text, special=t.special, start=t.start, stop=t.stop) for t in text]
    return bytes(tei.EncodeResponse(tokens=found).SerializeToString())


def metadata(done: Timed[Any]) -> bytes:
    """What an answer cost: field 2 of every one."""
    timings = done.usage.timings
    found = tei.Metadata(
        compute_chars=done.usage.characters,
        compute_tokens=done.usage.tokens,
        total_time_ns=round(done.total * 1e9),
        tokenization_time_ns=round(timings.tokenization * 1e9),
        queue_time_ns=round(timings.queue * 1e9),
        inference_time_ns=round(timings.inference * 1e9),
    )
    return field(2, found.SerializeToString())


def field(number: int, content: bytes) -> bytes:
    """A field that holds a message, or anything else with a length."""
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; the high bit says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


CALLS: Mapping[str, Call] = {
    "Info/Info": Call(tei.InfoRequest, info),
    "Embed/Embed": Call(tei.EmbedRequest, timed("embed", embed, vector), streams=True),
    "Embed/EmbedSparse": Call(tei.EmbedSparseRequest, timed("embed_sparse", embed_sparse, sparse), streams=True),
    "Embed/EmbedAll": Call(tei.EmbedAllRequest, timed("embed_all", embed_all, token_vectors), streams=True),
    "Predict/Predict": Call(tei.PredictRequest, timed("predict", predict, predictions), streams=True),
    "Predict/PredictPair": Call(tei.PredictPairRequest, timed("predict", predict_pair, predictions), streams=True),
    "Tokenize/Tokenize": Call(tei.EncodeRequest, tokenize, streams=True, takes_permit=False),
    "Tokenize/Decode": Call(tei.DecodeRequest, decode, streams=True, takes_permit=False),
}
"""Service and method -> what answers it."""

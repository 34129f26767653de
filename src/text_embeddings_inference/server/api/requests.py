"""The bodies of the routes: each field with its type, default and meaning, written once.

They decode what clients send (`decoding.py`) and are what the OpenAPI document describes (`openapi.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from ...errors import InputError
from ...telemetry.metrics import Method
from ...types import Input

TokenId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Direction = Literal["Left", "left", "Right", "right"]
Dimensions = Annotated[
    int, Meta(ge=0, description="Keep this many values of each vector. Not 0, and not more than the model has.")
]
Truncate = Annotated[
    bool | None, Meta(description="Cut inputs that are too long. If absent or null, as the server was started.")
]
PromptName = Annotated[
    str | None,
    Meta(
        description="Put this prompt of the model before each input, in place of the default one. "
        "Models for late interaction (ColBERT) take `query` and `document`."
    ),
]
PairPromptName = Annotated[
    str | None,
    Meta(
        description="The prompt of the model that a reranker's template takes as its instruction, or that is put "
        "before the query, in place of the default one."
    ),
]
Instruction = Annotated[
    str | None,
    Meta(description="What the reranker is to look for, in place of its default instruction. Not all models take one."),
]
MultiVector = Annotated[
    bool,
    Meta(
        description="Give the vectors of the model's head for late interaction (bge-m3), not its last hidden states. "
        "Models for late interaction alone (ColBERT) always give theirs."
    ),
]
RawScores = Annotated[bool, Meta(description="Give logits, not probabilities.")]
TruncationDirection = Annotated[Direction, Meta(description="The side of an input that is cut.")]

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}, "minItems": 1}
_TEXT = {"type": "string", "minLength": 1}
EMBED_INPUTS = {
    "anyOf": [_TEXT, _IDS, {"type": "array", "items": {"anyOf": [_TEXT, _IDS]}, "minItems": 1}],
    "examples": ["What is Deep Learning?"],
}
PREDICT_INPUTS = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 2},
        {"type": "array", "minItems": 1, "items": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 2}},
    ],
    "examples": ["I like you."],
}

EmbedInput = Annotated[
    str | list[str | TokenId | list[TokenId]],
    Meta(description="A text, a list of token ids, or a list of these.", extra_json_schema=EMBED_INPUTS),
]
PredictInput = Annotated[
    str | list[str | list[str]],
    Meta(
        description="A text, a pair of texts, or a list of lists of one or two texts.", extra_json_schema=PREDICT_INPUTS
    ),
]
TokenizeInput = Annotated[str | list[str], Meta(description="A text, or a list of texts.")]
DecodeInput = Annotated[
    list[TokenId | list[TokenId]],
    Meta(
        description="A list of token ids, or a list of such lists.",
        extra_json_schema={"anyOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}]},
    ),
]

PAIR_OR_BATCH = (
    "a string, a pair of strings [string, string] or a batch of mixed strings and pairs "
    "[[string], [string, string], ...]"
)


class Inputs(NamedTuple):
    """What a client sent as one input or several."""

    items: Sequence[Input]
    method: Method
    field: str

    def place(self, index: int) -> str:
        """Where in the body an input stands."""
        return f"{self.field}[{index}]" if self.method == "batch" else self.field


class ShapeError(ValueError):
    """A value has the right JSON type and is still not what the field takes; place: as in `inputs[3]`."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{problem} - at `$.{place}`")


class _EmbedRequest(Struct):
    """What the routes that embed have in common."""

    inputs: EmbedInput
    truncate: Truncate = None
    truncation_direction: TruncationDirection = "Right"
    prompt_name: PromptName = None

    def __post_init__(self) -> None:
        check_embed_inputs(self.inputs, "inputs")


class EmbedRequest(_EmbedRequest):
    """One vector for each input."""

    normalize: Annotated[bool, Meta(description="Divide each vector by its length.")] = True
    dimensions: Dimensions | None = None


class EmbedAllRequest(_EmbedRequest):
    """One vector for each token of each input."""

    multi_vector: MultiVector = False


class EmbedSparseRequest(_EmbedRequest):
    """One sparse vector for each input."""


class PredictRequest(Struct):
    """The classes of each input."""

    inputs: PredictInput
    truncate: Truncate = None
    truncation_direction: TruncationDirection = "Right"
    raw_scores: RawScores = False
    prompt_name: PairPromptName = None
    instruction: Instruction = None

    def __post_init__(self) -> None:
        check_predict_inputs(self.inputs)


class RerankRequest(Struct):
    """The texts' scores for the query."""

    query: Annotated[str, Meta(examples=["What is Deep Learning?"])]
    texts: Annotated[list[str], Meta(examples=[["Deep Learning is ..."]])]
    truncate: Truncate = None
    truncation_direction: TruncationDirection = "Right"
    raw_scores: RawScores = False
    return_text: Annotated[bool, Meta(description="Give each text back with its score.")] = False
    prompt_name: PairPromptName = None
    instruction: Instruction = None


class SimilarityInputs(Struct):
    source_sentence: Annotated[str, Meta(examples=["What is Deep Learning?"])]
    sentences: Annotated[list[str], Meta(examples=[["What is Machine Learning?"]])]


class SimilarityParameters(Struct):
    truncate: Truncate = None
    truncation_direction: TruncationDirection = "Right"
    prompt_name: PromptName = None


class SimilarityRequest(Struct):
    """The similarity of the sentences to the source sentence."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None


class TokenizeRequest(Struct):
    """The tokens of each text."""

    inputs: TokenizeInput
    add_special_tokens: Annotated[bool, Meta(description="Put the model's special tokens around each text.")] = True
    prompt_name: PromptName = None


class DecodeRequest(Struct):
    """The text of each list of token ids."""

    ids: DecodeInput
    skip_special_tokens: Annotated[bool, Meta(description="Leave out the model's special tokens.")] = True

    def __post_init__(self) -> None:
        check_embed_inputs(self.ids, "ids")


def check_embed_inputs(value: str | list[Any], place: str) -> None:
    """A list holds either single token ids or whole inputs."""
    if isinstance(value, str):
        return
    kinds = set(map(type, value))
    if int in kinds and len(kinds) > 1:
        ids = [isinstance(item, int) for item in value]
        odd = ids.index(not ids[0])
        raise ShapeError(f"{place}[{odd}]", "A list can't hold both token ids and whole inputs")


def check_predict_inputs(value: str | list[Any]) -> None:
    """A list holds one or two texts, or lists of one or two texts."""
    if isinstance(value, str):
        return
    whole = [isinstance(item, list) for item in value]
    if any(whole) and not all(whole):
        raise ShapeError(f"inputs[{whole.index(not whole[0])}]", f"Expected {PAIR_OR_BATCH}")
    places = (
        {f"inputs[{index}]": item for index, item in enumerate(value)} if all(whole) and value else {"inputs": value}
    )
    for place, texts in places.items():
        if len(texts) not in (1, 2):
            raise ShapeError(place, f"Invalid length {len(texts)}, expected {PAIR_OR_BATCH}")


def embed_inputs(value: str | list[Any], *, vocabulary: int, field: str = "inputs") -> Inputs:
    """First match wins: a text, a list of token ids (the empty list is one), a list of these.

    Raises InputError, with the place, for an id that is not below `vocabulary`.
    """
    if isinstance(value, str):
        return Inputs([value], "single", field)
    if not value or isinstance(value[0], int):
        _require_known(value, field, vocabulary)
        return Inputs([value], "single", field)
    for index, item in enumerate(value):
        if isinstance(item, list):
            _require_known(item, f"{field}[{index}]", vocabulary)
    return Inputs(value, "batch", field)


def _require_known(ids: list[int], place: str, vocabulary: int) -> None:
    if max(ids, default=0) >= vocabulary:
        index, unknown = next((index, id_) for index, id_ in enumerate(ids) if id_ >= vocabulary)
        problem = f"is outside the vocabulary of {vocabulary} ids"
        raise InputError(
            f"`{place}[{index}]`: token id {unknown} {problem}", logged=f"`{place}[{index}]`: the token id {problem}"
        )


def id_lists(value: list[Any]) -> list[list[int]]:
    """A list of token ids (the empty list is one), or a list of such lists."""
    return value if value and isinstance(value[0], list) else [value]


def predict_inputs(value: str | list[Any]) -> Inputs:
    """A list of texts is one input: a text or a pair."""
    if isinstance(value, str):
        return Inputs([value], "single", "inputs")
    if isinstance(value[0], str):
        return Inputs([_text_or_pair(value)], "single", "inputs")
    return Inputs([_text_or_pair(item) for item in value], "batch", "inputs")


def _text_or_pair(texts: list[str]) -> Input:
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])

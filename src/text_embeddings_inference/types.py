"""Plain data that travels between the parts: imports neither an engine nor a server.

Shapes: `B` sequences in a batch, `S` the longest of them, `T` the tokens of all together, `D` the width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Int32Array: TypeAlias = NDArray[np.int32]
Float32Array: TypeAlias = NDArray[np.float32]

BFLOAT16: np.dtype[Any] = np.dtype([("bfloat16", "<u2")])
"""The upper half of a float32. NumPy has no such type: arrays of it can be cut and turned, not computed with."""


def as_float32(array: NDArray[Any]) -> Float32Array:
    """Stored numbers as float32, C-contiguous, aligned and writable: the array itself where it is so, else a copy."""
    if array.dtype == BFLOAT16:
        values = np.empty(array.shape, np.uint32)
        np.left_shift(array["bfloat16"], 16, out=values, dtype=np.uint32)
        return values.view(np.float32)
    return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


Pair: TypeAlias = tuple[str, str]
Input: TypeAlias = str | Pair | list[int]
"""One input: a text, two texts encoded together, or token ids that are run as they are."""


class Kind(StrEnum):
    """What a model gives: a vector, a probability for each of several labels, or one score for a pair of texts."""

    EMBEDDING = "embedding"
    CLASSIFIER = "classifier"
    RERANKER = "reranker"


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one vector."""

    CLS = "cls"
    MEAN = "mean"
    LAST_TOKEN = "last_token"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len"
    WEIGHTED_MEAN = "weighted_mean"
    SPLADE = "splade"
    SPLADE_LOG1P = "splade_log1p"
    SPLADE_SUM = "splade_sum"
    SPLADE_SUM_LOG1P = "splade_sum_log1p"


class Slot(StrEnum):
    """A place in a template that a text of the request is put into."""

    INSTRUCTION = "instruction"
    QUERY = "query"
    DOCUMENT = "document"


Piece: TypeAlias = tuple[str | Slot, ...]
"""A part of a template that is tokenized by itself: texts as they are, and places."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The text that a reranker was trained on, made of a query and a document."""

    plain: tuple[Piece, ...]
    """Without an instruction; (): there always is one."""
    instructed: tuple[Piece, ...] = ()
    """With an instruction; (): it takes none."""
    instruction: str | None = None
    """The instruction where nobody gives one; None: there is none then."""
    stripped: frozenset[Slot] = frozenset()
    """Places of texts that lose the white space around them."""
    special: bool = False
    """Whether the tokenizer puts its special tokens around the only piece."""


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How texts become tokens."""

    truncate: bool = True
    """Cut what is too long, which else is an error."""
    direction: Literal["left", "right"] = "right"
    """The side that is cut."""
    prompt_name: str | None = None
    """The prompt put before each text, or its role (see `LateInteraction`); None: the server's default, if any.
    Rerankers with a template take it as the instruction."""
    instruction: str | None = None
    """What a reranker is told to look for (see `PairTemplate`); None: the prompt, else the template's own."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One tokenized input, ready to run."""

    input_ids: Int32Array
    """`[n]`, special tokens included, after truncation."""
    type_ids: Int32Array | None
    """`[n]`; None where all are 0."""
    characters: int
    """Unicode scalars of the input, prompt not counted; ids count one each."""
    attended: int | None = None
    """So many of the first tokens are seen by the others; None: all."""
    kept: NDArray[np.intp] | None = None
    """Places of the tokens whose vectors are given; None: all."""
    side: str = ""
    """Which side of the model it is for, where it has several; "": the main one."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Token:
    """One token as `/tokenize` shows it: start and stop are byte offsets into prompt + input, None for special ones."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Several encodings in one array."""

    input_ids: Int32Array
    """Padded `[B, S]` (padding on the right, id 0), or packed `[T]`, one after another."""
    type_ids: Int32Array | None
    """Shaped like `input_ids`; None where all are 0."""
    lengths: Int32Array
    """`[B]`"""
    attended: Int32Array | None = None
    """`[B]`: so many of the first tokens of a sequence are seen by its tokens; None: all."""

    @property
    def is_packed(self) -> bool:
        return self.input_ids.ndim == 1

    @property
    def tokens(self) -> int:
        """Tokens that were asked for."""
        return int(self.lengths.sum())

    @property
    def computed_tokens(self) -> int:
        """Tokens that are computed: padding included."""
        return self.input_ids.size

    @staticmethod
    def pad(encodings: Sequence[Encoding], width: int = 0) -> Batch:
        """The padded batch `[B, S]`; S is `width`, or the longest length if that is more."""
        lengths = np.fromiter((len(e) for e in encodings), np.int32, len(encodings))
        input_ids = np.zeros((len(encodings), max(width, lengths.max())), np.int32)
        typed = any(e.type_ids is not None for e in encodings)
        type_ids = np.zeros_like(input_ids) if typed else None
        for row, encoding in enumerate(encodings):
            input_ids[row, : len(encoding)] = encoding.input_ids
            if type_ids is not None and encoding.type_ids is not None:
                type_ids[row, : len(encoding)] = encoding.type_ids
        return Batch(input_ids, type_ids, lengths, _attended(encodings))

    @staticmethod
    def pack(encodings: Sequence[Encoding]) -> Batch:
        """The packed batch `[T]`."""
        lengths = np.fromiter((len(e) for e in encodings), np.int32, len(encodings))
        input_ids = np.concatenate([e.input_ids for e in encodings])
        if all(e.type_ids is None for e in encodings):
            return Batch(input_ids, None, lengths, _attended(encodings))
        type_ids = [np.zeros(len(e), np.int32) if e.type_ids is None else e.type_ids for e in encodings]
        return Batch(input_ids, np.concatenate(type_ids), lengths, _attended(encodings))


def _attended(encodings: Sequence[Encoding]) -> Int32Array | None:
    if all(e.attended is None for e in encodings):
        return None
    return np.array([len(e) if e.attended is None else e.attended for e in encodings], np.int32)


@dataclass(frozen=True, slots=True)
class Output:
    """What an engine gives for a batch."""

    pooled: Float32Array
    """`[B, D]`: pooled vectors after the Dense modules, SPLADE weights or logits."""
    tokens: Float32Array | None
    """`[B, S, W]` or `[T, W]`, like the batch: what `TokenColumns` says; None: the model has none."""


@dataclass(frozen=True, slots=True)
class TokenColumns:
    """What each token of an embedding model gets, column by column (`Output.tokens`)."""

    weights: bool = False
    """Whether the first column is a lexical weight."""
    vectors: int = 0
    """So many columns are a vector for late interaction, of length 1 in nearly all models."""
    first: int = 0
    """The first token that has such a vector."""
    hidden: bool = True
    """Whether all other columns are the last hidden state."""


@dataclass(frozen=True, slots=True)
class TextRules:
    """What a checkpoint's files say of texts and their tokens beside its tokenizer.json."""

    lowercase: bool = False
    """Whether texts are lowered before they are tokenized."""
    special: bool = True
    """Whether the tokenizer puts its special tokens around texts."""
    token_types: bool = True
    """Whether the model gets type ids, which mark the second text of a pair."""
    ending: str = ""
    """Token put behind each text and each part of a pair; "": none."""
    first: str = ""
    """Token that texts are said to begin with; "": nothing is said."""
    last: str = ""
    """Token that texts are said to end with; "": nothing is said."""


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """How a model for late interaction (ColBERT) takes texts in their two roles, `query` and `document`."""

    query_prefix: str
    """Token put after the first one; "": none."""
    document_prefix: str
    """The same for documents."""
    query_length: int
    """Tokens, prefix included, that queries are cut to."""
    document_length: int
    """Tokens, prefix included, that documents are cut to."""
    expansion_token: str
    """Fills up queries; "": they are not filled up."""
    attend_to_expansion: bool
    """Whether other tokens see the expansion tokens."""
    skipped: tuple[str, ...]
    """Tokens that get no vector in the roles of `skipping`."""
    skipping: tuple[str, ...] = ("document",)
    """Names of roles."""
    expansion_length: int | None = None
    """Tokens that queries are filled up to, where that is not `query_length`."""
    only: tuple[int, ...] = ()
    """The token ids that get vectors in documents; empty: all do."""
    normalized: bool = True
    """Whether vectors are of length 1."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, each the mean over the inputs of a request."""

    tokenization: float
    """Of the piece of the request that the input was in."""
    queue: float
    """All other time between the start and the answer."""
    inference: float
    """Of the batch that the input was in."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost, all inputs together."""

    characters: int
    """Unicode scalars."""
    tokens: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a served model once it is loaded."""

    model_id: str
    revision: str | None
    served_name: str
    kind: Kind
    pooling: Pooling | None
    labels: tuple[str, ...]
    """Of class 0, 1, ...; empty for embedding models."""
    label_ids: dict[str, int]
    dtype: str
    engine: str
    architecture: str
    dimensions: int
    """Of the pooled vector."""
    vocabulary: int
    """Number of token ids."""
    max_input_length: int
    fidelity: float | None = None
    """Smallest cosine of the chosen dtype with float32 on built-in texts; None: it is float32."""
    columns: TokenColumns = TokenColumns()
    """What its tokens get."""
    sides: tuple[str, ...] = ()
    """What `prompt_name` may choose between, of a model with several sides."""

"""A model folder, opened: everything that is known of a model before it is built."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..types import Kind, LateInteraction, Pooling, TextRules, TokenColumns
from .facts import Facts
from .modules import Dense, Router, Static
from .onnx import OnnxGraph
from .reranking import Reranking
from .tensors.weights import Weights


@dataclass(frozen=True, slots=True)
class Sources:
    """What said so, of three things that are found in several places: a file and its key, an option or a rule."""

    kind: str = ""
    pooling: str = ""
    max_input_length: str = ""
    late: str = ""
    """Whose format of late interaction it is; "": it is for something else."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model on disk."""

    folder: Path
    """As given."""

    config: dict[str, Any]
    """The whole `config.json`."""

    model_type: str
    architectures: tuple[str, ...]
    kind: Kind
    pooling: Pooling | None
    """None for classifiers and rerankers: their models pool as they were trained."""

    labels: tuple[str, ...]
    """Names by class index; empty for embedding models."""

    label_ids: dict[str, int]
    """`label2id`; empty for embedding models."""

    max_input_length: int
    """Tokens, special ones included."""

    prompts: dict[str, str] | None
    """By name; None if there are none."""

    rules: TextRules
    dense: tuple[Dense, ...]
    """Applied to the pooled vector, in order."""

    token_dense: tuple[Dense, ...]
    """Applied to each token's vector before pooling, in order."""

    late: LateInteraction | None
    """None for models that are not for late interaction."""

    lexical: Dense | None
    """The head that gives each token a weight, as bge-m3 has it."""

    vectors: Dense | None
    """The head that gives each token a vector for late interaction, as bge-m3 has it."""

    weights: Weights
    """Empty where the model is an ONNX graph."""

    tokenizer_file: Path
    sources: Sources
    facts: Facts
    reranking: Reranking = field(default_factory=Reranking)
    """How a reranker takes pairs and makes scores, where that is not by its own head and special tokens."""
    splade: Pooling = Pooling.SPLADE
    """Which of its forms, where the pooling is SPLADE."""
    static: Static | None = None
    """The table by token that is the model, in place of a Transformer."""
    router: Router | None = None
    """How texts find their side, where there are several; this is the main one."""
    sides: Mapping[str, Checkpoint] = field(default_factory=dict)
    """The other sides by name."""
    onnx: OnnxGraph | None = None
    """The graph that is the model where there are no weights."""
    warned: set[str] = field(default_factory=set)
    """What was warned of."""

    def warn(self, logger: logging.Logger, message: str, argument: str) -> None:
        """Logs a warning, the first time only: engines may be made again."""
        if message not in self.warned:
            self.warned.add(message)
            logger.warning(message, argument)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence an engine may have to run: texts in a role have lengths of their own."""
        if self.late is None:
            return self.max_input_length
        return max(self.max_input_length, self.late.query_length, self.late.document_length)

    @property
    def all_dense(self) -> tuple[Dense, ...]:
        """The Dense modules, those for tokens first."""
        return (*self.token_dense, *self.dense)

    @property
    def columns(self) -> TokenColumns:
        """What each token gets."""
        if self.late is not None:
            vectors = self.token_dense[-1].outputs if self.token_dense else self.config.get("hidden_size", 0)
            return TokenColumns(vectors=vectors, hidden=False)
        vectors = 0 if self.vectors is None else self.vectors.outputs
        return TokenColumns(weights=self.lexical is not None, vectors=vectors, first=int(vectors > 0))

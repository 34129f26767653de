"""The fixture checkpoints and the outputs recorded for them (`expected.json`), made by Transformers in float32."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from text_embeddings_inference.checkpoint import Checkpoint, open_checkpoint
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Encoding, Float32Array, Pooling, TokenColumns

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
FIXTURES = sorted(path.name for path in MODELS.iterdir() if path.is_dir())

TOLERANCE = 1e-4
"""Largest difference of a token vector, pooled vector, normalized embedding, logit or probability, in float32."""
LATE_ROLES = ("queries", "documents")
COSINE = 0.99999
"""Smallest cosine of an embedding or a SPLADE vector, in float32."""


@dataclass(frozen=True, slots=True)
class Case:
    """One text or pair.

    output: what the model as configured gives: the vector after the Dense modules, not normalized, SPLADE weights or
    logits; embedding: the vector normalized; tokens: last hidden states; pooled: by pooling, before the Dense modules;
    probabilities: by the name of the function that made them of the logits; vectors: for late interaction; weights: of
    the sparse head, by token id.
    """

    name: str
    encoding: Encoding
    output: Float32Array
    embedding: Float32Array | None
    tokens: Float32Array | None
    pooled: dict[Pooling, Float32Array]
    probabilities: dict[Literal["softmax", "sigmoid"], Float32Array]
    vectors: Float32Array | None = None
    weights: dict[int, float] | None = None


@dataclass(frozen=True, slots=True)
class DenseCase:
    """A text through another Dense module than the one of `modules.json`."""

    dense_path: str
    encoding: Encoding
    output: Float32Array
    embedding: Float32Array


@dataclass(frozen=True, slots=True)
class Rerank:
    """One query with several texts, already encoded; order: places of the texts, best first."""

    encodings: list[Encoding]
    raw_scores: Float32Array
    scores: Float32Array
    order: list[int]


class Fixture:
    """One fixture checkpoint."""

    def __init__(self, name: str) -> None:
        self.folder = MODELS / name
        self._values: dict[str, Any] = json.loads((self.folder / "expected.json").read_text())
        self._config: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        self.task: Literal["embedding", "splade", "classification", "reranker"] = self._values["task"]
        self.max_input_length: int = self._values["max_input_length"]

    def open(self, *, pooling: Pooling | None = None, dense_path: str | None = None) -> Checkpoint:
        """The checkpoint, with the pooling its outputs were made with unless another is given."""
        splade = Pooling.SPLADE if self.task == "splade" else None
        option = pooling or splade
        return open_checkpoint(self.folder, facts_of, pooling=option, dense_path=dense_path)

    @property
    def has_type_ids(self) -> bool:
        return self._config.get("type_vocab_size", 0) > 1

    @property
    def gives_pooled(self) -> bool:
        """Whether the outputs are pooled vectors: nothing comes after the pooling."""
        return all(any(np.array_equal(case.output, x) for x in case.pooled.values()) for case in self.cases)

    @cached_property
    def columns(self) -> TokenColumns:
        """What its tokens get."""
        return self.open().columns

    @property
    def is_late(self) -> bool:
        """Whether it is for late interaction alone."""
        return "colbert" in self._values

    @cached_property
    def late_cases(self) -> dict[str, list[Case]]:
        """Queries and documents of a model for late interaction, as they are run."""
        return {role: [self._late_case(values) for values in self._values["colbert"][role]] for role in LATE_ROLES}

    @cached_property
    def maxsim(self) -> Float32Array:
        """The scores of late interaction, `[queries, documents]`."""
        return _floats(self._values["colbert"]["maxsim"])

    @cached_property
    def cases(self) -> list[Case]:
        """All texts, with and without prompts, and all pairs."""
        names = [("texts", "{name}"), ("prompt_cases", "{prompt_name}: {text}"), ("pairs", "{text} / {text_pair}")]
        return [
            self._case(name.format(**values), values) for key, name in names for values in self._values.get(key, [])
        ]

    @cached_property
    def dense_cases(self) -> list[DenseCase]:
        encodings = {case.name: case.encoding for case in self.cases}
        return [
            DenseCase(
                values["dense_path"],
                encodings[values["name"]],
                _floats(values["embedding_unnormalized"]),
                _floats(values["embedding"]),
            )
            for values in self._values.get("dense_path_cases", [])
        ]

    @cached_property
    def rerank(self) -> Rerank:
        """Its texts are among the pairs, which have token ids."""
        values = self._values["rerank"]
        pairs = {(pair["text"], pair["text_pair"]): _encoding(pair) for pair in self._values["pairs"]}
        encodings = [pairs[values["query"], text] for text in values["texts"]]
        return Rerank(encodings, _floats(values["raw_scores"]), _floats(values["scores"]), values["order"])

    def _case(self, name: str, values: dict[str, Any]) -> Case:
        return Case(
            name=name,
            encoding=_encoding(values),
            output=self._output(values),
            embedding=_floats(values["embedding"]) if "embedding" in values else None,
            tokens=_floats(values["last_hidden_state"]) if "last_hidden_state" in values and not self.is_late else None,
            pooled={Pooling(key): _floats(vector) for key, vector in values.get("pooled", {}).items()},
            probabilities={key: _floats(values[key]) for key in ("softmax", "sigmoid") if key in values},
            vectors=next((_floats(values[key]) for key in ("token_embeddings", "colbert") if key in values), None),
            weights={int(key): x for key, x in values["sparse"].items()} if self._has_sparse_head(values) else None,
        )

    def _late_case(self, values: dict[str, Any]) -> Case:
        ids, mask = np.array(values["input_ids"], np.int32), values.get("attention_mask")
        attended = None if mask is None else sum(mask)
        kept = np.array(values["kept_positions"]) if "kept_positions" in values else None
        vectors = _floats(values["embeddings"])
        encoding = Encoding(ids, None, len(values["text"]), attended, kept)
        return Case(values["text"], encoding, vectors[0], None, None, {}, {}, vectors)

    def _has_sparse_head(self, values: dict[str, Any]) -> bool:
        return self.task == "embedding" and "sparse" in values

    def _output(self, values: dict[str, Any]) -> Float32Array:
        if self.is_late:  # nothing is pooled: what the first token gets
            [dense] = self.open().token_dense
            first = dense.weights.array("linear.weight") @ _floats(values["pooled"]["cls"])
            return np.asarray(first / np.linalg.norm(first), np.float32)
        if self.task == "embedding":
            return _floats(values["embedding_unnormalized"])
        if self.task != "splade":
            return _floats(values["logits"])
        weights = np.zeros(self._config["vocab_size"], np.float32)
        for index, value in values["sparse"].items():
            weights[int(index)] = value
        return weights


def _encoding(values: dict[str, Any]) -> Encoding:
    type_ids = np.array(values["token_type_ids"], np.int32)
    return Encoding(np.array(values["input_ids"], np.int32), type_ids if type_ids.any() else None, 0)


def _floats(values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)

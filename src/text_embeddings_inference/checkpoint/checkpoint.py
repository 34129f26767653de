"""A model folder, opened: everything that is known of a model before it is built."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnsupportedError
from ..types import Kind, LateInteraction, Pooling, TextRules, TokenColumns
from .config import Labels, read_config, read_kind, read_labels, read_max_length, read_position_limit
from .facts import Facts, FactsOf
from .files import MAX_TOKENIZER_BYTES, check_file, check_links
from .json_files import Found, describe, read_optional_object
from .late_interaction import read_late_interaction
from .layout import TOKENIZER, Layout
from .modules import HEAD_FILES, MODULES, Dense, ModulePaths, read_dense, read_head, read_module_paths
from .onnx import OnnxGraph, find_onnx
from .pooling import check_splade, read_pooling
from .tensors.weights import Weights, open_weights
from .text_rules import read_text_rules

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """What said so, of three things that are found in several places: a file and its key, an option or a rule."""

    kind: str = ""
    pooling: str = ""
    max_input_length: str = ""


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
    """Applied to the pooled vector, in order, or, for late interaction, to each token's."""

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
    onnx: OnnxGraph | None = None
    """The graph that is the model where there are no weights."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence an engine may have to run: texts in a role have lengths of their own."""
        if self.late is None:
            return self.max_input_length
        return max(self.max_input_length, self.late.query_length, self.late.document_length)

    @property
    def columns(self) -> TokenColumns:
        """What each token gets."""
        if self.late is not None:
            return TokenColumns(vectors=self.dense[-1].weight.shape[0], hidden=False)
        vectors = 0 if self.vectors is None else self.vectors.weight.shape[0]
        return TokenColumns(weights=self.lexical is not None, vectors=vectors, first=int(vectors > 0))


def open_checkpoint(
    folder: Path,
    facts_of: FactsOf,
    *,
    pooling: Pooling | None = None,
    dense_path: str | None = None,
    onnx_file: str | None = None,
    weights: Weights | None = None,
    linked: Path | None = None,
    step: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Checkpoint:
    """Opens the model in `folder`. Weights are mapped, not read.

    facts_of: tells what must be known of the architecture; pooling, dense_path, onnx_file: the options of these names;
    weights: in place of those in the folder; linked: another folder that links may lead to; step: made for each thing
    that is read, around it; one that swallows errors leaves that thing empty, and the others are read all the same.
    Raises `CheckpointError` for what is missing or damaged, `UnsupportedError` for what we don't have.
    """
    modules = ModulePaths()
    with step():
        check_links(folder, (MODULES,), linked)
        modules = read_module_paths(folder)
    with step():
        layout = Layout(modules.replace_dense(dense_path), onnx_file)
        check_links(folder, layout.present(folder), linked)
    root = folder / modules.transformer
    config = read_config(root)
    facts = facts_of(config.model_type, config.values)
    with step():
        _check_quantizer(folder, modules, facts, config.model_type)
    kind, labels = Found(Kind.EMBEDDING, ""), Labels()
    with step():
        kind = read_kind(root, config, splade=pooling is Pooling.SPLADE)
        if kind.value is not Kind.EMBEDDING:
            labels = read_labels(root, config)
    how: Found[Pooling | None] = Found(pooling, "`--pooling`")
    if kind.value is not Kind.EMBEDDING:
        if pooling is not None:
            logger.warning("`--pooling` is ignored: the model is a %s", kind.value)
        how, modules = Found(None, "the classifier's own"), ModulePaths(modules.transformer)
    elif modules.late and pooling is not Pooling.SPLADE:
        if pooling is not None:
            logger.warning("`--pooling` is ignored: the model gives a vector for each token")
        how = Found(Pooling.CLS, "the rule for models for late interaction, whose tokens are not pooled")
    elif pooling is None:
        with step():
            how = read_pooling(folder, modules, config.model_type)
    if how.value is Pooling.SPLADE:
        with step():
            check_splade(folder, modules)
    if dense_path is not None and len(modules.dense) != 1:
        logger.warning("`--dense-path` is ignored: the model has %d Dense modules, not one", len(modules.dense))
    with step():
        _check_tokenizer(root)
    length, prompts, opened = Found(0, ""), None, Weights((), ())
    dense: tuple[Dense, ...] = ()
    rules = TextRules()
    with step():
        rules = read_text_rules(root, facts.end_of_text)
    late, heads = None, dict.fromkeys(HEAD_FILES)
    with step():
        length = read_max_length(root, config, facts.first_position)
    with step():
        prompts = _read_prompts(folder)
    with step():
        dense = _read_dense_modules(folder, modules.replace_dense(dense_path))
    with step():
        if modules.late:
            late = read_late_interaction(folder, root, read_position_limit(root, config, facts.first_position))
    with step():
        if kind.value is Kind.EMBEDDING and how.value is not Pooling.SPLADE and not modules.late:
            heads = {name: read_head(root, name) for name in HEAD_FILES}
    onnx = None
    with step():
        onnx = find_onnx(root, config, onnx_file, facts.first_position or 0) if weights is None else None
        if onnx is None:
            opened = open_weights(root) if weights is None else weights
    return Checkpoint(
        folder=folder,
        config=config.values,
        model_type=config.model_type,
        architectures=config.architectures,
        kind=kind.value,
        pooling=how.value,
        labels=labels.names,
        label_ids=labels.ids or {},
        max_input_length=length.value,
        prompts=prompts,
        dense=dense,
        late=late,
        lexical=heads["sparse_linear.pt"],
        vectors=heads["colbert_linear.pt"],
        weights=opened,
        tokenizer_file=root / TOKENIZER,
        sources=Sources(kind.source, how.source, length.source),
        rules=rules,
        facts=facts,
        onnx=onnx,
    )


def _check_quantizer(folder: Path, modules: ModulePaths, facts: Facts, model_type: str) -> None:
    """The quantizer is part of the one architecture that has it; `modules.json` need not name it there."""
    if modules.quantizes and not facts.quantizes:
        problem = f"`modules.json` in {folder}: FlexibleQuantizer is not supported for `model_type` {model_type!r}"
        raise UnsupportedError(problem)


def _check_tokenizer(root: Path) -> None:
    if not (root / TOKENIZER).exists():
        problem = "tokenizer.json not found. text-embeddings-inference only supports fast tokenizers"
        raise CheckpointError(
            f"{problem} (looked in {root})",
            hint="save one with Transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    check_file(root, TOKENIZER, MAX_TOKENIZER_BYTES)


def _read_dense_modules(folder: Path, modules: ModulePaths) -> tuple[Dense, ...]:
    dense = tuple(read_dense(folder, path) for path in modules.dense)
    for before, after, path in zip(dense, dense[1:], modules.dense[1:], strict=False):
        if before.weight.shape[0] != after.weight.shape[1]:
            gives, takes = before.weight.shape[0], after.weight.shape[1]
            problem = f"the Dense module `{path}` in {folder} takes {takes} values, the one before it gives {gives}"
            raise CheckpointError(problem)
    return dense


def _read_prompts(folder: Path) -> dict[str, str] | None:
    """`prompts` of `config_sentence_transformers.json`, None if it has none.

    `default_prompt_name` there has no effect, as in TEI 1.9.3.
    """
    name = "config_sentence_transformers.json"
    values = read_optional_object(folder, name) or {}
    prompts = values.get("prompts")
    if prompts is None:
        return None
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        problem = f"`prompts` should be an object of strings, is {describe(prompts)}"
        raise CheckpointError(f"Failed to parse `{name}` in {folder}: {problem}")
    default = values.get("default_prompt_name")
    if default is not None:
        logger.warning("`default_prompt_name` of `%s` is %r: used only with `--default-prompt-name`", name, default)
    return prompts

"""Opens a model folder: what is read of it, one thing after another, strictly or to find all that is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, StartError, UnsupportedError
from ..types import Kind, LateInteraction, Pooling, TextRules
from .adapters import apply_adapter, check_base
from .checkpoint import Checkpoint, Sources
from .config import Labels, ModelConfig, read_config, read_kind, read_labels, read_max_length, read_position_limit
from .facts import Facts, FactsOf
from .files import MAX_TOKENIZER_BYTES, check_file, check_links
from .json_files import Found, describe, read_optional_object
from .late_interaction import NAME as PROMPTS
from .late_interaction import LateFiles, LateFormat, find_late_format, read_late_interaction, read_projection
from .layout import TOKENIZER, Layout
from .modules import (
    HEAD_FILES,
    MODULES,
    Dense,
    ModulePaths,
    Static,
    read_dense_chain,
    read_head,
    read_module_paths,
    router_files,
)
from .onnx import OnnxGraph, find_onnx
from .pooling import DEFAULT_PATH, read_pooling, read_splade
from .request import Request
from .reranking import RerankerFiles, Reranking, causal_reranker, is_causal, read_reranking, unknown_use
from .static import open_static, read_static_config, read_static_length, read_token_weights
from .tensors.weights import Weights, open_weights
from .text_rules import read_text_rules

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Findings:
    """What has been read so far. What could not be read has the value that it begins with."""

    request: Request
    problems: dict[str, StartError] = field(default_factory=dict)
    """What stopped a reader, by the reader's name."""

    modules: ModulePaths = field(default_factory=ModulePaths)
    config: ModelConfig = field(default_factory=lambda: ModelConfig({}, "", ()))
    facts: Facts = field(default_factory=lambda: Facts(None))
    kind: Found[Kind] = field(default_factory=lambda: Found(Kind.EMBEDDING, ""))
    labels: Labels = field(default_factory=Labels)
    reranking: Reranking = field(default_factory=Reranking)
    pooling: Found[Pooling | None] = field(default_factory=lambda: Found(None, ""))
    splade: Pooling = Pooling.SPLADE
    rules: TextRules = field(default_factory=TextRules)
    max_input_length: Found[int] = field(default_factory=lambda: Found(0, ""))
    prompts: dict[str, str] | None = None
    late_format: LateFormat | None = None
    dense: tuple[Dense, ...] = ()
    token_dense: tuple[Dense, ...] = ()
    late: LateInteraction | None = None
    heads: dict[str, Dense | None] = field(default_factory=lambda: dict.fromkeys(HEAD_FILES))
    sides: dict[str, Checkpoint] = field(default_factory=dict)
    """The other sides of a Router."""
    model: OnnxGraph | Weights = field(default_factory=lambda: Weights((), ()))
    """The graph that is the model, or its weights."""

    @property
    def root(self) -> Path:
        """The Transformer's folder."""
        return self.request.folder / self.modules.transformer

    @property
    def is_embedding(self) -> bool:
        return self.kind.value is Kind.EMBEDDING

    @property
    def applied(self) -> ModulePaths:
        """The modules that are run: classifiers have all of theirs in the Transformer."""
        return self.modules if self.is_embedding else ModulePaths(self.modules.transformer)

    def checkpoint(self) -> Checkpoint:
        """All of it together."""
        return Checkpoint(
            folder=self.request.folder,
            config=self.config.values,
            model_type=self.config.model_type,
            architectures=self.config.architectures,
            kind=self.kind.value,
            pooling=self.pooling.value,
            labels=self.labels.names,
            label_ids=self.labels.ids or {},
            max_input_length=self.max_input_length.value,
            prompts=self.prompts,
            rules=self.rules,
            dense=self.dense,
            token_dense=self.token_dense,
            late=self.late,
            lexical=self.heads["sparse_linear.pt"],
            vectors=self.heads["colbert_linear.pt"],
            weights=self.model if isinstance(self.model, Weights) else Weights((), ()),
            tokenizer_file=self.root / TOKENIZER,
            sources=Sources(
                self.kind.source, self.pooling.source, self.max_input_length.source, self.late_format or ""
            ),
            facts=self.facts,
            reranking=self.reranking,
            splade=self.splade,
            static=self.modules.static,
            router=self.modules.router,
            sides=self.sides,
            onnx=self.model if isinstance(self.model, OnnxGraph) else None,
        )


def open_checkpoint(
    folder: Path,
    facts_of: FactsOf,
    *,
    pooling: Pooling | None = None,
    dense_path: str | None = None,
    onnx_file: str | None = None,
    rerank_template: str | None = None,
    rerank_answers: str | None = None,
) -> Checkpoint:
    """The model in `folder`; the arguments are those of `Request`. Weights are mapped, not read.

    Raises `CheckpointError` for what is missing or damaged, `UnsupportedError` for what we don't have.
    """
    return _open(Request(folder, facts_of, pooling, dense_path, onnx_file, rerank_template, rerank_answers))


def _open(request: Request) -> Checkpoint:
    found = Findings(request)
    for name, read in READERS.items():
        _take(found, name, read)
    return found.checkpoint()


def examine_checkpoint(request: Request) -> Findings:
    """All that can be found out of a model, with everything in `problems` that stands in the way.

    Without a `config.json` nothing else is read.
    """
    found = Findings(request)
    for name, read in READERS.items():
        try:
            _take(found, name, read)
        except StartError as problem:
            found.problems[name] = problem
            if name == "config":
                break
    return found


def _take(found: Findings, name: str, read: Callable[[Findings], Any]) -> None:
    value = read(found)
    if not name.startswith("check "):
        setattr(found, name, value)


def _read_modules(found: Findings) -> ModulePaths:
    if found.request.modules is not None:
        return found.request.modules
    folder = found.request.folder
    check_links(folder, (MODULES,), found.request.linked)
    check_links(folder, router_files(folder), found.request.linked)
    return read_module_paths(folder)


def _read_config(found: Findings) -> ModelConfig:
    check_base(found.root)
    static = found.modules.static
    return read_config(found.root) if static is None else read_static_config(found.root, static)


def _read_rules(found: Findings) -> TextRules:
    if found.modules.static is not None:
        return TextRules(special=False)
    return read_text_rules(found.root, found.facts.end_of_text)


def _read_max_length(found: Findings) -> Found[int]:
    if found.modules.static is not None:
        return read_static_length(found.root, found.modules.static)
    return read_max_length(found.root, found.config, found.facts.first_position)


def _read_sides(found: Findings) -> dict[str, Checkpoint]:
    """The other sides of a Router, by their names. Raises `UnsupportedError` where the sides give different things."""
    router, sides = found.modules.router, {}
    if router is None:
        return {}
    for name, modules in router.sides.items():
        if name != router.own:
            sides[name] = _open(replace(found.request, modules=modules, weights=None))
    for name, side in sides.items():
        is_alike = (side.pooling is Pooling.SPLADE) == (found.pooling.value is Pooling.SPLADE)
        if side.kind is not found.kind.value or not is_alike or side.late or found.late:
            raise UnsupportedError(
                f"the sides `{router.own}` and `{name}` of the Router in {found.request.folder} give different things: "
                "not supported"
            )
    return sides


def _check_links(found: Findings) -> None:
    layout = Layout(found.modules.replace_dense(found.request.dense_path), found.request.onnx_file)
    check_links(found.request.folder, layout.present(found.request.folder), found.request.linked)


def _check_quantizer(found: Findings) -> None:
    """The quantizer is part of the one architecture that has it; `modules.json` need not name it there."""
    if found.modules.quantizes and not found.facts.quantizes:
        place = f"`modules.json` in {found.request.folder}"
        what = f"FlexibleQuantizer is not supported for `model_type` {found.config.model_type!r}"
        raise UnsupportedError(f"{place}: {what}")


def _read_kind(found: Findings) -> Found[Kind]:
    request = found.request
    if found.modules.static is not None:
        return Found(Kind.EMBEDDING, f"{found.modules.static}, a table by token")
    if found.modules.logit_score is not None:
        return Found(Kind.RERANKER, "`modules.json`: LogitScore, the score is a difference of two tokens' logits")
    if _is_bare_causal(found) and request.pooling is None:
        source = causal_reranker(found.root, found.config, request.rerank_template, request.rerank_answers)
        if source is not None:
            return Found(Kind.RERANKER, source)
    splade = "`--pooling splade`" if request.pooling is Pooling.SPLADE else ""
    if request.pooling is None and found.modules.splade is not None:
        splade = f"SpladePooling of `{MODULES}`"
    return read_kind(found.root, found.config, splade=splade)


def _read_labels(found: Findings) -> Labels:
    if found.is_embedding:
        return Labels()
    if found.modules.logit_score is not None or _is_bare_causal(found):
        return Labels(("LABEL_0",), {"LABEL_0": 0})
    return read_labels(found.root, found.config)


def _is_bare_causal(found: Findings) -> bool:
    """Whether it is a causal language model of which no file says that it is anything else."""
    modules = found.modules
    return (
        is_causal(found.config)
        and "bert" not in found.config.model_type.lower()  # which are pooled by the rule for these
        and modules.pooling is modules.splade is modules.logit_score is None
        and not (modules.late or modules.all_dense)
        and not (found.request.folder / DEFAULT_PATH / "config.json").exists()
    )


def _read_reranking(found: Findings) -> Reranking:
    request, folder = found.request, found.request.folder
    files = RerankerFiles(folder, found.root, found.modules.logit_score)
    reranking = read_reranking(files, found.config, found.kind.value, request.rerank_template, request.rerank_answers)
    if reranking.answers is not None and found.facts.file is None:
        raise UnsupportedError(
            f"a reranker that is a causal language model of `model_type` {found.config.model_type!r} is not supported",
            hint="convert it to a sequence classifier, which Transformers may run",
        )
    return reranking


def _read_pooling(found: Findings) -> Found[Pooling | None]:
    option = found.request.pooling
    if found.is_embedding and _is_bare_causal(found):
        name = found.config.architectures[0]
        if option is None:
            raise unknown_use(name)
        logger.warning(
            "`--pooling`: %s is a causal language model, whose vectors say something only if trained to", name
        )
    if not found.is_embedding:
        if option is not None:
            logger.warning("`--pooling` is ignored: the model is a %s", found.kind.value)
        return Found(None, "the classifier's own")
    if found.late_format is not None and option is not Pooling.SPLADE:
        if option is not None:
            logger.warning("`--pooling` is ignored: the model gives a vector for each token")
        return Found(Pooling.CLS, "the rule for models for late interaction, whose tokens are not pooled")
    if found.modules.static is not None:
        if option not in (None, Pooling.SPLADE if found.modules.static is Static.WEIGHTS else Pooling.MEAN):
            logger.warning("`--pooling` is ignored: %s has a pooling of its own", found.modules.static)
        is_sparse = found.modules.static is Static.WEIGHTS
        return Found(Pooling.SPLADE if is_sparse else Pooling.MEAN, str(found.modules.static))
    if option is not None:
        return Found(option, "`--pooling`")
    return read_pooling(found.request.folder, found.modules, found.config.model_type)


def _read_splade(found: Findings) -> Pooling:
    is_splade = found.pooling.value is Pooling.SPLADE
    return read_splade(found.request.folder, found.modules) if is_splade else Pooling.SPLADE


def _check_tokenizer(found: Findings) -> None:
    if not (found.root / TOKENIZER).exists():
        problem = "tokenizer.json not found. text-embeddings-inference only supports fast tokenizers"
        raise CheckpointError(
            f"{problem} (looked in {found.root})",
            hint="save one with Transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    check_file(found.root, TOKENIZER, MAX_TOKENIZER_BYTES)


def _read_dense(found: Findings) -> tuple[Dense, ...]:
    wanted, modules = found.request.dense_path, found.applied
    if wanted is not None and len(modules.all_dense) != 1:
        logger.warning("`--dense-path` is ignored: the model has %d Dense modules, not one", len(modules.all_dense))
    return read_dense_chain(found.request.folder, modules.replace_dense(wanted).dense)


def _read_token_dense(found: Findings) -> tuple[Dense, ...]:
    if found.late_format is LateFormat.STANFORD:
        if isinstance(found.model, Weights):
            return (read_projection(found.model),)
        raise UnsupportedError(f"{found.model.file}: in a ColBERT model of Stanford's format its projection is missing")
    paths = found.applied.replace_dense(found.request.dense_path).token_dense
    return read_dense_chain(found.request.folder, paths, on_tokens=True)


def _read_late_format(found: Findings) -> LateFormat | None:
    if not found.is_embedding:
        return None
    return find_late_format(found.request.folder, found.applied, found.config.architectures)


def _read_late(found: Findings) -> LateInteraction | None:
    if found.late_format is None:
        return None
    limit = read_position_limit(found.root, found.config, found.facts.first_position)
    files = LateFiles(found.request.folder, found.root, found.applied, limit, found.max_input_length.value)
    return read_late_interaction(files, found.late_format)


def _read_heads(found: Findings) -> dict[str, Dense | None]:
    has_heads = found.is_embedding and found.pooling.value is not Pooling.SPLADE and found.late_format is None
    return {name: read_head(found.root, name) if has_heads else None for name in HEAD_FILES}


def _read_model(found: Findings) -> OnnxGraph | Weights:
    if found.request.weights is not None:
        return found.request.weights
    if found.modules.static is not None:
        is_sparse = found.modules.static is Static.WEIGHTS
        return read_token_weights(found.root) if is_sparse else open_static(found.root)
    first = found.facts.first_position or 0
    graph = find_onnx(found.root, found.config, found.request.onnx_file, first)
    if graph is not None and found.reranking.answers is not None:
        problem = f"{graph.file}: the graph of a causal language model gives no score, which is made of its weights"
        raise UnsupportedError(problem, hint="take the checkpoint with its weights in safetensors")
    return graph or apply_adapter(found.root, open_weights(found.root))


def _read_prompts(found: Findings) -> dict[str, str] | None:
    """`prompts` of `config_sentence_transformers.json`, None if it has none.

    `default_prompt_name` there has no effect, as in TEI 1.9.3.
    """
    name, folder = PROMPTS, found.request.folder
    values = read_optional_object(folder, name) or {}
    prompts = values.get("prompts")
    if prompts is None:
        return None
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        problem = f"`prompts` should be an object of strings, is {describe(prompts)}"
        raise CheckpointError(f"Failed to parse `{name}` in {folder}: {problem}")
    default = values.get("default_prompt_name")
    if default is not None and not found.reranking.prompted and found.reranking.template is None:
        logger.warning("`default_prompt_name` of `%s` is %r: used only with `--default-prompt-name`", name, default)
    return prompts


READERS: dict[str, Callable[[Findings], Any]] = {
    "modules": _read_modules,
    "check links": _check_links,
    "config": _read_config,
    "facts": lambda found: found.request.facts_of(found.config.model_type, found.config.values),
    "check quantizer": _check_quantizer,
    "kind": _read_kind,
    "late_format": _read_late_format,
    "labels": _read_labels,
    "reranking": _read_reranking,
    "pooling": _read_pooling,
    "splade": _read_splade,
    "check tokenizer": _check_tokenizer,
    "rules": _read_rules,
    "max_input_length": _read_max_length,
    "prompts": _read_prompts,
    "dense": _read_dense,
    "late": _read_late,
    "heads": _read_heads,
    "model": _read_model,
    "token_dense": _read_token_dense,
    "sides": _read_sides,
}
"""What is read, in this order: the field of `Findings` that a reader fills, or a check that fills none."""

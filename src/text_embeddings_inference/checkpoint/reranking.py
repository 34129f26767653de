"""How a reranker takes a query and a document: its template, its prompts, and the tokens that make its score.

Formats: chat templates as Transformers has them (https://huggingface.co/docs/transformers/chat_templating), and
`LogitScore` and `config_sentence_transformers.json` of sentence-transformers' CrossEncoder (5.4 and later).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import CheckpointError
from ..types import Kind, PairTemplate
from .config import SENTENCE_FILES, ModelConfig
from .families import BOS, BY_ARCHITECTURE, BY_CODE, CLASSIFIERS, CONVERTED, FAMILIES, YES_NO, Answers
from .files import read_file
from .json_files import describe, is_integer, read_object, read_optional_object
from .late_interaction import NAME as PROMPTS
from .text_rules import TOKENIZER_CONFIG, read_special_token

logger = logging.getLogger(__name__)

CHAT_TEMPLATE = "chat_template.jinja"
MAX_TEMPLATE_BYTES = 200_000
"""Of a chat template; those of the largest chat models have 20 kB."""

UNTEMPLATED = "The model has no chat template: a query and a document are joined by the tokenizer alone"

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Keys of tokenizer_config.json that templates know as variables."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template in Jinja, which gets messages with the roles `system`, `query` and `document`."""

    source: str
    where: str
    """The file, for errors."""
    variables: dict[str, Any] = field(default_factory=dict)
    """What it gets beside the messages."""
    structured: bool | None = None
    """Whether a message's content is a list of parts, and not a text; None: nothing says so."""
    named: bool = False
    """Whether it gets `query`, `document` and `instruction` too."""


@dataclass(frozen=True, slots=True)
class Reranking:
    """How a reranker takes pairs and makes scores. Empty: by its own head and its tokenizer's special tokens."""

    template: PairTemplate | ChatTemplate | None = None
    answers: Answers | None = None
    """None: it has a head of its own."""
    prompted: bool = False
    """Whether prompts are put before queries, where there is no template."""
    prompt_name: str | None = None
    """The prompt of requests that name none."""
    source: str = ""
    """What said which template it is."""


class RerankerFiles(NamedTuple):
    """Where a reranker's files lie."""

    folder: Path
    root: Path
    """The Transformer's."""
    logit_score: str | None
    """Path of the module, relative to `folder`."""


def is_causal(config: ModelConfig) -> bool:
    """Whether config.json describes a causal language model."""
    return bool(config.architectures) and all(name.endswith("ForCausalLM") for name in config.architectures)


def unknown_use(architecture: str) -> CheckpointError:
    """The error for a causal language model that may be anything."""
    return CheckpointError(
        "The `--pooling` arg is not set and we could not find a pooling configuration (`1_Pooling/config.json`) for "
        f"this model: {architecture} is a causal language model, and no file says what it is for",
        hint="for a reranker give `--rerank-template`, a Jinja file or one of "
        f"{', '.join(FAMILIES)}, or take it as sentence-transformers saves it (LogitScore) or converted to a sequence "
        "classifier; for an embedding model give `--pooling` as its card says; chat models are not served",
    )


def causal_reranker(root: Path, config: ModelConfig, template: str | None, answers: str | None) -> str | None:
    """What says that a causal language model is a reranker; None: nothing does.

    template, answers: the options.
    """
    if template is not None or answers is not None:
        return "`--rerank-template`" if template is not None else "`--rerank-answers`"
    found = _find_family(config)
    if found is not None and found[0] == "zerank":
        return found[1]
    if _knows_roles(read_chat_template(root)):
        return "its chat template, which has the roles query and document"
    return None if found is None else found[1]


def read_reranking(
    files: RerankerFiles, config: ModelConfig, kind: Kind, template: str | None, answers: str | None
) -> Reranking:
    """How the reranker takes pairs. template, answers: the options `--rerank-template` and `--rerank-answers`.

    Raises CheckpointError for a file that is damaged, for a template that is missing, and for options of a model that
    is no reranker.
    """
    if kind is not Kind.RERANKER:
        for option, value in (("--rerank-template", template), ("--rerank-answers", answers)):
            if value is not None:
                raise CheckpointError(f"`{option}`: the model is of the kind {kind.value}, and no reranker")
        return Reranking()
    stored = read_optional_object(files.folder, PROMPTS) or {}
    is_cross_encoder = stored.get("model_type") == "CrossEncoder"
    name = stored.get("default_prompt_name") if is_cross_encoder else None
    if not isinstance(name, str | None):
        raise CheckpointError(f"`default_prompt_name` of `{PROMPTS}` should be a string, is {describe(name)}")
    found = _find_template(files, config, template)
    found = replace(found, prompted=is_cross_encoder and found.template is None, prompt_name=name)
    if answers is not None:
        if found.answers is None:
            raise CheckpointError("`--rerank-answers`: the model has a head of its own, and no vocabulary's logits")
        true, _, false = answers.partition(",")
        found = replace(found, answers=Answers(true, false or None, whole=True))
    return found


def _find_template(files: RerankerFiles, config: ModelConfig, option: str | None) -> Reranking:
    """Template and answers: those of the option, of the model's files, or of its family."""
    has_head = files.logit_score is None and not is_causal(config)
    family = None if has_head else _find_family(config)
    answers: Answers | None = None if has_head else YES_NO
    if files.logit_score is not None:
        answers = read_logit_score(files.folder, files.logit_score)
    elif family is not None:
        answers = FAMILIES[family[0]].answers
    if option is not None:
        if option in FAMILIES:
            answers = FAMILIES[option].answers if answers is not None and files.logit_score is None else answers
            return Reranking(_family_template(files.root, option), answers, source="`--rerank-template`")
        return Reranking(_read_template_file(files.root, option), answers, source="`--rerank-template`")
    is_zerank = family is not None and family[0] == "zerank"
    chat = None if is_zerank or not _takes_messages(files.root) else read_chat_template(files.root)
    if files.logit_score is not None:
        if chat is None:
            logger.warning(UNTEMPLATED)
            return Reranking(answers=answers)
        return Reranking(chat, answers, source=chat.where)
    if chat is not None and _knows_roles(chat):
        return Reranking(chat, YES_NO if answers is not None else None, source=chat.where)
    if family is not None:
        if not is_zerank:
            logger.warning("No file says what this causal language model is for: served as a reranker, %s", family[0])
        return Reranking(_family_template(files.root, family[0]), answers, source=family[1])
    for architecture in config.architectures:
        if architecture in CLASSIFIERS:
            source = f"`architectures` of config.json ({architecture}): {CLASSIFIERS[architecture]}"
            return Reranking(_family_template(files.root, CLASSIFIERS[architecture]), source=source)
        if architecture in CONVERTED:
            hint = "If it was converted from a %s model, give `--rerank-template %s`: its pairs need a template"
            logger.warning(hint, CONVERTED[architecture], CONVERTED[architecture])
    if answers is not None:
        logger.warning(UNTEMPLATED)
    return Reranking(answers=answers)


def _family_template(root: Path, name: str) -> PairTemplate:
    """The template of a family, with the tokenizer's own token at the beginning, if it has one."""
    template = FAMILIES[name].template
    bos = read_special_token(root, "bos_token") or BOS
    plain, instructed = (
        tuple((bos,) if piece == (BOS,) else piece for piece in pieces)
        for pieces in (template.plain, template.instructed)
    )
    return replace(template, plain=plain, instructed=instructed)


def _find_family(config: ModelConfig) -> tuple[str, str] | None:
    """The family of a causal language model, and what says so."""
    auto_map = config.values.get("auto_map")
    for name in auto_map.values() if isinstance(auto_map, dict) else ():
        code = str(name).rpartition("--")[2].partition(".")[0]
        if code in BY_CODE:
            return BY_CODE[code], f"`auto_map` of config.json names {code}"
    for architecture in config.architectures:
        if architecture in BY_ARCHITECTURE:
            family = BY_ARCHITECTURE[architecture]
            return family, f"the rule for {architecture} without files that say what it is: {family}"
    return None


def _knows_roles(template: ChatTemplate | None) -> bool:
    """Whether a template is one for pairs: it names the two roles as strings."""
    return template is not None and all(
        re.search(rf"""["']{role}["']""", template.source) for role in ("query", "document")
    )


def read_logit_score(folder: Path, path: str) -> Answers:
    """The tokens of the LogitScore module in `folder/path`. Raises CheckpointError."""
    name = str(PurePosixPath(path) / "config.json")
    values = read_object(folder, name)
    true, false = values.get("true_token_id"), values.get("false_token_id")
    for key, value in (("true_token_id", true), ("false_token_id", false)):
        if not (is_integer(value) and value >= 0) and not (value is None and key == "false_token_id"):
            problem = f"`{key}` should be a token's id, is {describe(value)}"
            raise CheckpointError(f"Failed to parse `{name}` in {folder}: {problem}")
    assert is_integer(true)
    return Answers(true, false)


def read_chat_template(root: Path) -> ChatTemplate | None:
    """The template of `chat_template.jinja`, else of tokenizer_config.json; None if there is none.

    Raises CheckpointError for one that is damaged or too large.
    """
    stored = read_optional_object(root, TOKENIZER_CONFIG) or {}
    source = stored.get("chat_template")
    if isinstance(source, list):  # several by name, as older versions of Transformers write them
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("reranker", named.get("default"))
    where = f"`chat_template` of {TOKENIZER_CONFIG}"
    if (root / CHAT_TEMPLATE).exists():
        source, where = _decoded(root, CHAT_TEMPLATE), CHAT_TEMPLATE
    if source is None:
        return None
    if not isinstance(source, str) or len(source) > MAX_TEMPLATE_BYTES:
        raise CheckpointError(f"{where} in {root} should be a text of at most {MAX_TEMPLATE_BYTES} characters")
    return _with_settings(root, source, where)


def _read_template_file(root: Path, option: str) -> ChatTemplate:
    file = Path(option)
    if not file.is_file():
        raise CheckpointError(
            f"`--rerank-template`: there is no file {option}", hint=f"a Jinja file, or one of {', '.join(FAMILIES)}"
        )
    template = _with_settings(root, _decoded(file.parent, file.name), option)
    return replace(template, variables={"add_generation_prompt": True} | template.variables, named=True)


def _with_settings(root: Path, source: str, where: str) -> ChatTemplate:
    """The template with what tokenizer_config.json and sentence-transformers' settings give it."""
    stored = read_optional_object(root, TOKENIZER_CONFIG) or {}
    tokens = {
        key: value.get("content") if isinstance(value, dict) else value
        for key in SPECIAL_TOKENS
        if (value := stored.get(key)) is not None
    }
    settings = _settings(root)
    given = _below(settings, "processing_kwargs", "chat_template")
    form = _below(settings, "modality_config", "message").get("format")
    structured = form == "structured" if form in ("structured", "flat") else None
    return ChatTemplate(source, where, given | tokens, structured)


def _takes_messages(root: Path) -> bool:
    """Whether sentence-transformers would use a chat template: its settings may have other inputs alone."""
    settings = _settings(root)
    return "modality_config" not in settings or "message" in _below(settings, "modality_config")


def _settings(root: Path) -> dict[str, Any]:
    """What sentence-transformers has stored beside the Transformer."""
    name = next((name for name in SENTENCE_FILES if (root / name).exists()), SENTENCE_FILES[0])
    return read_optional_object(root, name) or {}


def _below(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The object below the keys; empty where there is none."""
    for key in keys:
        inner = values.get(key)
        values = inner if isinstance(inner, dict) else {}
    return values


def _decoded(folder: Path, name: str) -> str:
    try:
        return read_file(folder, name, MAX_TEMPLATE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"`{name}` in {folder} is no UTF-8: {error}") from error

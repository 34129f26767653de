"""One file per architecture, named after config.json's `model_type`.

To add one: write `models/<model_type>.py`, whose last value is `ARCHITECTURE` (`architecture.Architecture` says what is
in it), put a small checkpoint under tests/fixtures/models, and run `make models-page`, which writes docs/models.md.
Nothing else has to be told: the file is found by its name. Only where a file is for other model types than that of its
name, for remote code, or for one of two spellings of a config.json, one of the tables below says so.
"""

from __future__ import annotations

import pkgutil
from typing import Any, NamedTuple

MODEL_TYPES: dict[str, tuple[str, ...]] = {
    "deberta_v2": ("deberta-v2",),
    "gte": ("gte", "new"),
    "embedding_gemma2": ("embedding_gemma2", "embedding_gemma2_text"),
    "pplx_qwen3": ("bidirectional_pplx_qwen3",),
    "qwen3_vl": ("qwen3_vl", "qwen3_vl_text"),
    "roberta": ("camembert", "roberta", "xlm-roberta"),
}
"""File -> what it is for, where that is not just the `model_type` of its name."""

REMOTE_CODE: dict[str, str] = {
    "jinaai/jina-bert-implementation": "jina_bert",
    "jinaai/jina-bert-v2-qk-post-norm": "jina_bert_code",
    "configuration_xlm_roberta.XLMRobertaFlashConfig": "xlm_roberta_flash",
}
"""Remote code on the Hub, or its class, which may lie beside the weights -> the file that does the same, for models
whose `model_type` is that of another."""

SPELLINGS: dict[tuple[str, str], str] = {("nomic_bert", "n_embd"): "nomic_bert_remote"}
"""`model_type` and a key -> the file for configs with this key, where configs come in two spellings."""

OTHER_FILES = {"architecture", "build", "numbers", *REMOTE_CODE.values(), *SPELLINGS.values()}
"""Those that no `model_type` alone leads to."""


class Choice(NamedTuple):
    """The model file for a checkpoint."""

    module: str
    """Its name in this package."""
    reason: str
    """What in config.json decided."""


def architectures() -> dict[str, str]:
    """`model_type` -> the module of this package that implements it, in alphabetical order."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in OTHER_FILES]
    return dict(sorted((type_, name) for name in names for type_ in MODEL_TYPES.get(name, (name,))))


def supported() -> str:
    """The hint for an architecture that there is no file for."""
    return f"supported are {', '.join(architectures())}"


def choose(model_type: str, config: dict[str, Any]) -> Choice | None:
    """The module that implements the model that a config.json describes; None if there is none.

    A checkpoint that goes by the name of another architecture tells by `_name_or_path` or `auto_map.AutoConfig` whose
    code it was made for.
    """
    auto_map = config.get("auto_map")
    named = {
        "_name_or_path": config.get("_name_or_path"),
        "auto_map.AutoConfig": auto_map.get("AutoConfig") if isinstance(auto_map, dict) else None,
    }
    for code, module in REMOTE_CODE.items():
        for key, name in named.items():
            if isinstance(name, str) and code in (name.partition("--")[0], name.rpartition("--")[2]):
                return Choice(module, f"`{key}` of config.json is {name!r}")
    for (name, key), module in SPELLINGS.items():
        if model_type == name and key in config:
            return Choice(module, f"`model_type` of config.json is {name!r}, and it has a key `{key}`")
    if file := architectures().get(model_type):
        return Choice(file, f"`model_type` of config.json is {model_type!r}")
    return None

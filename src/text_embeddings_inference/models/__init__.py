"""One file per architecture, found by config.json's `model_type`.

To add one: write `models/<name>.py` (Args, PREFIXES, TENSORS, HEADS, Model, with a `width` where its vectors are not
`hidden_size` wide; `classifier` and `masked_lm` where the architecture has such heads; `finish` where something is done
to pooled vectors; CHECKPOINTS: a few that people know), add its row here, put a small checkpoint under
tests/fixtures/models, and run `make models-page`, which writes docs/models.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ARCHITECTURES: dict[str, str] = {
    "albert": "albert",
    "bert": "bert",
    "bidirectional_pplx_qwen3": "pplx_qwen3",
    "camembert": "roberta",
    "deberta-v2": "deberta_v2",
    "distilbert": "distilbert",
    "electra": "electra",
    "eurobert": "eurobert",
    "gemma3_text": "gemma3_text",
    "gte": "gte",
    "jina_embeddings_v3": "jina_embeddings_v3",
    "llama": "llama",
    "llama_bidirec": "llama_bidirec",
    "mistral": "mistral",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "new": "gte",
    "nomic_bert": "nomic_bert",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "roberta": "roberta",
    "t5": "t5",
    "xlm-roberta": "roberta",
}
"""`model_type` -> the module of this package that implements it."""

REMOTE_CODE: dict[str, str] = {
    "jinaai/jina-bert-implementation": "jina_bert",
    "jinaai/jina-bert-v2-qk-post-norm": "jina_bert_code",
}
"""Remote code on the Hub -> the module that does the same, for models whose `model_type` is that of another."""

SPELLINGS: dict[tuple[str, str], str] = {("nomic_bert", "n_embd"): "nomic_bert_remote"}
"""`model_type` and a key -> the module for configs with this key, where configs come in two spellings."""


class Choice(NamedTuple):
    """module: of this package; reason: what in config.json decided."""

    module: str
    reason: str


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
            if isinstance(name, str) and name.partition("--")[0] == code:
                return Choice(module, f"`{key}` of config.json is {name!r}")
    for (name, key), module in SPELLINGS.items():
        if model_type == name and key in config:
            return Choice(module, f"`model_type` of config.json is {name!r}, and it has a key `{key}`")
    if model_type in ARCHITECTURES:
        return Choice(ARCHITECTURES[model_type], f"`model_type` of config.json is {model_type!r}")
    return None

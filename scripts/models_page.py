"""Writes docs/models.md: what each file of `models/` says of itself.

    python scripts/models_page.py docs/models.md      (make models-page)

The hardware: what the options `--engine` and `--dtype` say. A file's row: the model types or the remote code that
lead to it (`models.architectures`, `REMOTE_CODE`), the first paragraph of its docstring, the heads it has, and its
`checkpoints`; the rest of its docstring follows below the table.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from text_embeddings_inference.models import REMOTE_CODE, SPELLINGS, architectures
from text_embeddings_inference.settings import EngineOptions
from text_embeddings_inference.settings.options import options_of

INTRODUCTION = """\
# Models and hardware

<!-- Written by scripts/models_page.py from the files of models/: change those, then run `make models-page`. -->

A model is known by `model_type` of its config.json, or by the remote code it names there (`auto_map`), which is not
run: the architecture is written here anew. Any checkpoint of these architectures is served, in safetensors or as
`pytorch_model.bin`; those named below are examples. Embedding models pool as their files say (mean, CLS, last token,
max, ...) and may have Dense modules. Classifiers with one label are rerankers, and
so are causal language models that [a template](rerankers.md) makes into ones. Models for late interaction
(ColBERT) are served in the formats of PyLate, Stanford (`HF_ColBERT`) and sentence-transformers 6, and bge-m3 with its
two heads ([how](differences.md#what-it-does-not-have)). SPLADE models are known by SpladePooling in
modules.json, with any of its strategies and activations; for others say `--pooling splade`.

Of models that take images or sound too, the part for texts is served: it is what `text_config` of config.json
describes, and the weights of the other parts are left out, and named in the log.

Models with several sides (`Router` of sentence-transformers: OpenSearch's inference-free SPLADE, a small encoder for
queries beside a large one for documents) take `prompt_name` `query` or `document`, or another name of a route; without
one a text goes the way of `default_route`. SparseStaticEmbedding gives the weight of each token that a query has, once,
without special tokens. Modules around a Router belong to each side, and are loaded for each. `/embed_all` is not
available for such models.

An adapter (LoRA, of PEFT) beside the weights, `adapter_config.json` and `adapter_model.safetensors`, is added to them
at load. An adapter without its base is refused, and so are the adapters by task of jina-embeddings-v3.

`text-embeddings-router --explain MODEL` says whether a model would be served, and how, without fetching its weights.
What is not here may still run: from an ONNX graph on OpenVINO, or by Transformers where that is installed (README).
"""


def page() -> str:
    """The whole file."""
    files: dict[str, list[str]] = {}
    for model_type, name in [*architectures().items(), *REMOTE_CODE.items()]:
        files.setdefault(name, []).append(model_type)
    for (model_type, key), name in SPELLINGS.items():
        files.setdefault(name, []).append(f"{model_type}` with a key `{key}")
    modules = {name: import_module(f"text_embeddings_inference.models.{name}") for name in files}
    lines = [INTRODUCTION, *_hardware(), "## Architectures", ""]
    lines += ["| `model_type` | architecture | vectors | classifiers | SPLADE |", "|---|---|---|---|---|"]
    lines += [_row(files[name], module) for name, module in modules.items()]
    for name, module in modules.items():
        lines += _section(files[name], module)
    return "\n".join(lines) + "\n"


def _hardware() -> list[str]:
    """What the options that choose it say of themselves."""
    options = options_of(EngineOptions)
    lines = ["## Hardware", ""]
    for name in ("engine", "dtype"):
        option = options[name]
        values = ", ".join(f"`{value}`" for value in option.value.possible)
        lines += [f"- `{option.flag}` ({values}): {option.about}. {option.details}"]
    return [*lines, "", "More: [on a CPU](cpu.md), [on a GPU](gpu.md).", ""]


def _row(model_types: list[str], module: ModuleType) -> str:
    summary = " ".join(_paragraphs(module)[0].split()).rstrip(".")
    heads = ["yes" if head else "" for head in (module.ARCHITECTURE.classifier, module.ARCHITECTURE.masked_lm)]
    return f"| {_names(model_types)} | {summary} | yes | {' | '.join(heads)} |"


def _section(model_types: list[str], module: ModuleType) -> list[str]:
    """Notes and checkpoints, as far as there are any."""
    checkpoints = [f"- [{name}](https://huggingface.co/{name})" for name in module.ARCHITECTURE.checkpoints]
    parts = [*_paragraphs(module)[1:], *(["\n".join(checkpoints)] if checkpoints else [])]
    return ["", f"## {_names(model_types)}", "", "\n\n".join(parts)] if parts else []


def _paragraphs(module: ModuleType) -> list[str]:
    return inspect.cleandoc(module.__doc__ or module.__name__).split("\n\n")


def _names(model_types: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in model_types)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())

"""Models that no file of ours covers, run by Transformers on PyTorch: slower, but with our pooling and limits."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
)

from ..checkpoint import Checkpoint
from ..errors import CheckpointError, UnsupportedError
from ..models.build import Network, Results, embedding
from ..ops.spec import Constants, Inputs, Ops, Value
from ..ops.torch import TorchOps
from ..ops.torch_sequences import PaddedSequences
from ..types import Kind, Pooling
from .base import Need, Offer
from .torch import TorchEngine

UNUSED = "pooler"
"""A part of many models that is not needed for hidden states, and may be missing."""

POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
"""What the modules of Transformers call their tables of positions."""


def make_engine(need: Need, offer: Offer) -> TorchEngine:
    """A model of Transformers on one device, in padded batches.

    Raises as `TorchEngine`, and UnsupportedError for SPLADE and for models that Transformers does not know either, or
    that take more than texts.
    """

    def load(checkpoint: Checkpoint, ops: TorchOps) -> Network:
        source = _Source(need)
        model, found = source.attempt(
            source.architecture.from_pretrained,
            source.folder,
            dtype=getattr(torch, offer.dtype),
            local_files_only=True,
            output_loading_info=True,
        )
        if missing := sorted(name for name in found["missing_keys"] if UNUSED not in name):
            raise CheckpointError(f"the weights have no tensor `{missing[0]}`, which {type(model).__name__} needs")
        return _build(checkpoint, ops, model.to(offer.device).eval())

    return TorchEngine(need, offer, layout="padded", builder=load)


def inspect(need: Need) -> Network:
    """What is known of the network without its weights. Raises as the engine does, but for what is missing in them."""
    source = _Source(need)
    with torch.device("meta"):
        model = source.attempt(source.architecture.from_config, source.config)
    return _build(need.checkpoint, TorchOps(torch.device("cpu"), torch.float32, need.checkpoint.longest), model)


class _Source:
    """A checkpoint as Transformers sees it."""

    def __init__(self, need: Need) -> None:
        """Raises UnsupportedError and CheckpointError."""
        checkpoint = need.checkpoint
        self._model_type = checkpoint.model_type
        self._trust_remote_code = need.settings.model.trust_remote_code
        self.folder = checkpoint.tokenizer_file.parent
        if checkpoint.pooling is Pooling.SPLADE:
            raise UnsupportedError(f"SPLADE pooling is not supported for `model_type` {checkpoint.model_type!r}")
        for name in checkpoint.weights:
            if name.endswith((".weight", ".bias")):
                checkpoint.weights.check_float(name)
        self.config = self.attempt(AutoConfig.from_pretrained, self.folder, local_files_only=True)
        if checkpoint.kind is Kind.EMBEDDING:
            # Of T5 and its like the encoder alone, as sentence-transformers takes them.
            takes_encoder = self.config.is_encoder_decoder and type(self.config) in MODEL_FOR_TEXT_ENCODING_MAPPING
            self.architecture: Any = AutoModelForTextEncoding if takes_encoder else AutoModel
            return
        if self.config.is_encoder_decoder:
            what = f"classifiers of `model_type` {checkpoint.model_type!r} are not supported"
            raise UnsupportedError(f"{what}: encoder-decoders look for the end of the text")
        self.architecture = AutoModelForSequenceClassification

    def attempt(self, load: Any, *arguments: Any, **options: Any) -> Any:
        """Raises UnsupportedError where Transformers can't."""
        try:
            return load(*arguments, trust_remote_code=self._trust_remote_code, **options)
        except (ValueError, KeyError, ImportError, OSError) as problem:
            reason = str(problem).strip().partition("\n")[0]
            raise UnsupportedError(
                f"Transformers can't load `model_type` {self._model_type!r}: {reason}",
                hint="a newer Transformers may know it; `--trust-remote-code` runs code that lies beside the weights",
            ) from problem


def _check_positions(checkpoint: Checkpoint, model: Any) -> None:
    """Raises UnsupportedError where the model has a table of positions that is shorter than the longest input."""
    modules = dict(model.named_modules())
    # Of a model for images too, the part for them has a table of its own.
    others = tuple(f"{name}." for name, module in modules.items() if _takes(module) not in (None, "input_ids"))
    for name, module in modules.items():
        is_table = isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES
        if is_table and not name.startswith(others):
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            rows = module.num_embeddings - first
            if checkpoint.longest > rows:
                raise UnsupportedError(
                    f"inputs of {checkpoint.longest} tokens are longer than the {rows} positions of `{name}`",
                    hint="set `max_seq_length` in sentence_bert_config.json to as many as there are",
                )


def _build(checkpoint: Checkpoint, ops: Constants, model: Any) -> Network:
    vocabulary, width = _sizes(model)
    _check_positions(checkpoint, model)
    takes_types = "token_type_ids" in signature(model.forward).parameters

    def call(inputs: Inputs) -> Any:
        sequences = inputs.layout.raw
        assert isinstance(sequences, PaddedSequences)
        ids = inputs.input_ids.raw.long()
        types = {"token_type_ids": inputs.type_ids.raw.long().expand_as(ids)} if takes_types else {}
        return model(input_ids=ids, attention_mask=sequences.kept.long(), **types)

    def hidden(ops: Ops, inputs: Inputs) -> Value:
        return Value(call(inputs).last_hidden_state)

    def classify(ops: Ops, inputs: Inputs) -> Results:
        return Results(Value(call(inputs).logits), None)

    if checkpoint.kind is not Kind.EMBEDDING:
        return Network(classify, len(checkpoint.labels), vocabulary)
    return embedding(checkpoint, hidden, width, ops, vocabulary)


def _takes(module: Any) -> str | None:
    """The name of what a model, or one inside of it, takes first; None for other modules."""
    return getattr(module, "main_input_name", None)


def _sizes(model: Any) -> tuple[int, int]:
    """Vocabulary and width of a model. Raises UnsupportedError for one that takes other things than texts."""
    name = f"{type(model).__name__} of Transformers"
    if _takes(model) != "input_ids":
        raise UnsupportedError(f"{name} takes `{_takes(model)}`, not texts")
    config = model.config if hasattr(model.config, "hidden_size") else model.config.get_text_config()
    try:
        return int(model.get_input_embeddings().num_embeddings), int(config.hidden_size)
    except (NotImplementedError, AttributeError) as problem:
        raise UnsupportedError(f"{name} has no table of token ids, or hidden states of no known width") from problem

"""Models that no file of ours covers, run by Transformers on PyTorch: slower, but with our pooling and limits."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from ..checkpoint import Checkpoint
from ..errors import CheckpointError, UnsupportedError
from ..models.build import Network, Results, embedding
from ..ops.spec import Inputs, Ops, Value
from ..ops.torch import TorchOps
from ..ops.torch_sequences import PaddedSequences
from ..types import Kind, Pooling
from .torch import TorchEngine

logger = logging.getLogger(__name__)

UNUSED = "pooler"
"""A part of many models that is not needed for hidden states, and may be missing."""

POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
"""What the modules of Transformers call their tables of positions."""


class TransformersEngine(TorchEngine):
    """A model of Transformers on one device, in padded batches (see `base.Engine`)."""

    name = "transformers"

    def __init__(
        self, checkpoint: Checkpoint, *, device: str, dtype: str, threads: int, trust_remote_code: bool
    ) -> None:
        """trust_remote_code: the option of this name. Raises as `TorchEngine`, and UnsupportedError for SPLADE and for
        models that Transformers does not know either."""

        def builder(checkpoint: Checkpoint, ops: TorchOps) -> Network:
            return _build(checkpoint, ops, _load(checkpoint, device, dtype, trust_remote_code))

        super().__init__(checkpoint, device=device, dtype=dtype, threads=threads, layout="padded", builder=builder)


def _load(checkpoint: Checkpoint, device: str, dtype: str, trust_remote_code: bool) -> Any:
    """The model, ready to be called. Raises UnsupportedError and CheckpointError."""
    if checkpoint.pooling is Pooling.SPLADE:
        raise UnsupportedError(f"SPLADE pooling is not supported for `model_type` {checkpoint.model_type!r}")
    architecture = AutoModel if checkpoint.kind is Kind.EMBEDDING else AutoModelForSequenceClassification
    try:
        model, found = architecture.from_pretrained(
            checkpoint.tokenizer_file.parent,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, KeyError, ImportError, OSError) as problem:
        reason = str(problem).strip().partition("\n")[0]
        raise UnsupportedError(
            f"Transformers can't load `model_type` {checkpoint.model_type!r}: {reason}",
            hint="a newer Transformers may know it; `--trust-remote-code` runs code that lies beside the weights",
        ) from problem
    if missing := sorted(name for name in found["missing_keys"] if UNUSED not in name):
        raise CheckpointError(f"the weights have no tensor `{missing[0]}`, which {type(model).__name__} needs")
    _check_positions(checkpoint, model)
    return model.to(device).eval()


def _check_positions(checkpoint: Checkpoint, model: Any) -> None:
    """Raises UnsupportedError where the model has a table of positions that is shorter than the longest input."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            rows = module.num_embeddings - first
            if checkpoint.longest > rows:
                raise UnsupportedError(
                    f"inputs of {checkpoint.longest} tokens are longer than the {rows} positions of `{name}`",
                    hint="set `max_seq_length` in sentence_bert_config.json to as many as there are",
                )


def _build(checkpoint: Checkpoint, ops: TorchOps, model: Any) -> Network:
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    vocabulary = int(model.get_input_embeddings().num_embeddings)

    def call(inputs: Inputs) -> Any:
        sequences = inputs.layout.raw
        assert isinstance(sequences, PaddedSequences)
        ids = inputs.input_ids.raw.long()
        types = {"token_type_ids": inputs.type_ids.raw.long().expand_as(ids)} if takes_types else {}
        return model(input_ids=ids, attention_mask=sequences.kept.long(), **types)

    def hidden(ops: Ops, inputs: Inputs) -> Value:
        return Value(call(inputs).last_hidden_state)

    if checkpoint.kind is not Kind.EMBEDDING:
        return Network(
            lambda ops, inputs: Results(Value(call(inputs).logits), None), len(checkpoint.labels), vocabulary
        )
    return embedding(checkpoint, hidden, int(model.config.hidden_size), ops, vocabulary)

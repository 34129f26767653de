"""ELECTRA (Clark et al., arXiv:2003.10555).

Differs from BERT: embeddings may be narrower than the model and are then projected; its heads.
"""

from __future__ import annotations

from ..nn.heads import ClassificationHead, MaskedLMHead
from ..nn.layers import Embedding, Linear, activation
from ..nn.parameters import Parameters, Table
from ..ops.spec import AttentionSpec, Inputs, Ops, Value
from . import bert
from .architecture import Architecture, table


class Args(bert.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    embedding_size: int = 128


TENSORS: Table = {**bert.TENSORS, "embeddings_project": "project"}

HEADS: Table = {
    "classifier.dense": "dense",
    "classifier.out_proj": "out",
    "generator_predictions.dense": "transform",
    "generator_predictions.LayerNorm": "norm",
    "generator_lm_head": "decoder",
    "discriminator_predictions.dense": None,
    "discriminator_predictions.dense_prediction": None,
    "qa_outputs": None,
}


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = bert.Embeddings(args, p / "embeddings", args.embedding_size)
        narrow = args.embedding_size != args.hidden_size
        self.project = Linear(p / "project", args.embedding_size, args.hidden_size) if narrow else None
        self.layers = bert.blocks(args, p / "layers")

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.embeddings(ops, inputs)
        x = self.project(ops, x) if self.project else x
        for layer in self.layers:
            x = layer(ops, x, AttentionSpec(), inputs.layout)
        return x


def classifier(args: Args, labels: int, p: Parameters) -> ClassificationHead:
    """ElectraClassificationHead."""
    return ClassificationHead(p, args.hidden_size, labels, activation("classifier", "gelu"))


def masked_lm(args: Args, word: Embedding, p: Parameters) -> MaskedLMHead:
    """ElectraForMaskedLM's head: as wide as the embeddings, always with GELU."""
    shape = (args.vocab_size, args.embedding_size)
    act = activation("generator_predictions", "gelu")
    return MaskedLMHead(p, args.hidden_size, word, shape, act, args.layer_norm_eps)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=table,
    prefixes=("electra.",),
    heads=HEADS,
    classifier=classifier,
    masked_lm=lambda args, model, p: masked_lm(args, model.embeddings.word, p),
    checkpoints=("cross-encoder/ms-marco-electra-base",),
)

"""ALBERT (Lan et al., arXiv:1909.11942).

Differs from BERT: narrow embeddings that are projected, and one block's weights for all layers of a group.
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..nn.heads import ClassificationHead, MaskedLMHead
from ..nn.layers import Embedding, Linear, activation
from ..nn.parameters import Parameters, Table
from ..ops.spec import AttentionSpec, Inputs, Ops, Value
from . import bert
from .architecture import Architecture, table


class Args(bert.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    embedding_size: int = 128
    hidden_act: str = "gelu_new"
    num_hidden_groups: int = 1
    inner_group_num: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_group_num != 1:
            raise UnsupportedError(f"config.json: `inner_group_num` is {self.inner_group_num}; supported is 1")


_BLOCK = "encoder.albert_layer_groups.{i}.albert_layers.0"

TENSORS: Table = {
    **bert.EMBEDDINGS,
    "encoder.embedding_hidden_mapping_in": "project",
    f"{_BLOCK}.attention.query": "groups.{i}.attention.query",
    f"{_BLOCK}.attention.key": "groups.{i}.attention.key",
    f"{_BLOCK}.attention.value": "groups.{i}.attention.value",
    f"{_BLOCK}.attention.dense": "groups.{i}.attention.output",
    f"{_BLOCK}.attention.LayerNorm": "groups.{i}.attention_norm",
    f"{_BLOCK}.ffn": "groups.{i}.up",
    f"{_BLOCK}.ffn_output": "groups.{i}.down",
    f"{_BLOCK}.full_layer_layer_norm": "groups.{i}.output_norm",
}

HEADS: Table = {
    "pooler": "dense",
    "classifier": "out",
    "predictions.dense": "transform",
    "predictions.LayerNorm": "norm",
    "predictions.decoder": "decoder",
    "predictions": "",
    "sop_classifier.classifier": None,
    "qa_outputs": None,
}


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = bert.Embeddings(args, p / "embeddings", args.embedding_size)
        self.project = Linear(p / "project", args.embedding_size, args.hidden_size)
        act = activation("hidden_act", args.hidden_act)
        groups = [bert.block(args, act, p / "groups" / i) for i in range(args.num_hidden_groups)]
        per_group = args.num_hidden_layers / args.num_hidden_groups
        self.layers = [groups[int(i / per_group)] for i in range(args.num_hidden_layers)]

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.project(ops, self.embeddings(ops, inputs))
        for layer in self.layers:
            x = layer(ops, x, AttentionSpec(), inputs.layout)
        return x


def classifier(args: Args, labels: int, p: Parameters) -> ClassificationHead:
    """AlbertForSequenceClassification's head: the pooler, then the classifier."""
    return ClassificationHead(p, args.hidden_size, labels, activation("pooler", "tanh"))


def masked_lm(args: Args, word: Embedding, p: Parameters) -> MaskedLMHead:
    """AlbertMLMHead."""
    shape = (args.vocab_size, args.embedding_size)
    act = activation("hidden_act", args.hidden_act)
    return MaskedLMHead(p, args.hidden_size, word, shape, act, args.layer_norm_eps)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=table,
    prefixes=("albert.",),
    heads=HEADS,
    classifier=classifier,
    masked_lm=lambda args, model, p: masked_lm(args, model.embeddings.word, p),
    checkpoints=("sentence-transformers/paraphrase-albert-small-v2",),
)

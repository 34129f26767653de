"""RoBERTa (Liu et al., arXiv:1907.11692), XLM-RoBERTa and CamemBERT.

Differs from BERT in its positions, which are counted from `pad_token_id + 1`, and in its heads. (Transformers gives a
padding token that was typed into a text the position of padding; here it counts like any other, as in TEI.)
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..nn.heads import ClassificationHead, MaskedLMHead
from ..nn.layers import Embedding, activation
from ..nn.parameters import Parameters, Table
from . import architecture, bert
from .architecture import Architecture


class Args(bert.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    pad_token_id: Annotated[int, Meta(ge=0)] = 1

    @property
    def first_position(self) -> int:
        """Row of the first token in the table of positions."""
        return self.pad_token_id + 1


HEADS: Table = {
    "pooler.dense": None,
    "classifier.dense": "dense",
    "classifier.out_proj": "out",
    "lm_head.dense": "transform",
    "lm_head.layer_norm": "norm",
    "lm_head.decoder": "decoder",
    "lm_head": "",
    "qa_outputs": None,
}


class Model(bert.Model):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = bert.Embeddings(args, p / "embeddings", args.hidden_size, first_position=args.first_position)
        self.layers = bert.blocks(args, p / "layers")


def classifier(args: architecture.Args, labels: int, p: Parameters) -> ClassificationHead:
    """RobertaClassificationHead."""
    return ClassificationHead(p, args.hidden_size, labels, activation("classifier", "tanh"))


def masked_lm(args: bert.HeadArgs, word: Embedding, p: Parameters) -> MaskedLMHead:
    """RobertaLMHead: its activation is GELU whatever `hidden_act` says."""
    table = (args.vocab_size, args.hidden_size)
    act = activation("lm_head", "gelu")
    return MaskedLMHead(p, args.hidden_size, word, table, act, args.layer_norm_eps)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=bert.TENSORS,
    positions=lambda args: args.first_position,
    prefixes=("roberta.", "xlm-roberta.", "camembert."),
    heads=HEADS,
    classifier=classifier,
    masked_lm=lambda args, model, p: masked_lm(args, model.embeddings.word, p),
    checkpoints=(
        "sentence-transformers/all-roberta-large-v1",
        "SamLowe/roberta-base-go_emotions",
        "intfloat/multilingual-e5-large",
        "BAAI/bge-m3",
        "BAAI/bge-reranker-v2-m3",
        "dangvantuan/sentence-camembert-base",
    ),
)

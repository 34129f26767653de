"""RoBERTa (Liu et al., arXiv:1907.11692), XLM-RoBERTa and CamemBERT.

Differs from BERT in its positions, which are counted from `pad_token_id + 1`, and in its heads. (Transformers gives a
padding token that was typed into a text the position of padding; here it counts like any other, as in TEI.)
"""

from __future__ import annotations

from ..nn.heads import ClassificationHead, MaskedLMHead
from ..nn.layers import activation
from ..nn.parameters import Parameters, Table
from . import bert
from .bert import TENSORS as TENSORS


class Args(bert.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    pad_token_id: int = 1


CHECKPOINTS = (
    "sentence-transformers/all-roberta-large-v1",
    "SamLowe/roberta-base-go_emotions",
    "intfloat/multilingual-e5-large",
    "BAAI/bge-m3",
    "BAAI/bge-reranker-v2-m3",
    "dangvantuan/sentence-camembert-base",
)

PREFIXES = ("roberta.", "xlm-roberta.", "camembert.")

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
        first = args.pad_token_id + 1
        self.embeddings = bert.Embeddings(args, p / "embeddings", args.hidden_size, first_position=first)
        self.layers = bert.blocks(args, p / "layers")


def classifier(args: Args, labels: int, p: Parameters) -> ClassificationHead:
    """RobertaClassificationHead."""
    return ClassificationHead(p, args.hidden_size, labels, activation("classifier", "tanh"))


def masked_lm(args: Args, model: Model, p: Parameters) -> MaskedLMHead:
    """RobertaLMHead: its activation is GELU whatever `hidden_act` says."""
    table = (args.vocab_size, args.hidden_size)
    return MaskedLMHead(
        p, args.hidden_size, model.embeddings.word, table, activation("lm_head", "gelu"), args.layer_norm_eps
    )

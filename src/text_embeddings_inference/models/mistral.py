"""Mistral (Jiang et al., arXiv:2310.06825).

Differs from Llama: no biases, and a window: a token sees `sliding_window` tokens, itself the last of them.
"""

from __future__ import annotations

from ..nn.layers import PreNormBlock, SelfAttention
from ..nn.parameters import Parameters
from ..ops.spec import AttentionSpec, Rope
from .architecture import Architecture, computed
from .llama import HEADS, TENSORS, Decoder, DecoderArgs, Size, block, classifier


class Args(DecoderArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    sliding_window: Size | None = 4096

    def specs(self) -> list[AttentionSpec]:
        return [self.spec(self.sliding_window)] * self.num_hidden_layers


class Model(Decoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        def make_block(p: Parameters, rope: Rope) -> PreNormBlock:
            return block(args, p, SelfAttention(p / "attention", args.hidden_size, args.heads, rope=rope, biases=()))

        super().__init__(args, p, make_block)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=HEADS,
    classifier=classifier,
    checkpoints=(
        "intfloat/e5-mistral-7b-instruct",
        "Salesforce/SFR-Embedding-Mistral",
        "Linq-AI-Research/Linq-Embed-Mistral",
    ),
)

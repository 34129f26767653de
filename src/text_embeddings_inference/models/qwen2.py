"""Qwen2 (Yang et al., arXiv:2407.10671).

Differs from Llama: queries, keys and values have biases, and some layers may have a window.
"""

from __future__ import annotations

from typing import Any, Literal

from ..errors import UnsupportedError
from ..nn.layers import PreNormBlock, SelfAttention
from ..nn.parameters import QKV, Parameters
from ..ops.spec import AttentionSpec, Rope
from .architecture import Architecture, computed
from .llama import HEADS, TENSORS, Decoder, DecoderArgs, Size, block, classifier

LayerType = Literal["full_attention", "sliding_attention"]


class WindowedArgs(DecoderArgs, frozen=True, kw_only=True):
    """The keys of config.json that say which layers have a window: `layer_types`, else all from `max_window_layers`."""

    use_sliding_window: bool = False
    sliding_window: Size | None = 4096
    max_window_layers: int = 28
    layer_types: list[LayerType] | None = None

    def specs(self) -> list[AttentionSpec]:
        window = self.sliding_window if self.use_sliding_window else None
        if self.layer_types is None:
            first = self.num_hidden_layers if window is None else self.max_window_layers
            slides = [i >= first for i in range(self.num_hidden_layers)]
        else:
            slides = [kind == "sliding_attention" for kind in self.layer_types]
        if len(slides) != self.num_hidden_layers:
            raise UnsupportedError(
                f"config.json: `layer_types` has {len(slides)} rows for {self.num_hidden_layers} layers"
            )
        if window is None and any(slides):
            problem = f"`sliding_window` is {self.sliding_window}, `use_sliding_window` is {self.use_sliding_window}"
            raise UnsupportedError(f"config.json: `layer_types` has sliding layers, but {problem}")
        return [self.spec(window if slide else None) for slide in slides]


class Args(WindowedArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""


class Model(Decoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        def make_block(p: Parameters, rope: Rope) -> PreNormBlock:
            attention = SelfAttention(p / "attention", args.hidden_size, args.heads, rope=rope, biases=QKV)
            return block(args, p, attention)

        super().__init__(args, p, make_block)


def end_of_text(config: dict[str, Any]) -> str:
    """The remote code of gte-Qwen2 puts it after each text."""
    auto_map = config.get("auto_map")
    is_gte = isinstance(auto_map, dict) and auto_map.get("AutoModel") == "modeling_qwen.Qwen2Model"
    return "<|endoftext|>" if is_gte else ""


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=HEADS,
    classifier=classifier,
    end_of_text=end_of_text,
    checkpoints=(
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        "mixedbread-ai/mxbai-rerank-base-v2",
        "jinaai/jina-code-embeddings-0.5b",
    ),
)

"""StaticEmbedding and model2vec (https://github.com/MinishLab/model2vec): a table of vectors by token, and their mean.

Nothing is computed but the mean: no positions, no layers, no special tokens around a text, and no limit to its length.
A folder has no config.json where sentence-transformers wrote it: it is known by `StaticEmbedding` in modules.json, and
where there is no modules.json by the `model_type` that model2vec writes. What newer files store beside the table is
multiplied into it at load: `mapping`, the row of each token, and `weights`, a factor for each. Text that model2vec
itself would skip, unknown tokens, counts, as it does in sentence-transformers.
"""

from __future__ import annotations

import msgspec

from ..nn.layers import Embedding
from ..nn.parameters import Parameters, Table
from ..ops.spec import Inputs, Ops, Value
from .architecture import Architecture, computed


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of the table, which `checkpoint.static` puts in place of config.json."""

    vocab_size: int
    hidden_size: int


TENSORS: Table = {"embedding": "embedding"}


class Model:
    """Token ids `[*]` -> their rows `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embedding = Embedding(p / "embedding", args.vocab_size, args.hidden_size)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        return self.embedding(ops, inputs.input_ids)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    checkpoints=(
        "minishlab/potion-base-8M",
        "minishlab/potion-multilingual-128M",
        "sentence-transformers/static-retrieval-mrl-en-v1",
        "sentence-transformers/static-similarity-mrl-multilingual-v1",
    ),
)

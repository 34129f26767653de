"""Which files of a checkpoint are read: what is fetched from the Hub, and what is checked in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..errors import CheckpointError
from .adapters import ADAPTER_FILES
from .config import SENTENCE_FILES
from .late_interaction import ARTIFACT
from .late_interaction import NAME as PROMPTS
from .modules import DENSE_FILES, HEAD_FILES, MODULES, ModulePaths
from .onnx import DATA_SUFFIXES, ONNX_FILES
from .pooling import DEFAULT_PATH
from .reranking import CHAT_TEMPLATE
from .tensors.weights import WEIGHT_FILES, read_shard_names
from .text_rules import TOKENIZER_CONFIG

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of the files, relative to the checkpoint's folder."""

    modules: ModulePaths
    onnx_file: str | None = None
    """The option `--onnx-file`: the graph that is the model."""

    @property
    def required(self) -> tuple[str, ...]:
        """Files that every model has."""
        return tuple(
            name
            for side in self._sides
            for name in self._in(side.transformer, *([CONFIG] if side.static is None else []), TOKENIZER)
        )

    @property
    def _sides(self) -> tuple[ModulePaths, ...]:
        """The modules of all sides."""
        router = self.modules.router
        return (self.modules,) if router is None else tuple(router.sides.values())

    @property
    def optional(self) -> tuple[tuple[str, ...], ...]:
        """Other settings and small layers; of several names in a row, the first file there is."""
        return tuple(dict.fromkeys(names for side in self._sides for names in self._optional(side)))

    def _optional(self, side: ModulePaths) -> tuple[tuple[str, ...], ...]:
        root, pooling, splade, mask = side.transformer, side.pooling, side.splade, side.mask
        return (
            self._in(root, *SENTENCE_FILES),
            self._in(root, TOKENIZER_CONFIG),
            self._in(root, CHAT_TEMPLATE),
            (PROMPTS,),
            (ARTIFACT,),
            *([] if side.static is None else [self._in(root, CONFIG)]),
            self._in(DEFAULT_PATH if pooling is None else pooling, CONFIG),
            *(self._in(path, CONFIG) for path in (splade, mask, side.logit_score) if path is not None),
            *(self._in(root, head) for head in HEAD_FILES),
            *(self._in(root, name) for name in ADAPTER_FILES),
            *(names for path in side.all_dense for names in (self._in(path, CONFIG), self._in(path, *DENSE_FILES))),
        )

    @property
    def by_side(self) -> tuple[Layout, ...]:
        """The layout of each side: each has weights of its own."""
        return tuple(Layout(replace(side, router=None), self.onnx_file) for side in self._sides)

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of weights; the first file there is holds them, or lists the files that do."""
        wanted = (*WEIGHT_FILES, *ONNX_FILES) if self.onnx_file is None else (self.onnx_file,)
        return self._in(self.modules.transformer, *wanted)

    def beside(self, folder: Path, weights: str) -> tuple[tuple[str, ...], ...]:
        """What belongs to the file of weights, which lies in `folder`: each shard, or the first name of a graph's data.

        Raises `CheckpointError` for an index that is damaged.
        """
        if weights.endswith(".onnx"):
            return (tuple(weights + suffix for suffix in DATA_SUFFIXES),)
        if not weights.endswith(".index.json"):
            return ()
        root = self.modules.transformer
        shards = read_shard_names(folder / root, PurePosixPath(weights).name)
        return tuple(self._in(root, shard) for shard in sorted(set(shards.values())))

    def present(self, folder: Path) -> Iterator[str]:
        """The files that are there."""
        rows = [(MODULES,), *((name,) for name in self.required), *self.optional]
        for side in self.by_side:
            found = next((name for name in side.weights if (folder / name).exists()), None)
            if found is not None:
                rows.append((found,))
                with suppress(CheckpointError):  # which whoever reads the weights is told
                    rows += side.beside(folder, found)
        for names in rows:
            yield from (name for name in names if (folder / name).exists())

    @staticmethod
    def _in(path: str, *names: str) -> tuple[str, ...]:
        return tuple(str(PurePosixPath(path) / name) for name in names)

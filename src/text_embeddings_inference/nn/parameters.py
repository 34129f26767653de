"""From a checkpoint's tensors to a model's parameters: by a table, checked for completeness in both directions.

A table has a row for each module of the checkpoint: its name there, and the parameter's name in our model file (None:
known and of no use to us). `{i}` stands for a number, the same on both sides. A row for `a.b` covers `a.b.weight`,
`a.b.bias` and their old spellings `a.b.gamma`, `a.b.beta`. Where the parameter's name has a `weight` or `bias` at its
end already, the row is for that one tensor: `experts.w1` may be `experts.up.weight`. A tensor that holds several
parameters is taken apart here (`split`), without a copy: layers know single ones only.

What is stored beside the model (a decoder, another head, parameters of a loss) is surplus: it is left out, and named in
the log. A tensor inside of the model that no row describes is not, for then the model computes something else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from ..errors import CheckpointError
from ..ops.spec import Constants, Value
from ..types import as_float32


@dataclass(frozen=True, slots=True)
class Split:
    """The parameters that are packed into one tensor: equal parts of its rows."""

    parts: tuple[str, ...]
    """In the order of the tensor."""

    def take(self, packed: NDArray[Any], part: int) -> NDArray[Any]:
        """The rows of one part: a view."""
        rows = len(packed) // len(self.parts)
        return packed[part * rows : (part + 1) * rows]


def split(below: str, *parts: str) -> Split:
    """A row's target for a tensor of several parameters, one after another: `split("layers.{i}", "gate", "up")`."""
    return Split(tuple(f"{below}.{part}" for part in parts))


QKV = ("query", "key", "value")
Table = dict[str, str | Split | None]

BUFFERS = (
    "position_ids",
    "token_type_ids",
    "inv_freq",
    "original_inv_freq",
    "cos_cached",
    "sin_cached",
    "masked_bias",
    "num_batches_tracked",
)
"""Tensors that old checkpoints store and every model computes anew: surplus wherever they are."""

PROJECTIONS = {"linear": "a projection of token vectors, as ColBERT models in Stanford's format have it"}
"""Parts beside a model that change what it gives: where they are stored, they must not be left out."""

SIMILAR = 0.9
"""From this likeness on (`difflib`) a part's name is a misspelled one of ours. `encoder` and `decoder` have 0.86."""

MAX_NAMED = 5
"""Surplus parts that are named in the log; of the others only the number is."""

_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


class Tensors(Protocol):
    """The tensors of a checkpoint by name (see `checkpoint.weights.Weights`)."""

    def names(self) -> Iterable[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def array(self, name: str) -> NDArray[Any]:
        """float32, or what the engine's `constant` takes besides (`types.BFLOAT16`, ...)."""
        ...


class _Source(NamedTuple):
    """What a parameter is made of."""

    tensor: str
    split: Split | None = None
    """How several parameters lie in it."""
    part: int = 0
    """Which of them it is."""

    @property
    def parts(self) -> int:
        return 1 if self.split is None else len(self.split.parts)


class Parameters:
    """The parameters below one name (`layers.0.attention`), as constants of one engine."""

    def __init__(self, tensors: Tensors, ops: Constants, table: Table) -> None:
        self._tensors = tensors
        self._ops = ops
        self._table = table
        self._found: dict[str, _Source] = {}  # by the parameter's name
        self._used: set[str] = set()
        self._open: dict[str, NDArray[Any]] = {}  # packed tensors whose parts are being taken, by name
        self._path = ""
        self.surplus = ""
        """Tensors that are no part of the model, for the log."""
        self.towers = ""
        """Tensors of parts for other things than texts, for the log."""

    def __truediv__(self, name: str | int) -> Parameters:
        """The parameters below `name`: `p / "layers" / 0`."""
        below = copy(self)
        below._path = f"{self._path}{name}."
        return below

    def __contains__(self, name: str) -> bool:
        return self._path + name in self._found

    def tensor(self, name: str, shape: tuple[int, ...]) -> Value:
        """The parameter as a constant of the engine. Raises CheckpointError if it is missing or of another shape."""
        return self._ops.constant(self.stored(name, shape))

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The parameter as an array, for what is computed from it once, at load. Raises as `tensor`."""
        return as_float32(self.stored(name, shape))

    def stored(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The parameter as the engine takes it, to be cut or turned. Raises as `tensor`."""
        path = self._path + name
        if path not in self._found:
            tensor, parts = self._in_checkpoint(path)
            raise CheckpointError(
                f"the weights have no tensor `{tensor}`, shape {_packed(shape, parts)}",
                hint="the file is incomplete, or config.json describes another model: download both again",
            )
        source = self._found[path]
        stored, wanted = list(self._tensors.shape(source.tensor)), _packed(shape, source.parts)
        if stored != wanted:
            raise CheckpointError(
                f"tensor `{source.tensor}` has shape {stored}, config.json asks for {wanted}",
                hint="weights and config.json are of different models: download both again",
            )
        self._used.add(path)
        return self._read(source)

    def _read(self, source: _Source) -> NDArray[Any]:
        if source.split is None:
            return self._tensors.array(source.tensor)
        packed = self._open.pop(source.tensor, None)
        packed = self._tensors.array(source.tensor) if packed is None else packed
        if not self._used.issuperset(path for path, other in self._found.items() if other.tensor == source.tensor):
            self._open[source.tensor] = packed  # it may have been converted: once, not for each part
        return source.split.take(packed, source.part)

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence that the engine will get."""
        return self._ops.max_length

    def constant(self, array: NDArray[Any]) -> Value:
        """A constant of the engine, made from parameters at load."""
        return self._ops.constant(array)

    def unused(self) -> list[str]:
        """Names of the tensors that no parameter was made of."""
        return list(dict.fromkeys(source.tensor for path, source in self._found.items() if path not in self._used))

    def add(self, path: str, source: _Source) -> None:
        """The source of the parameter `path`. Raises CheckpointError if another tensor is it already."""
        other = self._found.setdefault(path, source)
        if other != source:
            raise CheckpointError(
                f"tensors `{other.tensor}` and `{source.tensor}` are the same parameter under two names",
                hint="remove one of them from the weights",
            )

    def _in_checkpoint(self, path: str) -> tuple[str, int]:
        """What a tensor for the parameter is called in checkpoints, without a prefix, and how many are packed in it."""
        stem, _, leaf = path.rpartition(".")
        number = next((part for part in stem.split(".") if part.isdecimal()), "")
        rows = {
            _fill(target, number): (name, len(_targets(targets)))
            for name, targets in reversed(self._table.items())
            for target in _targets(targets)
        }
        name, parts = rows[path] if path in rows else rows.get(stem, (stem, 1))
        return _fill(name if path in rows else f"{name}.{leaf}", number), parts


def bind(
    tensors: Tensors,
    model: Table,
    heads: Table,
    prefixes: tuple[str, ...],
    ops: Constants,
    towers: tuple[str, ...] = (),
    *,
    beside: tuple[str, ...] = (),
) -> tuple[Parameters, Parameters]:
    """The parameters of a model and of its heads. A name may begin with one of `prefixes` (`bert.`).

    towers: what names begin with (`visual.`) that are left out, and named by `Parameters.towers`; beside: parts that
    are stored among the model's and read by others.

    Surplus tensors are left out, and named by `surplus`. Raises CheckpointError for a tensor inside of the model that
    neither table has, and for two tensors of one parameter.
    """
    parameters = Parameters(tensors, ops, model), Parameters(tensors, ops, heads)
    rows = [(_pattern(name, target), target, parameters[0]) for name, target in model.items()]
    rows += [(_pattern(name, target), target, parameters[1]) for name, target in heads.items()]
    parts = {name.partition(".")[0] for name in (*model, *heads, *prefixes)}
    surplus: list[str] = []
    left_out: Counter[str] = Counter()
    for name in tensors.names():
        if tower := next(filter(name.startswith, towers), None):
            left_out[tower.rstrip(".")] += 1
            continue
        bare = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
        for pattern, targets, place in rows:
            if match := pattern.fullmatch(bare):
                leaf, number = match.groupdict().get("leaf"), match.groupdict().get("i", "")
                for part, target in enumerate(_targets(targets)):
                    path = _fill(target, number)
                    source = _Source(name, targets, part) if isinstance(targets, Split) else _Source(name)
                    place.add(f"{path}.{_LEAVES[leaf]}".lstrip(".") if leaf else path, source)
                break
        else:
            if name.rpartition(".")[2] not in BUFFERS and name.partition(".")[0] not in beside:
                _check_surplus(name, parts)
                surplus.append(name)
    parameters[0].surplus = _summary(Counter(name.partition(".")[0][:40] for name in surplus))
    parameters[0].towers = _summary(left_out)
    return parameters


def _check_surplus(name: str, parts: set[str]) -> None:
    """Raises CheckpointError for a tensor that can't be left out. parts: what the names of our own begin with."""
    part = name.partition(".")[0]
    if part in PROJECTIONS:
        problem = f"unexpected tensor `{name}`: {PROJECTIONS[part]}"
        hint = 'if it is one, `architectures` of config.json should be ["HF_ColBERT"]'
        raise CheckpointError(problem, hint=hint)
    if get_close_matches(part, parts, 1, SIMILAR):
        raise CheckpointError(
            f"unexpected tensor `{name}`: it is not part of this architecture",
            hint="the weights are of another model than config.json says, or have a head that is not supported",
        )


def _summary(tensors: Counter[str]) -> str:
    """The parts with so many tensors each, most tensors first, in one short line."""
    counts = tensors.most_common()
    shown = [f"`{part}` ({count} tensors)" if count > 1 else f"`{part}`" for part, count in counts[:MAX_NAMED]]
    return ", ".join(shown) + (f" and {len(counts) - MAX_NAMED} more parts" if len(counts) > MAX_NAMED else "")


def check_all_used(parameters: Parameters) -> None:
    """Raises CheckpointError if a tensor of the model was not asked for: a layer that config.json doesn't count."""
    if unused := parameters.unused():
        others = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        raise CheckpointError(
            f"unexpected tensor `{unused[0]}`{others}: config.json does not ask for it",
            hint="weights and config.json are of different models: download both again",
        )


def _packed(shape: tuple[int, ...], parts: int) -> list[int]:
    """The shape of so many tensors of one shape, packed."""
    return [shape[0] * parts, *shape[1:]]


def _targets(target: str | Split | None) -> tuple[str, ...]:
    """The parameters that a row leads to."""
    if isinstance(target, Split):
        return target.parts
    return () if target is None else (target,)


def _fill(name: str, number: str) -> str:
    return name.replace("{i}", number)


def _pattern(name: str, target: str | Split | None) -> re.Pattern[str]:
    """What matches the tensors of a row."""
    whole = name.endswith(("_ids", ".inv_freq")) or any(t.endswith((".weight", ".bias")) for t in _targets(target))
    leaf = "" if whole else r"\.(?P<leaf>weight|bias|gamma|beta)"
    return re.compile(re.escape(name).replace(r"\{i\}", r"(?P<i>\d+)") + leaf)

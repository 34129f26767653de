"""From a checkpoint's tensors to a model's parameters: by a table, checked for completeness in both directions.

A table has a row for each module of the checkpoint: its name there, and the parameter's name in our model file (None:
known and of no use to us). `{i}` stands for a number, the same on both sides. A row for `a.b` covers `a.b.weight`,
`a.b.bias` and their old spellings `a.b.gamma`, `a.b.beta`. Where the parameter's name has a `weight` or `bias` at its
end already, the row is for that one tensor: `experts.w1` may be `experts.up.weight`.

What is stored beside the model (a decoder, another head, parameters of a loss) is surplus: it is left out, and named in
the log. A tensor inside of the model that no row describes is not, for then the model computes something else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from copy import copy
from difflib import get_close_matches
from typing import Any, Protocol

from numpy.typing import NDArray

from ..errors import CheckpointError
from ..ops.spec import Constants, Value

Table = dict[str, str | None]

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

PROJECTIONS = {"linear": "a projection of token vectors, as ColBERT models have it outside of PyLate's format"}
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

    def array(self, name: str) -> NDArray[Any]: ...


class Parameters:
    """The parameters below one name (`layers.0.attention`), as constants of one engine."""

    def __init__(self, tensors: Tensors, ops: Constants, table: Table) -> None:
        self._tensors = tensors
        self._ops = ops
        self._table = table
        self._found: dict[str, str] = {}  # parameter's name -> tensor's name
        self._used: set[str] = set()
        self._path = ""
        self.surplus = ""
        """Tensors that are no part of the model, for the log."""

    def __truediv__(self, name: str | int) -> Parameters:
        """The parameters below `name`: `p / "layers" / 0`."""
        below = copy(self)
        below._path = f"{self._path}{name}."
        return below

    def __contains__(self, name: str) -> bool:
        return self._path + name in self._found

    def tensor(self, name: str, shape: tuple[int, ...]) -> Value:
        """The parameter as a constant of the engine. Raises CheckpointError if it is missing or of another shape."""
        return self._ops.constant(self.array(name, shape))

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The parameter as an array, for what is computed from it once, at load."""
        path = self._path + name
        if path not in self._found:
            raise CheckpointError(
                f"the weights have no tensor `{self._name_in_checkpoint(path)}`, shape {list(shape)}",
                hint="the file is incomplete, or config.json describes another model: download both again",
            )
        source = self._found[path]
        if self._tensors.shape(source) != shape:
            raise CheckpointError(
                f"tensor `{source}` has shape {list(self._tensors.shape(source))}, config.json asks for {list(shape)}",
                hint="weights and config.json are of different models: download both again",
            )
        self._used.add(path)
        return self._tensors.array(source)

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence that the engine will get."""
        return self._ops.max_length

    def constant(self, array: NDArray[Any]) -> Value:
        """A constant of the engine, made from parameters at load."""
        return self._ops.constant(array)

    def unused(self) -> list[str]:
        """Names of the tensors that no parameter was made of."""
        return [source for path, source in self._found.items() if path not in self._used]

    def add(self, path: str, source: str) -> None:
        """Tensor `source` is the parameter `path`. Raises CheckpointError if another tensor is it already."""
        other = self._found.setdefault(path, source)
        if other != source:
            raise CheckpointError(
                f"tensors `{other}` and `{source}` are the same parameter under two names",
                hint="remove one of them from the weights",
            )

    def _name_in_checkpoint(self, path: str) -> str:
        """What a tensor for the parameter is called in checkpoints, without a prefix."""
        stem, _, leaf = path.rpartition(".")
        number = next((part for part in stem.split(".") if part.isdecimal()), "")
        names = {_fill(target, number): name for name, target in reversed(self._table.items()) if target is not None}
        return _fill(names[path] if path in names else f"{names.get(stem, stem)}.{leaf}", number)


def bind(
    tensors: Tensors, model: Table, heads: Table, prefixes: tuple[str, ...], ops: Constants
) -> tuple[Parameters, Parameters]:
    """The parameters of a model and of its heads. A name may begin with one of `prefixes` (`bert.`).

    Surplus tensors are left out, and named by `surplus`. Raises CheckpointError for a tensor inside of the model that
    neither table has, and for two tensors of one parameter.
    """
    parameters = Parameters(tensors, ops, model), Parameters(tensors, ops, heads)
    rows = [(_pattern(name, target), target, parameters[0]) for name, target in model.items()]
    rows += [(_pattern(name, target), target, parameters[1]) for name, target in heads.items()]
    parts = {name.partition(".")[0] for name in (*model, *heads, *prefixes)}
    surplus = []
    for name in tensors.names():
        bare = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
        for pattern, target, place in rows:
            if match := pattern.fullmatch(bare):
                if target is not None:
                    path = _fill(target, match["i"]) if "{i}" in target else target
                    leaf = match.groupdict().get("leaf")
                    place.add(f"{path}.{_LEAVES[leaf]}".lstrip(".") if leaf else path, name)
                break
        else:
            if name.rpartition(".")[2] not in BUFFERS:
                _check_surplus(name, parts)
                surplus.append(name)
    parameters[0].surplus = _summary(surplus)
    return parameters


def _check_surplus(name: str, parts: set[str]) -> None:
    """Raises CheckpointError for a tensor that can't be left out. parts: what the names of our own begin with."""
    part = name.partition(".")[0]
    if part in PROJECTIONS:
        problem = f"unexpected tensor `{name}`: {PROJECTIONS[part]}"
        raise CheckpointError(problem, hint="save the model with PyLate, whose modules.json says how it is applied")
    if get_close_matches(part, parts, 1, SIMILAR):
        raise CheckpointError(
            f"unexpected tensor `{name}`: it is not part of this architecture",
            hint="the weights are of another model than config.json says, or have a head that is not supported",
        )


def _summary(names: list[str]) -> str:
    """The parts that the tensors belong to, most tensors first, in one short line."""
    counts = Counter(name.partition(".")[0][:40] for name in names).most_common()
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


def _fill(name: str, number: str) -> str:
    return name.replace("{i}", number)


def _pattern(name: str, target: str | None) -> re.Pattern[str]:
    """What matches the tensors of a row."""
    whole = name.endswith(("_ids", ".inv_freq")) or (target or "").endswith((".weight", ".bias"))
    leaf = "" if whole else r"\.(?P<leaf>weight|bias|gamma|beta)"
    return re.compile(re.escape(name).replace(r"\{i\}", r"(?P<i>\d+)") + leaf)

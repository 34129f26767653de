"""From a checkpoint's tensors to a model's parameters: by a table, checked for completeness in both directions.

A table has a row for each module of the checkpoint: its name there, and the parameter's name in our model file (None:
known and of no use to us). `{i}` stands for a number, the same on both sides. A row for `a.b` covers `a.b.weight`,
`a.b.bias` and their old spellings `a.b.gamma`, `a.b.beta`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

from numpy.typing import NDArray

from .errors import CheckpointError
from .ops.spec import Ops, Value

Table = dict[str, str | None]

_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


class Tensors(Protocol):
    """The tensors of a checkpoint by name (see `checkpoint.weights.Weights`)."""

    def names(self) -> Iterable[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def array(self, name: str) -> NDArray[Any]: ...


class Parameters:
    """The parameters below one name (`layers.0.attention`), as constants of one engine."""

    def __init__(self, found: dict[str, str], tensors: Tensors, ops: Ops, path: str = "", used: set[str] | None = None):
        self._found = found  # parameter's name -> tensor's name
        self._tensors = tensors
        self._ops = ops
        self._path = path
        self._used: set[str] = set() if used is None else used

    def __truediv__(self, name: str | int) -> Parameters:
        """The parameters below `name`: `p / "layers" / 0`."""
        return Parameters(self._found, self._tensors, self._ops, f"{self._path}{name}.", self._used)

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
                f"the weights have no tensor for `{path}`, shape {list(shape)}",
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

    def constant(self, array: NDArray[Any]) -> Value:
        """A constant of the engine, made from parameters at load."""
        return self._ops.constant(array)

    def unused(self) -> list[str]:
        """Names of the tensors that no parameter was made of."""
        return [source for path, source in self._found.items() if path not in self._used]


def bind(
    tensors: Tensors, model: Table, heads: Table, prefixes: tuple[str, ...], ops: Ops
) -> tuple[Parameters, Parameters]:
    """The parameters of a model and of its heads. A name may begin with one of `prefixes` (`bert.`).

    Raises CheckpointError for a tensor that neither table has.
    """
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    rows = [(_pattern(name), target, found[0]) for name, target in model.items()]
    rows += [(_pattern(name), target, found[1]) for name, target in heads.items()]
    for name in tensors.names():
        bare = next((name.removeprefix(p) for p in prefixes if p and name.startswith(p)), name)
        for pattern, target, place in rows:
            if match := pattern.fullmatch(bare):
                if target is not None:
                    path = target.replace("{i}", match["i"]) if "{i}" in target else target
                    place.setdefault(f"{path}.{_LEAVES[match['leaf']]}".lstrip("."), name)
                break
        else:
            raise CheckpointError(
                f"unexpected tensor `{name}`: it is not part of this architecture",
                hint="the weights are of another model than config.json says, or have a head that is not supported",
            )
    return Parameters(found[0], tensors, ops), Parameters(found[1], tensors, ops)


def check_all_used(parameters: Parameters) -> None:
    """Raises CheckpointError if a tensor of the model was not asked for: a layer that config.json doesn't count."""
    if unused := parameters.unused():
        others = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        raise CheckpointError(
            f"unexpected tensor `{unused[0]}`{others}: config.json does not ask for it",
            hint="weights and config.json are of different models: download both again",
        )


def _pattern(name: str) -> re.Pattern[str]:
    leaf = "" if name.endswith("position_ids") else r"\.(?P<leaf>weight|bias|gamma|beta)"
    return re.compile(re.escape(name).replace(r"\{i\}", r"(?P<i>\d+)") + leaf)

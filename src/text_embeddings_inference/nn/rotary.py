"""From the rope settings of a config.json to rotary frequencies.

Both spellings are read: `rope_theta` beside `rope_scaling`, and `rope_parameters` (Transformers 5), flat or with a row
for each kind of layer. Formulas: Transformers' `modeling_rope_utils.py`; `ntk`: NTKScalingRotaryEmbedding in the remote
code of Alibaba-NLP/new-impl.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..ops.spec import DynamicNTK, Rope

Positive = Annotated[float, Meta(gt=0)]
Length = Annotated[int, Meta(gt=0)]
Part = Annotated[float, Meta(gt=0, le=1)]


class RopeArgs(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of config.json that say how positions rotate."""

    max_position_embeddings: Length
    original_max_position_embeddings: Length | None = None
    rope_theta: Positive | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    partial_rotary_factor: Part | None = None


@dataclass(frozen=True, slots=True)
class Plain:
    """What is scaled."""

    theta: float
    """The base."""
    width: int
    """Channels of a head that rotate, `R`."""
    positions: int
    """Tokens of the longest text it was trained for."""

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Radians per position, `[R/2]`."""
        return plain_frequencies(self.theta, self.width)


class Scaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`default`: nothing is scaled. The keys are those of config.json."""

    rope_theta: Positive | None = None
    partial_rotary_factor: Part | None = None

    def rope(self, plain: Plain) -> Rope:
        return Rope(plain.frequencies)


class Linear(Scaling, frozen=True, kw_only=True):
    """Positions are divided by the factor."""

    factor: Positive

    def rope(self, plain: Plain) -> Rope:
        return Rope(plain.frequencies / self.factor)


class Dynamic(Scaling, frozen=True, kw_only=True):
    """A larger base for inputs longer than `max_position_embeddings`, by the length of each."""

    factor: Positive

    def rope(self, plain: Plain) -> Rope:
        if plain.width == 2:
            raise UnsupportedError("config.json: rope scaling `dynamic` is not defined for a single pair of channels")
        return Rope(plain.frequencies, dynamic=DynamicNTK(self.factor, plain.positions))


class NTK(Scaling, frozen=True, kw_only=True):
    """A larger base and lower frequencies, at every length."""

    factor: Annotated[float, Meta(ge=1)]  # below 1 the remote code leaves positions as they are

    def rope(self, plain: Plain) -> Rope:
        frequencies = plain_frequencies(plain.theta * self.factor, plain.width)
        return Rope(frequencies / self.factor ** (2 / plain.width))


class Extension(Scaling, frozen=True, kw_only=True):
    """Scalings that are told the length before it was extended."""

    original_max_position_embeddings: Length | None = None


class YaRN(Extension, frozen=True, kw_only=True):
    """High frequencies stay, low ones are divided by the factor, a ramp between (Peng et al., arXiv:2309.00071)."""

    factor: Positive
    attention_factor: float | None = None
    beta_fast: Positive = 32
    beta_slow: Positive = 1
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def rope(self, plain: Plain) -> Rope:
        low, high = self._pair(self.beta_fast, plain), self._pair(self.beta_slow, plain)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, plain.width - 1)
        if low == high:
            high += 0.001
        scaled = np.clip((np.arange(plain.width // 2) - low) / (high - low), 0, 1)
        frequencies = plain.frequencies
        return Rope(frequencies * (1 - scaled) + frequencies / self.factor * scaled, self._attention_factor())

    @staticmethod
    def _pair(turns: float, plain: Plain) -> float:
        """The pair of channels that turns so many times within the trained length; a fraction."""
        return plain.width * math.log(plain.positions / (turns * 2 * math.pi)) / (2 * math.log(plain.theta))

    def _attention_factor(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._magnitude(self.mscale) / self._magnitude(self.mscale_all_dim)
        return self._magnitude(1)

    def _magnitude(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1


class Llama3(Extension, frozen=True, kw_only=True):
    """As in Llama 3.1: low frequencies are divided by the factor, high ones stay, with a ramp between."""

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive

    def rope(self, plain: Plain) -> Rope:
        low, high = self.low_freq_factor, self.high_freq_factor
        if low >= high:
            raise UnsupportedError(
                f"config.json: rope's `low_freq_factor` {low} is not below `high_freq_factor` {high}"
            )
        frequencies = plain.frequencies
        turns = plain.positions * frequencies / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return Rope(frequencies * kept + frequencies / self.factor * (1 - kept))


SCALINGS: dict[str, type[Scaling]] = {
    "default": Scaling,
    "linear": Linear,
    "dynamic": Dynamic,
    "ntk": NTK,
    "yarn": YaRN,
    "llama3": Llama3,
}
"""By `rope_type` (in older files `type`)."""


def plain_frequencies(theta: float, width: int) -> NDArray[np.float64]:
    """theta^(-2i/R), i = 0 ... R/2 - 1: radians per position of `R` channels (Su et al., arXiv:2104.09864)."""
    return np.asarray(theta ** (-np.arange(0, width, 2) / width), np.float64)


def read_rope(args: RopeArgs, head_width: int, *, layer_type: str | None = None, theta: float = 10_000.0) -> Rope:
    """The rotation of the heads of one kind of layer.

    layer_type: its row in `rope_parameters`, where these have rows; theta: the base if the config has none.
    Raises UnsupportedError for a scaling that we don't have and for keys it does not know.
    """
    key, values = _row(args, layer_type)
    scaling = _read_scaling(key, values)
    part = args.partial_rotary_factor or scaling.partial_rotary_factor or 1.0
    width = int(head_width * part)
    if width < 2 or width % 2:
        raise UnsupportedError(
            f"config.json: {width} of the {head_width} channels of a head rotate: these are no pairs"
        )
    original = scaling.original_max_position_embeddings if isinstance(scaling, Extension) else None
    positions = args.original_max_position_embeddings or original or args.max_position_embeddings
    base = scaling.rope_theta or args.rope_theta or theta
    try:
        rope = scaling.rope(Plain(base, width, positions))
    except (ArithmeticError, ValueError) as problem:
        raise _no_rotation(base, positions, values, str(problem)) from problem
    if not (np.isfinite(rope.inverse_frequencies).all() and math.isfinite(rope.scale)):
        raise _no_rotation(base, positions, values, "frequencies are not finite")
    return rope


def _no_rotation(base: float, positions: int, values: dict[str, Any], problem: str) -> UnsupportedError:
    told = f"`rope_theta` {base}, {positions} positions and the scaling {json.dumps(values)}"
    return UnsupportedError(f"config.json: {told} make no rotation: {problem}")


def _row(args: RopeArgs, layer_type: str | None) -> tuple[str, dict[str, Any]]:
    """The settings for a kind of layer, and their key."""
    key = "rope_scaling" if args.rope_scaling else "rope_parameters"
    values = args.rope_scaling or args.rope_parameters or {}
    if not values or any(not isinstance(row, dict | None) for row in values.values()):
        return key, values
    row = values.get(layer_type or "")
    if row is None:
        raise UnsupportedError(f"config.json: `{key}.{layer_type}` is missing or null: every layer has to rotate")
    return f"{key}.{layer_type}", row


def _read_scaling(key: str, values: dict[str, Any]) -> Scaling:
    given = {name: value for name, value in values.items() if value is not None}
    old_name = given.pop("type", "default")
    name = given.pop("rope_type", old_name)
    if not isinstance(name, str) or name not in SCALINGS:
        problem = f"config.json: `{key}.rope_type` is {name!r}, which is not supported"
        raise UnsupportedError(problem, hint=f"supported are {', '.join(SCALINGS)}")
    try:
        return msgspec.convert(given, SCALINGS[name])
    except msgspec.ValidationError as problem:
        raise UnsupportedError(f"config.json: `{key}` is {json.dumps(values)} (`{name}`): {problem}") from None

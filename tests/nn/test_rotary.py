"""Frequencies worked by hand from the formulas, with small numbers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.nn.rotary import RopeArgs, plain_frequencies, read_rope
from text_embeddings_inference.ops.spec import Rope


def rope(config: dict[str, Any], head_width: int = 8, **options: Any) -> Rope:
    args = msgspec.convert({"max_position_embeddings": 64} | config, RopeArgs)
    return read_rope(args, head_width, **options)


def both_spellings(theta: float, scaling: dict[str, Any]) -> list[Rope]:
    """The settings beside `rope_theta`, with the old and the new name of the type, and in Transformers 5's spelling."""
    kind = scaling["rope_type"]
    rest = {name: value for name, value in scaling.items() if name != "rope_type"}
    return [
        rope({"rope_theta": theta, "rope_scaling": scaling}),
        rope({"rope_theta": theta, "rope_scaling": {"type": kind, **rest}}),
        rope({"rope_parameters": {"rope_theta": theta, **scaling}}),
    ]


def check(found: Rope, frequencies: list[float], scale: float = 1.0) -> None:
    assert found.inverse_frequencies.dtype == np.float64
    assert found.inverse_frequencies.tolist() == pytest.approx(frequencies, rel=1e-12)
    assert found.scale == pytest.approx(scale, rel=1e-12)


def test_plain_frequencies() -> None:
    assert plain_frequencies(10_000, 4).tolist() == pytest.approx([1, 0.01], rel=1e-15)


@pytest.mark.parametrize("config", [{}, {"rope_scaling": None}, {"rope_scaling": {}}, {"rope_parameters": {}}])
def test_without_settings_the_base_is_the_default_one(config: dict[str, Any]) -> None:
    check(rope(config), [1, 0.1, 0.01, 0.001])
    check(rope(config, theta=16), [1, 1 / 2, 1 / 4, 1 / 8])
    check(rope({"rope_theta": 81, **config}), [1, 1 / 3, 1 / 9, 1 / 27])


def test_default() -> None:
    for found in both_spellings(16, {"rope_type": "default"}):
        check(found, [1, 0.5, 0.25, 0.125])


def test_the_base_in_the_new_spelling_comes_first() -> None:
    check(
        rope({"rope_theta": 81, "rope_parameters": {"rope_type": "default", "rope_theta": 16}}), [1, 0.5, 0.25, 0.125]
    )


def test_linear() -> None:
    for found in both_spellings(16, {"rope_type": "linear", "factor": 4.0}):
        check(found, [0.25, 0.125, 0.0625, 0.03125])


def test_dynamic_is_unchanged_within_the_trained_length() -> None:
    for found in both_spellings(16, {"rope_type": "dynamic", "factor": 4.0}):
        check(found, [1, 0.5, 0.25, 0.125])


@pytest.mark.parametrize("length", [1, 64, 65, 128, 1000])
def test_dynamic_by_the_length_of_a_sequence(length: int) -> None:
    """As NomicBertDynamicNTKRotaryEmbedding and Transformers compute it: from a larger base, for that length alone."""
    found = next(iter(both_spellings(16, {"rope_type": "dynamic", "factor": 4.0})))
    base = 16 * (4.0 * length / 64 - 3.0) ** (8 / 6) if length > 64 else 16
    assert found.frequencies(length).tolist() == pytest.approx([base ** (-i / 4) for i in range(4)], rel=1e-12)
    cos, sin = found.table(length)
    assert np.allclose(cos + 1j * sin, np.exp(1j * np.outer(np.arange(length), found.frequencies(length))), atol=1e-6)
    assert (found.depends_on_length(64), found.depends_on_length(65)) == (False, True)


def test_dynamic_of_a_single_pair() -> None:
    with pytest.raises(UnsupportedError, match="`dynamic` is not defined for a single pair"):
        rope({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, 2)


def test_ntk() -> None:
    """The base times 16, all divided by 16^(2/8) = 2: (16 * 16)^(-i/4) / 2 = 4^(-i) / 2."""
    for found in both_spellings(16, {"rope_type": "ntk", "factor": 16}):
        check(found, [1 / 2, 1 / 8, 1 / 32, 1 / 128])


def test_yarn() -> None:
    """8 channels, base 16, trained for 64 positions: the pair that turns n times is 8 ln(64 / 2 pi n) / (2 ln 16).

    n = 4: 8 * 0.93471 / 5.54518 = 1.3485, down to 1; n = 1: 8 * 2.32100 / 5.54518 = 3.3485, up to 4. The ramp from 1 to
    4 is 0, 0, 1/3, 2/3; a factor of 4 leaves 1 - 3/4 * ramp of the frequencies: all, all, 3/4, 1/2.
    """
    scaling = {"rope_type": "yarn", "factor": 4, "beta_fast": 4, "beta_slow": 1, "original_max_position_embeddings": 64}
    for found in both_spellings(16, scaling):
        check(found, [1, 1 / 2, 1 / 4 * 3 / 4, 1 / 8 / 2], 0.1 * math.log(4) + 1)


def test_yarn_without_truncation() -> None:
    """As above with the ramp from 1.3485 to 3.3485, which are 2 apart (4^2 = 16)."""
    low = 8 * math.log(64 / (2 * math.pi * 4)) / (2 * math.log(16))
    [found, *_] = both_spellings(16, {"rope_type": "yarn", "factor": 4, "beta_fast": 4, "truncate": False})
    ramp = [0, 0, (2 - low) / 2, (3 - low) / 2]
    expected = [(1 - 3 / 4 * r) * f for r, f in zip(ramp, [1, 1 / 2, 1 / 4, 1 / 8], strict=True)]
    check(found, expected, 0.1 * math.log(4) + 1)


@pytest.mark.parametrize(
    ("keys", "scale"),
    [
        ({"attention_factor": 1.5}, 1.5),
        ({"mscale": 2.0, "mscale_all_dim": 1.0}, (0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1)),
        ({"factor": 1.0}, 1.0),
    ],
)
def test_scale_of_yarn(keys: dict[str, Any], scale: float) -> None:
    for found in both_spellings(16, {"rope_type": "yarn", "factor": 4.0, **keys}):
        assert found.scale == pytest.approx(scale, rel=1e-12)


def test_the_trained_length_of_yarn_is_the_original_one() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 4}
    inside = rope({"max_position_embeddings": 256, "rope_scaling": {**scaling, "original_max_position_embeddings": 64}})
    beside = rope({"max_position_embeddings": 256, "rope_scaling": scaling, "original_max_position_embeddings": 64})
    check(beside, inside.inverse_frequencies.tolist(), inside.scale)
    check(rope({"rope_scaling": scaling}), inside.inverse_frequencies.tolist(), inside.scale)
    other = rope({"max_position_embeddings": 256, "rope_scaling": scaling})
    assert not np.allclose(other.inverse_frequencies, inside.inverse_frequencies)


def test_llama3() -> None:
    """Trained for 100 positions, frequency f turns 100 f / 2 pi times: 15.9, 7.96, 3.98, 1.99.

    From 2 to 6 turns is the ramp: the first two stay, about half of the third does, the rest is divided by 8.
    """
    scaling = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 2, "high_freq_factor": 6}
    scaling["original_max_position_embeddings"] = 100
    kept = (100 / (8 * math.pi) - 2) / 4
    assert kept == pytest.approx(0.49, abs=0.01)
    for found in both_spellings(16, scaling):
        check(found, [1, 1 / 2, (kept + (1 - kept) / 8) / 4, 1 / 8 / 8])


def test_part_of_a_head_rotates() -> None:
    check(rope({"partial_rotary_factor": 0.5}), [1, 0.01])
    check(rope({"rope_parameters": {"partial_rotary_factor": 0.5, "rope_type": "default"}}), [1, 0.01])


def test_a_row_for_each_kind_of_layer() -> None:
    rows = {
        "full_attention": {"rope_type": "linear", "rope_theta": 16, "factor": 2.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 81},
    }
    check(rope({"rope_parameters": rows}, layer_type="full_attention"), [1 / 2, 1 / 4, 1 / 8, 1 / 16])
    check(rope({"rope_parameters": rows}, layer_type="sliding_attention"), [1, 1 / 3, 1 / 9, 1 / 27])
    with pytest.raises(UnsupportedError, match=r"`rope_parameters\.other` is missing"):
        rope({"rope_parameters": rows}, layer_type="other")


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"type": "longrope", "factor": 2}, r"`rope_scaling\.rope_type` is 'longrope'"),
        ({"rope_type": "linear"}, "missing required field `factor`"),
        ({"rope_type": "linear", "factor": 0}, r"> 0.*factor"),
        ({"rope_type": "ntk", "factor": 2, "mixed_b": 0.5}, "unknown field `mixed_b`"),
        ({"rope_type": "default", "factor": 2.0}, "unknown field `factor`"),
        ({"rope_type": "yarn", "factor": "4"}, r"`float`, got `str`.*factor"),
        ({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}, "`low_freq_factor` 4"),
        ({"rope_type": ["linear"]}, r"`rope_scaling\.rope_type` is \['linear'\]"),
    ],
)
def test_what_is_refused(scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        rope({"rope_scaling": scaling})


def test_an_odd_number_of_channels_can_not_rotate() -> None:
    with pytest.raises(UnsupportedError, match="3 of the 6 channels"):
        rope({"partial_rotary_factor": 0.5}, head_width=6)

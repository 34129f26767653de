"""Which engines and number types are measured on a CPU."""

from __future__ import annotations

from bench.contenders import COMPARED, Contender, choose_dtypes, contenders
from bench.load import texts
from bench.report import records

ZEN3 = ("avx2",)
ZEN4 = ("avx512_bf16", "avx512_vnni", "avx2")


def test_number_types_are_those_the_goals_are_about() -> None:
    assert choose_dtypes((), ZEN4)[0] == ["bfloat16", "int8"]
    dtypes, left_out = choose_dtypes((), ZEN3)
    assert dtypes == ["int16", "int8"]
    assert "emulate" in left_out["bfloat16"]
    assert "int16" in left_out["float32"]
    assert choose_dtypes((), ("asimddp",))[0] == ["float32", "int8"]
    assert choose_dtypes((), ())[0] == ["float32"]


def test_asked_number_types_are_measured() -> None:
    dtypes, left_out = choose_dtypes(("bfloat16",), ZEN3)
    assert dtypes == ["bfloat16"]
    assert set(left_out) == {"float32", "int16", "int8"}


def test_each_engine_in_each_number_type() -> None:
    found, left_out = contenders(("auto", "openvino"), ("bfloat16", "int8"), ZEN4, has_openvino=True)
    assert [(one.name, one.dtype, one.is_beside) for one in found] == [
        (records.OURS, "bfloat16", False),
        (records.OURS, "int8", False),
        ("this server on OpenVINO", "bfloat16", True),
        ("this server on OpenVINO", "int8", True),
    ]
    assert not left_out
    assert found[2].arguments == ["--engine", "openvino", "--dtype", "bfloat16"]


def test_openvino_stands_beside_in_what_it_computes_in() -> None:
    found, left_out = contenders(("native", "openvino"), ("int16", "int8"), ZEN3, has_openvino=True)
    assert [(one.engine, one.dtype) for one in found] == [
        ("native", "int16"),
        ("native", "int8"),
        ("openvino", "float32"),
    ]
    assert "float32" in left_out["this server on OpenVINO, int16"]


def test_openvino_is_left_out_where_it_is_missing() -> None:
    found, left_out = contenders(("auto", "openvino"), ("float32",), ZEN4, has_openvino=False)
    assert found == [Contender("auto", "float32")]
    assert left_out == {"this server on OpenVINO": "openvino is not installed"}


def test_who_stands_beside_has_the_loads_that_are_compared() -> None:
    loads = [texts.Load(name, 1, [b""], [1]) for name in (texts.SHORT_1, texts.SHORT_32, texts.EQUAL)]
    assert Contender("auto", "float32").loads(loads) == loads
    beside = Contender("openvino", "float32", is_beside=True).loads(loads)
    assert [load.name for load in beside] == [texts.SHORT_1, texts.EQUAL]
    assert all(load.name in COMPARED for load in beside)

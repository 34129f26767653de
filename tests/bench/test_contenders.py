"""Which engines and number types are measured on a CPU."""

from __future__ import annotations

from pathlib import Path

from bench.__main__ import choose, command_of, engine_of, parse
from bench.contenders import COMPARED, Contender, choose_dtypes, contenders
from bench.load import texts
from bench.peers import __main__ as peers
from bench.report import records
from tests.bench.figures import some_machine

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


def test_servers_are_started_on_each_engine() -> None:
    plan = parse(["--model", "m", "--engines", "native", "--dtypes", "int8", "--server-args=--threads 1"])
    [contender], left_out = choose(plan, some_machine(*ZEN4))
    assert set(left_out) == {"float32", "bfloat16", "int16"}
    command = command_of(plan, records.MINILM, contender)
    assert Path(command[0]).name == "text-embeddings-router"
    expected = "--model-id m --engine native --dtype int8 --prometheus-port 0 --threads 1"
    assert command[1:] == expected.split()


def test_a_server_of_someone_else_runs_as_it_runs() -> None:
    for given, command in ((["--url", "http://x"], []), (["--command", "other --x 1"], ["other", "--x", "1"])):
        plan = parse(["--model", "m", *given])
        assert choose(plan, some_machine(*ZEN4)) == ([None], {})
        assert command_of(plan, records.MINILM, None) == command
        assert engine_of(plan, records.MINILM, None, []) is None


def test_others_stand_beside_both_engines() -> None:
    found, left_out = peers.choose(("float32", "bfloat16"), some_machine(*ZEN4), {"int8": "not asked for"})
    told = [(one.engine, one.dtype) for one in found]
    assert told[:2] == [("auto", "float32"), ("auto", "bfloat16")]
    assert told[2:] == ([] if records.ENGINES["openvino"] in left_out else [("openvino", "bfloat16")])
    assert left_out["int8"] == "not asked for"

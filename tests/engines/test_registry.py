"""Which engine runs a model, and what is said where it can't be had."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extras import needs_torch
from loaded import need_of
from oracle.expected import MODELS, Fixture
from text_embeddings_inference.checkpoint import Facts, open_checkpoint
from text_embeddings_inference.engines import native_kind, openvino_kind, registry, torch_kinds
from text_embeddings_inference.engines.base import Engine, EngineKind, Need, Offer, Refusal
from text_embeddings_inference.engines.openvino_kind import choose_streams
from text_embeddings_inference.engines.registry import KINDS, choose
from text_embeddings_inference.errors import StartError, UnsupportedError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.settings.engine import ENGINES

ONNX = MODELS.parent / "onnx" / "bert"


def need(folder: Path = MODELS / "bert", **options: Any) -> Need:
    return need_of(open_checkpoint(folder, facts_of), **options)


def foreign(**options: Any) -> Need:
    """For a model that no file of ours covers."""
    facts = Facts(first_position=0)
    return need_of(replace(Fixture("bert").open(), model_type="of-the-future", facts=facts), **options)


def chosen(wanted: Need) -> str:
    offer = choose(wanted).offer
    return f"{offer.name} on {offer.device}"


@pytest.fixture
def gpu_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_kinds, "has_gpu_driver", lambda: True)


class Kernels:
    """Those of a level, in place of what this machine has: it computes in float32 and in integers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def group(self, format_: str) -> int:
        return int(format_ in ("f32", "f32_b16", "i16", "i8"))


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    have_kernels(monkeypatch, "avx2")


def have_kernels(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setattr(native_kind, "_level", lambda need: Kernels(level))


def have_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(need: Need) -> None:
        raise StartError("there is no C compiler", hint="install gcc")

    monkeypatch.setattr(native_kind, "_level", find)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if PyTorch were not installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(torch_kinds, "find_spec", lambda name: None)
    for name in ("engines.torch", "ops.torch", "ops.torch_sequences"):
        monkeypatch.delitem(sys.modules, f"text_embeddings_inference.{name}", raising=False)


def test_the_words_of_the_command_line_are_the_kinds() -> None:
    assert set(ENGINES) == {kind.option for kind in KINDS}
    assert len({kind.name for kind in KINDS}) == len(KINDS)


class Kind(EngineKind):
    """Offers, without reservation or with one, or refuses."""

    def __init__(self, name: str, refusal: Refusal | None = None, reservation: str | None = None) -> None:
        self.name = self.option = name  # type: ignore[misc]
        self._refusal = refusal
        self._reservation = reservation

    def offer(self, need: Need) -> Offer | Refusal:
        return self._refusal or Offer(self.name, "float32", threads=1, streams=1, reservation=self._reservation)

    def make(self, need: Need, offer: Offer) -> Engine:
        raise NotImplementedError


def kinds(monkeypatch: pytest.MonkeyPatch, *kinds: EngineKind) -> None:
    monkeypatch.setattr(registry, "KINDS", kinds)


def test_the_first_offer_is_taken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    no_way_out, missing = Refusal("too old a machine"), Refusal("its library is missing", "install it")
    kinds(monkeypatch, Kind("a", no_way_out), Kind("b", missing), Kind("c"), Kind("d"))
    with caplog.at_level(logging.INFO):
        assert chosen(need()) == "c on cpu"
    assert [record.getMessage() for record in caplog.records if "not used" in record.getMessage()] == [
        "b is not used: its library is missing (install it)"
    ]


def test_an_offer_with_a_reservation_is_taken_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow, refused = Kind("a", reservation="slower here"), Kind("b", Refusal("no such instructions"))
    with caplog.at_level(logging.INFO):
        kinds(monkeypatch, slow, refused, Kind("c", reservation="slower still"), Kind("d"))
        assert choose(need()).passed_over == ("a is not used: slower here", "c is not used: slower still")
        assert "a is not used: slower here" in caplog.text
        kinds(monkeypatch, slow, refused)
        assert chosen(need()) == "a on cpu"


def test_what_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds(monkeypatch, Kind("torch"), Kind("openvino"))
    assert chosen(need(engine="openvino")) == "openvino on cpu"


def test_all_refusals_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    same = Refusal("too little memory", "free some")
    others = Refusal("only for graphs", is_others=True)
    kinds(monkeypatch, Kind("a", same), Kind("b", Refusal("no GPU")), Kind("c", same), Kind("d", others))
    with pytest.raises(UnsupportedError) as caught:
        choose(need())
    assert str(caught.value) == (
        "no engine can run this model as asked:\na and c: too little memory\nb: no GPU\nhint: free some"
    )


def test_an_engine_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"'onnx': it must be one of auto, native, openvino, torch$"):
        need(engine="onnx")


def test_a_single_reason_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds(monkeypatch, Kind("a", Refusal("only for graphs", is_others=True)))
    with pytest.raises(UnsupportedError, match=r"^only for graphs$"):
        choose(need())


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_kinds, "has_gpu_driver", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "int8"])
def test_without_a_gpu_it_is_our_own_kernels(dtype: str) -> None:
    assert chosen(need(dtype=dtype)) == "native on cpu"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("level", ["plain", "of the future"])
def test_kernels_that_are_not_known_to_be_faster_leave_it_to_openvino(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_kernels(monkeypatch, level)
    [reason] = choose(need(dtype="float32")).passed_over
    assert reason.startswith(f"native is not used: its kernels `{level}` are slower than OpenVINO")
    assert chosen(need(dtype="float32")) == "openvino on cpu"
    assert chosen(need(dtype="float32", engine="native")) == "native on cpu"
    monkeypatch.setattr(native_kind, "find_spec", lambda name: None)
    assert chosen(need(dtype="float32")) == "native on cpu", "without OpenVINO there is nothing to leave it to"


@pytest.mark.usefixtures("no_gpu")
def test_without_kernels_it_is_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    have_no_kernels(monkeypatch)
    found = choose(need(dtype="float32"))
    assert (found.offer.name, found.passed_over) == (
        "openvino",
        ("native is not used: there is no C compiler (install gcc)",),
    )


@pytest.mark.usefixtures("no_gpu")
def test_without_kernels_and_openvino_both_ways_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    have_no_kernels(monkeypatch)
    monkeypatch.setattr(openvino_kind, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError) as caught:
        choose(need())
    assert "native: there is no C compiler" in str(caught.value)
    assert "openvino: OpenVINO is not installed" in str(caught.value)
    assert "hint: install gcc; pip install 'text-embeddings-inference[openvino]'" in str(caught.value)


@pytest.mark.usefixtures("gpu_driver")
def test_a_gpu_without_pytorch_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forget(monkeypatch)
    with caplog.at_level(logging.INFO):
        assert chosen(need()) == "native on cpu"
    assert "pip install 'text-embeddings-inference[torch]'" in caplog.text


def test_pytorch_that_was_asked_for_and_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    with pytest.raises(UnsupportedError, match=r"^`--engine torch`: PyTorch 2\.12 or newer is not inst") as caught:
        choose(need(engine="torch"))
    assert "hint: pip install 'text-embeddings-inference[torch]'" in str(caught.value)


@needs_torch
@pytest.mark.usefixtures("gpu_driver")
@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cuda", {}, "torch on cuda"),
        ("cpu", {}, "native on cpu"),  # a driver whose GPU was not given to this process
        ("cuda", {"engine": "openvino"}, "openvino on cpu"),
        ("cuda", {"dtype": "int8"}, "native on cpu"),
    ],
)
def test_auto_takes_the_gpu(
    device: str, options: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from text_embeddings_inference.engines import torch

    monkeypatch.setattr(torch, "choose_device", lambda: device)
    assert chosen(need(**options)) == expected


@pytest.mark.parametrize(
    ("threads", "numbers", "expected"),
    [
        pytest.param(2, 10_000_000, 2, id="small"),
        pytest.param(2, 85_000_000, 1, id="large"),
        pytest.param(16, 85_000_000, 8, id="large, on many threads"),
        pytest.param(1, 10_000_000, 1, id="one thread"),
    ],
)
def test_streams(threads: int, numbers: int, expected: int) -> None:
    assert choose_streams(threads, 4 * numbers) == expected


def test_streams_that_are_asked_for() -> None:
    assert choose(need(engine="openvino", dtype="float32", streams=3)).offer.streams == 3


@pytest.mark.parametrize("dtype", ["float16"])
def test_a_number_type_that_no_cpu_has(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_kinds, "has_gpu_driver", lambda: False)
    with pytest.raises(UnsupportedError) as caught:
        choose(need(dtype=dtype))
    assert "torch: there is no GPU here\nnative: `--dtype float16`: CPUs run" in str(caught.value)
    with pytest.raises(UnsupportedError, match=r"^`--dtype float16`: CPUs run"):
        choose(need(dtype=dtype, engine="openvino"))


def test_int16_is_for_our_own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_kinds, "has_gpu_driver", lambda: False)
    with pytest.raises(UnsupportedError, match=r"^`--dtype int16`: OpenVINO does not compute in it") as caught:
        choose(need(dtype="int16", engine="openvino"))
    assert "hint: use `--engine native`" in str(caught.value)


@needs_torch
def test_a_number_type_that_pytorch_does_not_have() -> None:
    with pytest.raises(UnsupportedError, match=r"^`--dtype int8`: PyTorch runs float32, float16, bfloat16 only"):
        choose(need(dtype="int8", engine="torch"))


def test_graphs_are_run_by_openvino() -> None:
    assert chosen(need(ONNX, dtype="float32")) == "openvino on cpu"
    with pytest.raises(UnsupportedError, match=r"^`--dtype int8`: .* an ONNX graph, which is run as it is"):
        choose(need(ONNX, dtype="int8"))
    with pytest.raises(UnsupportedError, match=r"^`--engine torch`: .* an ONNX graph, which OpenVINO runs"):
        choose(need(ONNX, engine="torch"))


def test_an_unknown_model_is_not_for_openvino() -> None:
    with pytest.raises(UnsupportedError, match=r"^config.json: `model_type` is 'of-the-future', .* on OpenVINO"):
        choose(foreign(engine="openvino"))


def test_the_way_out_for_an_unknown_model(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    with pytest.raises(UnsupportedError, match=r"^config.json: `model_type` is 'of-the-future'") as caught:
        choose(foreign())
    assert "supported are albert, " in str(caught.value)
    assert "pip install torch transformers" in str(caught.value)

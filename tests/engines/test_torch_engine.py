"""The engine on PyTorch besides its results: memory, threads, layouts, number types."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from extras import HAS_TORCH
from loaded import need_of
from oracle.expected import Fixture
from text_embeddings_inference.checkpoint import Facts
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.types import Encoding

if not HAS_TORCH:
    pytest.skip("PyTorch is not installed (`make torch` installs it)", allow_module_level=True)

import torch

from text_embeddings_inference.engines import torch as module
from text_embeddings_inference.engines.base import Capacity, Offer
from text_embeddings_inference.engines.measure import measure
from text_embeddings_inference.engines.torch import TorchEngine, choose_device, choose_dtype


def make(name: str = "bert", *, dtype: str = "float32", threads: int = 1, **options: Any) -> TorchEngine:
    return TorchEngine(need_of(Fixture(name).open()), Offer("torch", dtype, threads, streams=1), **options)


def sequence(length: int, first: int = 5) -> Encoding:
    return Encoding(np.arange(first, first + length, dtype=np.int32), None, 0)


def run(engine: TorchEngine, *encodings: Encoding) -> Any:
    return engine.run(engine.arrange(list(encodings))).pooled


def test_a_batch_that_is_too_large_fails_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    expected = run(engine, sequence(9))
    network = engine._network
    made: list[Any] = []
    left: list[Any] = []  # of the batch's tensors, when the cache is emptied

    def too_large(ops: Any, inputs: Any) -> Any:
        states = torch.zeros(1 << 10)
        made.append(weakref.ref(states))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: left.append([reference() for reference in made]))
    monkeypatch.setattr(engine, "_network", network._replace(run=too_large))
    with pytest.raises(MemoryError, match="too little memory for a batch of 12 tokens"):
        run(engine, sequence(9), sequence(3))
    assert left == [[None]]
    monkeypatch.setattr(engine, "_network", network)
    assert np.array_equal(run(engine, sequence(9)), expected)


@pytest.mark.parametrize(("dtype", "hint"), [("float32", "--dtype float16"), ("float16", "smaller model")])
def test_a_model_that_is_too_large_ends_the_start(dtype: str, hint: str) -> None:
    def too_large(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(StartError, match="does not fit into the memory of the cpu device") as caught:
        make(dtype=dtype, builder=too_large)
    assert hint in str(caught.value)


def tensors() -> list[Any]:
    return [item for item in gc.get_objects() if type(item) is torch.Tensor]


def test_close_gives_the_weights_back() -> None:
    before = {id(tensor) for tensor in tensors()}
    engine = make(dtype="bfloat16")
    weights = [weakref.ref(tensor) for tensor in tensors() if id(tensor) not in before]
    assert len(weights) > 20
    engine.close()
    gc.collect()
    assert not any(reference() is not None for reference in weights)


def test_weights_in_float32_are_the_files_own() -> None:
    checkpoint = Fixture("bert").open()
    engine = TorchEngine(need_of(checkpoint), Offer("torch", "float32", threads=1, streams=1))
    stored = checkpoint.weights.array("embeddings.word_embeddings.weight")
    assert any(np.may_share_memory(tensor.numpy(), stored) for tensor in tensors())
    engine.close()


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_threads_that_run_batches_side_by_side_get_their_own_rows(layout: str) -> None:
    engine = make(layout=layout)
    sequences = [sequence(length, first) for length in (1, 7, 30) for first in (5, 100, 300)]
    expected = [run(engine, one)[0] for one in sequences]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda one: run(engine, one, sequence(4))[0], sequences * 5))
    for row, wanted in zip(rows, expected * 5, strict=True):
        assert np.abs(row - wanted).max() <= 1e-5


def test_layouts() -> None:
    encodings = [sequence(3), sequence(7)]
    padded, packed, default = make(layout="padded"), make(layout="packed"), make()
    assert padded.arrange(encodings).input_ids.shape == (2, 7)
    assert packed.arrange(encodings).input_ids.shape == (10,)
    assert not default.arrange(encodings).is_packed, "there is no kernel for packed batches on CPUs"
    assert (padded.cost(7, 2, 10), packed.cost(7, 2, 10)) == (14, 10)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_results_are_float32_arrays_of_their_own(dtype: str, layout: str) -> None:
    engine = make("bert-cls", dtype=dtype, layout=layout)
    output = engine.run(engine.arrange([sequence(3), sequence(9)]), tokens=True, cores=1)
    assert output.tokens is not None
    assert (output.pooled.dtype, output.tokens.dtype) == (np.float32, np.float32)
    assert output.pooled.flags.c_contiguous, "a view keeps all hidden states in memory"
    assert not np.shares_memory(output.pooled, output.tokens)


def test_splade_gets_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_SIZES", replace(module.CPU_SIZES, splade_bytes=10 * 4 * 900))
    engine = make("bert-splade")
    assert measure(engine, engine.capacity, ["batch_tokens"], 5) == Capacity(1, 10)
    assert make("bert-splade", dtype="float16").capacity.batch_tokens == 20
    assert make("bert").capacity.batch_tokens == module.CPU_SIZES.best


def test_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_SIZES", replace(module.CPU_SIZES, trials=(64, 128, 256)))
    engine = make()
    found = measure(engine, engine.capacity, ["batch_tokens", "streams"], 5)
    assert (found.batch_tokens in (64, 128, 256), found.streams) == (True, 1)


def test_threads() -> None:
    """A batch has those of its engine, or fewer; the rest of the process keeps its own number."""
    before, seen = torch.get_num_threads(), []
    engines = [make(threads=threads) for threads in (2, 3)]
    for engine in engines:
        assert engine._network is not None
        run_network = engine._network.run

        def look(ops: Any, inputs: Any, run_network: Any = run_network) -> Any:
            seen.append(torch.get_num_threads())
            return run_network(ops, inputs)

        engine._network = engine._network._replace(run=look)
    with ThreadPoolExecutor(1) as pool:
        for engine, cores in [(engines[0], None), (engines[1], None), (engines[0], 1), (engines[1], 8)]:
            pool.submit(engine.run, engine.arrange([sequence(3)]), cores=cores).result()
    assert seen == [2, 3, 1, 3]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("wanted", "device", "overflows", "expected"),
    [
        ("auto", "cuda", False, "float16"),
        ("auto", "mps", False, "float16"),
        ("auto", "cuda", True, "bfloat16"),
        ("float16", "cuda", True, "float16"),
        ("float32", "cuda", False, "float32"),
        ("bfloat16", "cpu", False, "bfloat16"),
        ("float16", "cpu", False, "float16"),
    ],
)
def test_number_types(wanted: str, device: str, overflows: bool, expected: str) -> None:
    facts = Facts(first_position=0, overflows_float16=overflows)
    assert choose_dtype(wanted, device, facts) == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({}, "float32"),
    ],
)
def test_number_type_of_a_cpu(capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype("auto", "cpu", Facts(first_position=0)) == expected


@pytest.mark.parametrize(
    ("found", "expected"), [(None, "cpu"), (torch.device("cuda"), "cuda"), (torch.device("mps"), "mps")]
)
def test_device(found: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
    assert choose_device() == expected

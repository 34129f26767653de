"""The native engine: what it refuses, its threads, and what it leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from loaded import need_of
from native.kernels import best_kernels, kernels, levels, needs_kernels
from oracle.expected import Fixture
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.native.self_test import passes
from text_embeddings_inference.types import Batch, Encoding, Int32Array

pytestmark = needs_kernels


def make(name: str = "bert", threads: int = 2, dtype: str = "float32") -> NativeEngine:
    return NativeEngine(need_of(Fixture(name).open()), Offer("native", dtype, threads, threads), best_kernels())


def integers(*values: int) -> Int32Array:
    return np.array(values, np.int32)


def text(length: int, start: int = 5) -> Encoding:
    return Encoding(np.arange(start, start + length, dtype=np.int32) % 40, None, 0)


REFUSED = {
    "a negative id": Batch(integers(5, -1), None, integers(2)),
    "an id after the last": Batch(integers(5, 1 << 20), None, integers(2)),
    "a negative type": Batch(integers(5, 6), integers(0, -1), integers(2)),
    "a type after the last": Batch(integers(5, 6), integers(0, 2), integers(2)),
    "types of other tokens": Batch(integers(5, 6), integers(0), integers(2)),
    "no token": Batch(integers(5, 6), None, integers(2, 0)),
    "a negative length": Batch(integers(5, 6), None, integers(3, -1)),
    "more tokens than ids": Batch(integers(5, 6), None, integers(3)),
    "more tokens than positions": Batch(np.full(5000, 5, np.int32), None, integers(5000)),
    "no sequence": Batch(integers(), None, integers()),
    "a padded batch": Batch(integers(5, 6)[None], None, integers(2)),
    "none attended": Batch(integers(5, 6), None, integers(2), integers(0)),
    "more attended than there are": Batch(integers(5, 6), None, integers(2), integers(3)),
    "attended of other sequences": Batch(integers(5, 6), None, integers(2), integers(1, 1)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_read_beyond_an_array_is_refused(what: str) -> None:
    engine = make()
    with pytest.raises(ValueError, match=r"is not between|packed|each token|attended"):
        engine.run(REFUSED[what])
    engine.close()


def test_vectors_of_tokens_that_a_model_does_not_give_are_refused() -> None:
    engine = make("bert-classifier")
    with pytest.raises(ValueError, match="gives no vectors of tokens"):
        engine.run(engine.arrange([text(3)]), tokens=True)
    engine.close()


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 64])
def test_any_number_of_threads_gives_the_same(threads: int) -> None:
    one, many = make(threads=1), make(threads=threads)
    for lengths in ([1], [17], [40, 3, 29, 1, 33], [30] * 9):
        batch = one.arrange([text(length, i) for i, length in enumerate(lengths)])
        assert np.array_equal(one.run(batch).pooled, many.run(batch).pooled)
    one.close()
    many.close()


def test_batches_side_by_side_give_what_they_give_alone() -> None:
    engine = make(threads=4)
    batches = [engine.arrange([text(n, i) for n in (9, 30, 1)]) for i in range(6)]
    alone = [engine.run(batch).pooled for batch in batches]
    wrong: list[int] = []

    def repeat(i: int) -> None:
        for cores in (1, 4, 2, 4, 1, 2):
            if not np.array_equal(engine.run(batches[i], cores=cores).pooled, alone[i]):
                wrong.append(i)

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    engine.close()


def test_an_idle_engine_uses_no_cpu() -> None:
    engine = make(threads=3)
    engine.run(engine.arrange([text(20)]))
    time.sleep(0.05)  # workers spin for a while before they sleep
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05
    engine.close()


FORKED = """
import os, sys
sys.path.insert(0, "tests")
from native.test_native_engine import make, text
engine = make(threads=3)
batch = engine.arrange([text(20), text(9)])
before = engine.run(batch).pooled.tobytes()
child = os.fork()
same = engine.run(batch).pooled.tobytes() == before
if child == 0:
    os._exit(0 if same else 1)
assert same
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_both_sides_of_a_fork_go_on() -> None:
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], timeout=60, check=False).returncode == 0


STOPPED = """
import os, sys
sys.path.insert(0, "tests")
from native.test_native_engine import make, text
if len(sys.argv) > 1:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
engine = make(threads=3)
batch = engine.arrange([text(20), text(9)])
before = engine.run(batch).pooled.tobytes()
for _ in range(40):
    print("running", flush=True)
    for _ in range(20):
        assert engine.run(batch).pooled.tobytes() == before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks for Linux's affinity of processes")
def test_a_process_that_is_stopped_goes_on() -> None:
    """Between any two instructions: while workers spin, sleep, join or leave."""
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in child.stdout:
            child.send_signal(signal.SIGSTOP)
            time.sleep(0.002)
            child.send_signal(signal.SIGCONT)
        assert child.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks for Linux's affinity of processes")
def test_more_threads_than_the_process_has_cpus() -> None:
    command = [sys.executable, "-c", STOPPED, "on one CPU"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode == 0


ENDED = """
import sys, threading
sys.path.insert(0, "tests")
from native.test_native_engine import make, text
engine, ran = make(threads=3), threading.Event()
batch = engine.arrange([text(30, i) for i in range(20)])
def repeat():
    while True:
        engine.run(batch)
        ran.set()
threading.Thread(target=repeat, daemon=True).start()
ran.wait()
"""


def test_the_interpreter_ends_while_a_batch_runs() -> None:
    assert subprocess.run([sys.executable, "-c", ENDED], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("level", levels())
def test_each_level_passes_the_test_at_the_start(level: str) -> None:
    assert passes(kernels(level), kernels("plain"))


def test_a_dtype_without_kernels_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="the kernels `plain` have float32, bfloat16"):
        NativeEngine(need_of(Fixture("bert").open()), Offer("native", "int8", 1, 1), kernels("plain"))


def test_a_plan_can_be_read() -> None:
    """Products with what follows them, and one stage between two attentions."""
    engine = make("bert")
    lines = str(engine.plan).splitlines()
    assert "  linear identity: 32 -> 96, f32" in lines, "queries, keys and values are one product"
    assert "  linear gelu: 32 -> 64, f32" in lines
    stages = [line for line in lines if line.startswith("stage")]
    layers = sum("attention" in line for line in lines)
    assert len(stages) == 2 * layers + 2
    engine.close()

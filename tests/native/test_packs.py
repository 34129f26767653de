"""Packed weights as a file: found again, never taken for something else's, and of no harm where they can't be."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loaded import need_of
from native.kernels import FLAGS, best_kernels, kernels, levels, needs_kernels
from oracle.expected import MODELS
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.native import contents, folder, packs
from text_embeddings_inference.native.library import Level
from text_embeddings_inference.native.pack import Packer
from text_embeddings_inference.types import Encoding, Float32Array
from wide import write_wide

pytestmark = needs_kernels
BATCH = [Encoding(np.arange(5, 5 + length, dtype=np.int32), None, 0) for length in (9, 1, 20)]
DTYPES = ("float32", "bfloat16")
NAMES = ("bert", "modernbert", "nomic-bert", "qwen3", "t5-encoder", "albert", "bert-dense", "nomic-bert-moe")


@pytest.fixture(autouse=True)
def all_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixtures' weights are too small to be worth a file."""
    monkeypatch.setattr(packs, "LEAST_BYTES", 0)


@pytest.fixture
def nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on."""

    def fail(packer: Packer, threads: int, release: Callable[[], None]) -> None:
        pytest.fail("weights were packed")

    return lambda: monkeypatch.setattr(Packer, "pack", fail)


def vectors(model: Path, cache: Path | None, dtype: str = "float32", level: Level | None = None) -> Float32Array:
    """Of some texts, by an engine that lives for them alone."""
    options = {"no_compile_cache": True} if cache is None else {"compile_cache": cache}
    need = need_of(open_checkpoint(model, facts_of), **options)
    engine = NativeEngine(need, Offer("native", dtype, 2, 2), level or best_kernels())
    found = engine.run(engine.arrange(BATCH)).pooled
    engine.close()
    return found


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.pack"))


def copied(name: str, to: Path) -> Path:
    """A fixture that may be written to."""
    return Path(shutil.copytree(MODELS / name, to / name))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_with_and_without(
    name: str, dtype: str, tmp_path: Path, nothing_is_packed: Callable[[], None]
) -> None:
    plain = vectors(MODELS / name, None, dtype)
    assert not files(tmp_path)
    assert np.array_equal(vectors(MODELS / name, tmp_path, dtype), plain)
    [pack] = files(tmp_path)
    nothing_is_packed()
    assert np.array_equal(vectors(MODELS / name, tmp_path, dtype), plain)
    assert files(tmp_path) == [pack]


def test_levels_and_dtypes_have_packs_of_their_own(tmp_path: Path) -> None:
    for number, (level, dtype) in enumerate([(level, dtype) for level in levels() for dtype in DTYPES], 1):
        found = vectors(MODELS / "bert", tmp_path, dtype, kernels(level))
        assert np.array_equal(found, vectors(MODELS / "bert", None, dtype, kernels(level)))
        assert len(files(tmp_path)) == number


def test_a_copy_of_a_checkpoint_has_its_pack(tmp_path: Path, nothing_is_packed: Callable[[], None]) -> None:
    vectors(MODELS / "bert", tmp_path)
    model = copied("bert", tmp_path)
    nothing_is_packed()
    vectors(model, tmp_path)


def rewritten(model: Path) -> None:
    """Other weights of the same shapes, in the same file, written at what seems the same time."""
    path = model / "model.safetensors"
    before = path.stat()
    content = bytearray(path.read_bytes())
    values = np.frombuffer(content, np.float32, offset=len(content) % 4)
    values[-2000:] *= -1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_other_weights_are_not_taken_for_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED_SECONDS", -1.0)
    model = copied("bert", tmp_path)
    before = vectors(model, tmp_path)
    assert list(tmp_path.glob("*.content")), "what the file contains is remembered"
    time.sleep(0.05)  # clocks of file systems are coarse
    rewritten(model)
    after = vectors(model, tmp_path)
    assert not np.array_equal(after, before)
    assert np.array_equal(after, vectors(model, None))
    assert len(files(tmp_path)) == 2


def test_what_a_new_file_contains_is_not_remembered_yet(tmp_path: Path) -> None:
    """Its time of change might stay the same at the next write."""
    vectors(copied("bert", tmp_path), tmp_path)
    assert files(tmp_path)
    assert not list(tmp_path.glob("*.content"))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "is empty": lambda content: b"",
    "ends in the header": lambda content: content[:40],
    "ends in the data": lambda content: content[:-64],
    "has more at its end": lambda content: content + bytes(64),
    "is something else": lambda content: bytes(len(content)),
    "is of another version": lambda content: content[:8] + b"\xff" + content[9:],
    "has another header": lambda content: content[:70] + bytes([content[70] ^ 1]) + content[71:],
    "has other formats": lambda content: content[:72] + bytes([content[72] ^ 1]) + content[73:],
    "has another bit in its data": lambda content: content[:-4000] + bytes([content[-4000] ^ 1]) + content[-3999:],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_made_anew(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = vectors(MODELS / "bert", tmp_path)
    [path] = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(DAMAGE[what](content))
    assert np.array_equal(vectors(MODELS / "bert", tmp_path), plain)
    assert "packed weights are made anew" in caplog.text
    assert path.read_bytes() == content
    caplog.clear()
    vectors(MODELS / "bert", tmp_path)
    assert "packed weights are" not in caplog.text


def test_the_pack_of_something_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under a name that is not its own."""
    plain = vectors(MODELS / "bert", tmp_path)
    [path] = files(tmp_path)
    vectors(MODELS / "roberta", tmp_path)
    [other] = set(files(tmp_path)) - {path}
    shutil.copy(other, path)
    assert np.array_equal(vectors(MODELS / "bert", tmp_path), plain)
    assert "packed weights are made anew" in caplog.text


@pytest.mark.parametrize("asked", [True, False])
def test_a_folder_that_can_not_be(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Worth a warning only where it was asked for."""
    plain, level = vectors(MODELS / "bert", None), best_kernels()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    need = need_of(open_checkpoint(MODELS / "bert", facts_of), compile_cache=tmp_path / "file" / "x" if asked else None)
    with caplog.at_level(logging.INFO):
        engine = NativeEngine(need, Offer("native", "float32", 2, 2), level)
        assert np.array_equal(engine.run(engine.arrange(BATCH)).pooled, plain)
        engine.close()
    [record] = [record for record in caplog.records if "can't be" in record.message]
    assert record.levelno == (logging.WARNING if asked else logging.INFO)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert np.array_equal(vectors(MODELS / "bert", tmp_path), vectors(MODELS / "bert", None))
    assert "packed weights can't be kept: [Errno 28]" in caplog.text
    assert {path.suffix for path in tmp_path.iterdir()} <= {".content"}


START = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from native import test_packs
test_packs.packs.LEAST_BYTES = 0
print(test_packs.vectors(test_packs.MODELS / "bert", Path(sys.argv[1])).tobytes().hex())
"""


def test_processes_that_start_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in running]
    plain = vectors(MODELS / "bert", None).tobytes().hex()
    assert answers == [(plain + "\n", "")] * 3
    assert [path.suffix for path in sorted(tmp_path.iterdir())] in ([".pack", ".content"], [".content", ".pack"])


def test_a_pack_that_is_removed_stays_with_those_who_use_it(tmp_path: Path) -> None:
    for _ in range(2):  # just packed, and then found
        need = need_of(open_checkpoint(MODELS / "bert", facts_of), compile_cache=tmp_path)
        engine = NativeEngine(need, Offer("native", "float32", 1, 1), best_kernels())
        plain = engine.run(engine.arrange(BATCH)).pooled
        while not files(tmp_path):
            time.sleep(0.01)
        [path] = files(tmp_path)
        path.rename(tmp_path / "kept")
        assert np.array_equal(engine.run(engine.arrange(BATCH)).pooled, plain)
        engine.close()
        (tmp_path / "kept").rename(path)


def test_batches_while_the_file_takes_the_place_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wide(tmp_path / "wide", width=256, layers=4)
    need = need_of(open_checkpoint(tmp_path / "wide", facts_of), compile_cache=tmp_path)
    running = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda descriptor: running.wait(60))
    engine = NativeEngine(need, Offer("native", "float32", 2, 2), best_kernels())
    batch = engine.arrange(BATCH)
    plain = engine.run(batch).pooled
    assert not files(tmp_path)
    running.set()
    while any(thread.name == "keep-weights" for thread in threading.enumerate()):
        assert np.array_equal(engine.run(batch).pooled, plain)
    assert files(tmp_path)
    for _ in range(20):
        assert np.array_equal(engine.run(batch).pooled, plain)
    engine.close()


def test_what_nobody_uses_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "KEPT_BYTES", 250)
    ages = {
        "weights-a.pack": 0,
        "weights-b.pack": 10,
        "weights-c.pack": 20,  # beyond KEPT_BYTES
        "weights-new.pack": 30,  # the one that stays
        "weights-x.content": 10,
        "weights-y.content": folder.KEPT_SECONDS + 10,
        "kernels-x.so": 10,
        "kernels-y.so": folder.KEPT_SECONDS + 10,
        ".native-1.unfinished": 10,
        ".native-2.unfinished": folder.UNFINISHED_SECONDS + 10,
        "others.so": folder.KEPT_SECONDS + 10,
    }
    for name, age in ages.items():
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    folder.tidy(tmp_path, tmp_path / "weights-new.pack")
    removed = ages.keys() - {path.name for path in tmp_path.iterdir()}
    assert removed == {"weights-c.pack", "weights-y.content", "kernels-y.so", ".native-2.unfinished"}


MEMORY = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from native import test_packs
def peak():
    lines = Path("/proc/self/status").open()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
test_packs.vectors(test_packs.MODELS / "bert", None)
before = peak()
test_packs.vectors(Path(sys.argv[1]), Path(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory the process has had")
@pytest.mark.skipif(bool(FLAGS), reason="what checks every access takes memory of its own")
def test_16_bits_are_never_held_as_32(tmp_path: Path) -> None:
    """Not while they are packed, when what is stored is in memory too; a found pack takes 16 bits of each."""
    write_wide(tmp_path / "wide", width=512, layers=8, dtype="BF16")
    stored = (tmp_path / "wide" / "model.safetensors").stat().st_size
    assert stored > 40 << 20
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "wide"), str(tmp_path)]
    first, second = (int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(2))
    assert first < 2 * stored + (16 << 20)
    assert second < stored + (16 << 20)

"""Pickles are written opcode by opcode: torch is not needed, and neither are its mistakes' victims."""

from __future__ import annotations

import builtins
import os
import pickle
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from text_embeddings_inference.checkpoint.tensors import pickle as reader
from text_embeddings_inference.checkpoint.tensors.pickle import read_pickle
from text_embeddings_inference.checkpoint.tensors.tensor import Tensor, map_file
from text_embeddings_inference.errors import CheckpointError, StartError, UnsupportedError

ORDERED = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
SIX = np.arange(6, dtype=np.float32)


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def items(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def integers(*values: int) -> bytes:
    return items(*map(number, values))


def storage(key: str = "0", elements: int = 6, kind: str = "FloatStorage", module: str = "torch") -> bytes:
    cls = f"c{module}\n{kind}\n".encode()
    return items(text("storage"), cls, text(key), text("cpu"), number(elements)) + b"Q"


def tensor(stored: bytes, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    arguments = items(stored, number(offset), integers(*shape), integers(*stride), b"\x89", ORDERED)
    return REBUILD + arguments + b"R"


def state_dict(**tensors: bytes) -> bytes:
    pairs = b"".join(text(name.replace("__", ".")) + value for name, value in tensors.items())
    return b"\x80\x02" + ORDERED + b"(" + pairs + b"u."


def write_zip(
    path: Path,
    program: bytes,
    storages: dict[str, bytes],
    *,
    stored: int = zipfile.ZIP_STORED,
    order: bytes = b"little",
) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data, stored)
    return path


def read(path: Path) -> dict[str, Tensor]:
    return {found.name: found for found in read_pickle(path, map_file(path))}


def write_six(path: Path, value: bytes) -> Path:
    return write_zip(path / "pytorch_model.bin", state_dict(w=value), {"0": SIX.tobytes()})


def test_the_fixture(models: Path) -> None:
    imported_before = set(sys.modules)  # by tests of the other engine
    tensors = read(models / "bert-cls" / "pytorch_model.bin")
    assert len(tensors) == 47
    assert tensors["bert.embeddings.word_embeddings.weight"].shape == (900, 32)
    assert tensors["bert.embeddings.LayerNorm.gamma"].array().dtype == np.float32
    positions = tensors["bert.embeddings.position_ids"].array()
    np.testing.assert_array_equal(positions, np.arange(96)[None])
    assert "torch" not in sys.modules.keys() - imported_before
    for found in tensors.values():
        assert np.isfinite(found.array()).all()


def test_every_storage_type(tmp_path: Path) -> None:
    kinds = {
        "DoubleStorage": ("F64", np.float64),
        "FloatStorage": ("F32", np.float32),
        "HalfStorage": ("F16", np.float16),
        "LongStorage": ("I64", np.int64),
        "IntStorage": ("I32", np.int32),
        "ShortStorage": ("I16", np.int16),
        "CharStorage": ("I8", np.int8),
        "ByteStorage": ("U8", np.uint8),
        "BoolStorage": ("BOOL", np.bool_),
    }
    program = state_dict(**{kind: tensor(storage(kind, 2, kind), (2,), (1,)) for kind in kinds})
    storages = {kind: np.array([0, 1], dtype).tobytes() for kind, (_, dtype) in kinds.items()}
    tensors = read(write_zip(tmp_path / "x.bin", program, storages))
    assert {kind: tensors[kind].dtype for kind in kinds} == {kind: name for kind, (name, _) in kinds.items()}
    for kind in kinds:
        np.testing.assert_array_equal(tensors[kind].array(), [0, 1])


def test_bfloat16_and_untyped(tmp_path: Path) -> None:
    untyped = storage("1", 3, "UntypedStorage", "torch.storage")
    program = state_dict(b=tensor(storage("0", 2, "BFloat16Storage"), (2,), (1,)), u=tensor(untyped, (3,), (1,)))
    tensors = read(write_zip(tmp_path / "x.bin", program, {"0": b"\x80\x3f\x00\xc0", "1": b"abc"}))
    np.testing.assert_array_equal(tensors["b"].array(), np.array([1, -2], np.float32))
    assert tensors["u"].array().tobytes() == b"abc"


def test_views_share_a_storage(tmp_path: Path) -> None:
    program = state_dict(
        a=tensor(storage(), (2, 3), (3, 1)),
        transposed=tensor(storage(), (3, 2), (1, 3)),
        tail=tensor(storage(), (2,), (1,), offset=4),
        scalar=tensor(storage(), (), (), offset=5),
        empty=tensor(storage(), (0, 3), (3, 1), offset=6),
        repeated=tensor(storage(), (2, 3), (0, 1)),
    )
    tensors = read(write_zip(tmp_path / "x.bin", program, {"0": SIX.tobytes()}))
    np.testing.assert_array_equal(tensors["a"].array(), SIX.reshape(2, 3))
    np.testing.assert_array_equal(tensors["transposed"].array(), SIX.reshape(2, 3).T)
    assert tensors["transposed"].array().flags.c_contiguous
    np.testing.assert_array_equal(tensors["tail"].array(), [4, 5])
    assert float(tensors["scalar"].array()) == 5
    assert tensors["empty"].array().shape == (0, 3)
    np.testing.assert_array_equal(tensors["repeated"].array(), [[0, 1, 2], [0, 1, 2]])


def test_parameters_and_metadata(tmp_path: Path) -> None:
    value = tensor(storage(), (6,), (1,))
    parameter = b"ctorch._utils\n_rebuild_parameter\n" + items(value, b"\x88", ORDERED) + b"R"
    metadata = b"}" + text("_metadata") + ORDERED + b"sb"  # what state_dict() leaves on its dictionary
    program = state_dict(p=parameter)[:-1] + metadata + b"."
    np.testing.assert_array_equal(read(write_zip(tmp_path / "x.bin", program, {"0": SIX.tobytes()}))["p"].array(), SIX)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (tensor(storage(), (7,), (1,)), "`w` of shape .* reaches outside of its storage"),
        (tensor(storage(), (2, 3), (4, 1)), "reaches outside of its storage"),
        (tensor(storage(), (2,), (1,), offset=5), "reaches outside of its storage"),
        (tensor(storage(elements=7), (7,), (1,)), "reaches outside of its storage"),
        (tensor(storage(), (0,), (1,), offset=2**40), "reaches outside of its storage"),
        (tensor(storage(), (2,), (-1,), offset=3), "no valid shape, stride or offset"),
        (tensor(storage(), (-2,), (1,)), "no valid shape, stride or offset"),
        (tensor(storage(), (2,), (1,), offset=-1), "no valid shape, stride or offset"),
        (tensor(storage(), (2, 3), (1,)), "has shape .* but stride"),
        (tensor(storage(), (2**40, 2**40), (0, 0)), "an impossible shape"),
        (tensor(storage("9"), (6,), (1,)), "storage `9` is missing"),
        (tensor(storage(elements=-1), (0,), (1,)), "of negative size"),
        (tensor(text("0"), (6,), (1,)), "a tensor on str"),
        (REBUILD + items(storage(), text("x"), integers(1), integers(1)) + b"R", "no valid shape, stride or offset"),
        (b"ctorch._utils\n_rebuild_parameter\n" + items(text("x")) + b"R", "a parameter on str"),
        (text("module") + b"Q", "a reference that is no storage"),
        (text("a value"), "`w` is no tensor, but str"),
        (storage(), "`w` is no tensor, but a storage"),
    ],
)
def test_broken_tensors_are_named(tmp_path: Path, value: bytes, problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        read(write_six(tmp_path, value))


def test_a_storage_with_two_types(tmp_path: Path) -> None:
    program = state_dict(a=tensor(storage(), (6,), (1,)), b=tensor(storage(kind="LongStorage"), (3,), (1,)))
    with pytest.raises(CheckpointError, match="storage `0` is described twice"):
        read(write_zip(tmp_path / "x.bin", program, {"0": SIX.tobytes()}))


def touch(path: Path) -> bytes:
    return items(text(f"touch {path}"))


@pytest.mark.parametrize("position", ["value", "top", "key"])
@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("os.system", lambda path: b"cos\nsystem\n" + touch(path) + b"R"),
        ("posix.system", lambda path: b"cposix\nsystem\n" + touch(path) + b"R"),
        ("nt.system", lambda path: b"cnt\nsystem\n" + touch(path) + b"R"),
        ("subprocess.Popen", lambda path: b"(S'touch'\nisubprocess\nPopen\n"),
        ("os.system", lambda path: text("os") + text("system") + b"\x93" + touch(path) + b"R"),
        ("os.system", lambda path: b"(cos\nsystem\n" + text(f"touch {path}") + b"o"),
        ("builtins.eval", lambda path: b"cbuiltins\neval\n" + items(text(f"open({str(path)!r}, 'w')")) + b"R"),
        ("__builtin__.eval", lambda path: b"c__builtin__\neval\n" + items(text(f"open({str(path)!r}, 'w')")) + b"R"),
        ("builtins.getattr", lambda path: b"cbuiltins\ngetattr\n" + items(ORDERED, text("__class__")) + b"R"),
        ("copyreg._reconstructor", lambda path: b"ccopyreg\n_reconstructor\n" + items() + b"R"),
        ("copy_reg._reconstructor", lambda path: b"ccopy_reg\n_reconstructor\n" + items() + b"R"),
        ("functools.partial", lambda path: b"cfunctools\npartial\n)\x81"),
        ("pathlib.Path", lambda path: b"cpathlib\nPath\n" + items(text(str(path))) + b"\x81"),
        ("torch.load", lambda path: b"ctorch\nload\n" + items(text(str(path))) + b"R"),
        ("torch._utils.os.system", lambda path: b"\x80\x04ctorch._utils\nos.system\n" + touch(path) + b"R"),
        ("collections.abc.sys", lambda path: b"ccollections.abc\nsys\n"),
        ("collections.OrderedDict.fromkeys", lambda path: b"\x80\x04ccollections\nOrderedDict.fromkeys\n)R"),
        ("torch.storage._load_from_bytes", lambda path: b"ctorch.storage\n_load_from_bytes\n" + items(text("")) + b"R"),
        ("torch.serialization._get_layout", lambda path: b"ctorch.serialization\n_get_layout\n" + touch(path) + b"R"),
    ],
)
def test_nothing_runs(tmp_path: Path, name: str, attack: Callable[[Path], bytes], position: str) -> None:
    witness = tmp_path / "witness"
    payload = attack(witness)
    program = {
        "value": state_dict(w=payload),
        "top": b"\x80\x02" + payload + b".",
        "key": b"\x80\x02" + ORDERED + b"(" + payload + text("x") + b"u.",
    }[position]
    with pytest.raises(CheckpointError) as caught:
        read(write_zip(tmp_path / "x.bin", program, {}))
    assert f"wants to load `{name}`" in str(caught.value)
    assert "convert the checkpoint to safetensors" in str(caught.value)
    assert not witness.exists()


def test_the_attacks_would_work_on_a_plain_unpickler(tmp_path: Path) -> None:
    pickle.loads(b"\x80\x02cos\nsystem\n" + touch(tmp_path / "witness") + b"R.")
    assert (tmp_path / "witness").exists()


@pytest.mark.parametrize(
    "target",
    [
        REBUILD,  # one of our callables
        storage(),
        tensor(storage(), (6,), (1,)),
        b"ctorch\nFloatStorage\n",
        b"ccollections\nOrderedDict\n",  # the class itself
    ],
)
@pytest.mark.parametrize("slots", [False, True])
def test_pickles_can_not_write_to_what_is_ours(tmp_path: Path, target: bytes, slots: bool) -> None:
    state = b"}" + text("offset") + number(2**40) + b"s"
    build = target + (items(b"N", state) if slots else state) + b"b"
    with pytest.raises(CheckpointError, match="can't be unpickled"):
        read(write_six(tmp_path, build))


def test_attributes_can_not_hide_methods_of_the_dictionary(tmp_path: Path) -> None:
    build = b"}" + text("items") + REBUILD + b"sb"
    program = state_dict(w=tensor(storage(), (6,), (1,)))[:-1] + build + b"."
    assert list(read(write_zip(tmp_path / "x.bin", program, {"0": SIX.tobytes()}))) == ["w"]


def test_extension_codes_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't be unpickled"):
        read(write_six(tmp_path, b"\x82\x01"))


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (b"\x80\x02.", "can't be unpickled"),
        (b"", "can't be unpickled"),
        (b"\x80\x02]q", "can't be unpickled"),
        (b"\x80\x63.", "can't be unpickled: ValueError: unsupported pickle protocol"),
        (b"\x80\x02K\x01.", "holds no state dict, but int"),
        (b"\x80\x02" + storage() + b".", "holds no state dict, but a storage"),
        (b"\x80\x02}K\x01" + tensor(storage(), (6,), (1,)) + b"s.", "`1` is no tensor"),
    ],
)
def test_broken_programs(tmp_path: Path, program: bytes, problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        read(write_zip(tmp_path / "x.bin", program, {"0": SIX.tobytes()}))


def test_compressed_storages_can_not_be_mapped(tmp_path: Path) -> None:
    program = state_dict(w=tensor(storage(), (6,), (1,)))
    path = write_zip(tmp_path / "x.bin", program, {"0": bytes(24)}, stored=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsupportedError, match="`archive/data/0` is compressed"):
        read(path)


@pytest.mark.parametrize("name", ["data.pkl", "byteorder"])
def test_compressed_descriptions_are_not_unpacked(tmp_path: Path, name: str) -> None:
    """A million zeros take a thousand bytes."""
    path = write_zip(tmp_path / "x.bin", state_dict(), {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in (("data.pkl", state_dict()), ("byteorder", b"little")):
            stored = zipfile.ZIP_DEFLATED if each == name else zipfile.ZIP_STORED
            archive.writestr(f"archive/{each}", bytes(10**6) if each == name else content, stored)
    with pytest.raises(UnsupportedError, match=f"`archive/{name}` is compressed"):
        read(path)


@pytest.mark.parametrize("name", ["data.pkl", "byteorder"])
def test_descriptions_of_enormous_size_are_not_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_PICKLE_BYTES", 6)
    order = b"little" * (2 if name == "byteorder" else 1)
    with pytest.raises(CheckpointError, match=f"`archive/{name}` is too large: more than 6 bytes"):
        read(write_zip(tmp_path / "x.bin", state_dict(), {}, order=order))


@pytest.mark.parametrize("program", [b"\x80\x02]r\xff\xff\xff\x01.", b"\x80\x02]r\xff\xff\xff\x7f."])
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_few_bytes_take_little_memory(tmp_path: Path, program: bytes, kind: str) -> None:
    """The index of a memo, for which the unpickler in C makes room: half a gigabyte, or 32."""
    path = write_zip(tmp_path / "x.bin", program, {}) if kind == "zip" else tmp_path / "x.bin"
    if kind == "legacy":
        path.write_bytes(legacy(program, [], []))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="holds no state dict, but list"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.bin", state_dict(), {}, order=b"big")
    with pytest.raises(UnsupportedError, match="byte order"):
        read(path)


def test_another_zip_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"):
        read(tmp_path / "x.bin")


def legacy(program: bytes, keys: list[object], storages: list[tuple[int, bytes]], *, little: bool = True) -> bytes:
    """A file of torch.save before 1.6."""
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system))
    body = b"".join(elements.to_bytes(8, "little") + data for elements, data in storages)
    return head + program + pickle.dumps(keys, 2) + body


def legacy_storage(key: str, elements: int) -> bytes:
    """There the persistent id has a sixth part, a view on another storage: always None since torch 0.4."""
    arguments = items(text("storage"), b"ctorch\nFloatStorage\n", text(key), text("cpu"), number(elements), b"N")
    return arguments + b"Q"


LEGACY = state_dict(a=tensor(legacy_storage("94", 6), (2, 3), (3, 1)), b=tensor(legacy_storage("7", 2), (2,), (1,)))


def test_the_legacy_format(tmp_path: Path) -> None:
    data = legacy(LEGACY, ["7", "94"], [(2, SIX[4:].tobytes()), (6, SIX.tobytes())])
    (tmp_path / "x.bin").write_bytes(data)
    tensors = read(tmp_path / "x.bin")
    np.testing.assert_array_equal(tensors["a"].array(), SIX.reshape(2, 3))
    np.testing.assert_array_equal(tensors["b"].array(), SIX[4:])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (legacy(LEGACY, ["7", "94"], [(2, bytes(8)), (6, bytes(23))]), "cut off: storage `94`"),
        (legacy(LEGACY, ["7", "94"], [(3, bytes(8)), (6, bytes(24))]), "storage `7` has another size"),
        (legacy(LEGACY, ["7"], [(2, bytes(8))]), "the list of storages does not fit"),
        (legacy(LEGACY, [["7"]], []), "the list of storages does not fit"),
        (legacy(LEGACY, [], [], little=False), "not written on a little-endian system"),
        (legacy(b"\x80\x02cos\nsystem\n.", [], []), "wants to load `os.system`"),
        (b"\x80\x02cos\nsystem\n.", "wants to load `os.system`"),
        (pickle.dumps({"w": 1}, 2), "no file of torch.save"),
        (b"./././@LongLink", "no file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_broken_legacy_files(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(StartError, match=problem):
        read(tmp_path / "x.bin")


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_damage_anywhere_gives_an_error_of_ours(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "system")
    monkeypatch.delattr(builtins, "eval")
    path = tmp_path / "x.bin"
    if kind == "zip":
        good = write_zip(path, state_dict(w=tensor(storage(), (2, 3), (3, 1))), {"0": SIX.tobytes()}).read_bytes()
    else:
        good = legacy(LEGACY, ["7", "94"], [(2, SIX[4:].tobytes()), (6, SIX.tobytes())])
    damaged = [good[:size] for size in range(1, len(good), 7)]
    damaged += [good[:i] + bytes([good[i] ^ 0x81]) + good[i + 1 :] for i in range(len(good))]
    for data in damaged:
        path.write_bytes(data)
        try:
            tensors = read(path)
        except StartError:
            continue
        for found in tensors.values():  # what is accepted lies inside the file
            found.array().sum()

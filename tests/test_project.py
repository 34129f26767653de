"""The rules of the repository: which way imports point, what a start may load, sizes, lock files, and no trace of
the machine that a file was written on."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from text_embeddings_inference.machine import has_gpu_driver

ROOT = Path(__file__).parent.parent
PACKAGE = "text_embeddings_inference"
SOURCE = ROOT / "src" / PACKAGE

LEAVES = {"errors", "types"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "machine": set(),
    "process": set(),
    "settings": LEAVES | {"machine"},
    "telemetry": LEAVES,
    "checkpoint": LEAVES,
    "tokenization": LEAVES,
    "ops": LEAVES,
    "nn": LEAVES | {"ops"},
    "models": LEAVES | {"nn", "ops", "checkpoint"},
    "native": LEAVES | {"machine", "ops"},
    "engines": LEAVES | {"machine", "settings", "models", "nn", "native", "ops", "checkpoint"},
    "loading": LEAVES | {"machine", "settings", "tokenization", "engines", "models", "ops", "checkpoint"},
    "queueing": LEAVES | {"settings", "engines", "telemetry"},
    "inference": LEAVES | {"settings", "tokenization", "loading", "queueing", "engines", "telemetry"},
    "server": LEAVES | {"settings", "inference", "queueing", "telemetry"},
    "cli": LEAVES | {"process", "settings", "server", "loading", "inference", "telemetry"},
    "library": LEAVES | {"settings", "loading", "queueing", "inference", "telemetry"},
    "__init__": LEAVES | {"library"},
    "__main__": {"process", "cli"},
}
"""Module or package right below the package -> what it may import of the others."""

ONLY_IN = {
    "openvino": {"ops/openvino_library.py"},
    "torch": {"ops/torch.py", "ops/torch_sequences.py", "engines/torch.py", "engines/transformers.py"},
    "huggingface_hub": {"checkpoint/hub/client.py"},
    "opentelemetry": {"telemetry/otlp.py"},
    "transformers": {"engines/transformers.py"},
    "safetensors": set(),
}
"""Library -> the only files of the package that may import it."""

MOST_LINES = {"function": 50, "class": 250, "file": 600}
"""What can be read at once."""
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".in", ".lua", ".json", ".jsonl", ".yml", ".yaml", ".sh", ".cfg", ""}
FORBIDDEN = ("/" + "work/", "/" + "root/", "pypi" + "-more", "/opt/" + "pypi", "file:" + "///")
"""Places on one machine; each is put together here, so that this file may be searched too."""


@dataclass(frozen=True, slots=True)
class Import:
    """An import: the dotted name, and whether it is carried out when its module is imported."""

    name: str
    line: int
    top_level: bool


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> list[Import]:
    """All imports of a file of the package: relative ones resolved, `from a import b` as `a.b`."""
    package = [PACKAGE, *path.relative_to(SOURCE).parent.parts]
    tree = ast.parse(path.read_text(), str(path))
    in_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        top_level = id(node) not in in_functions
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, top_level) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # What is imported may be a module itself, as in `from . import x`.
            found += [Import(f"{stem}.{alias.name}", node.lineno, top_level) for alias in node.names]
    return found


def part_of(path: Path) -> str:
    """The module or package right below the package that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    problems = []
    for path in sources():
        part = part_of(path)
        assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT what it may import"
        for found in imports(path):
            package, _, rest = found.name.partition(".")
            target = rest.split(".")[0]
            known = target in MAY_IMPORT  # else a name that the package itself exports
            if package == PACKAGE and known and target != part and target not in MAY_IMPORT[part]:
                problems.append(f"{path.relative_to(ROOT)}:{found.line}: {part} may not import {target}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_only_where_it_belongs(library: str) -> None:
    places = {
        path.relative_to(SOURCE).as_posix()
        for path in sources()
        for found in imports(path)
        if found.name.split(".")[0] == library
    }
    assert places <= ONLY_IN[library]


def test_hub_client_is_imported_only_when_something_is_fetched() -> None:
    """checkpoint/hub/client.py may import it at its top, as long as it is itself only imported inside functions."""
    too_early = [
        f"{path.relative_to(ROOT)}:{found.line}"
        for path in sources()
        for found in imports(path)
        if found.top_level and f"{found.name}.".startswith(f"{PACKAGE}.checkpoint.hub.client.")
    ]
    assert not too_early


def loaded_by(program: str) -> set[str]:
    """The modules there are in a fresh interpreter once it has run `program`."""
    program += "\nimport sys; print('LOADED', *(name for name, module in sys.modules.items() if module is not None))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


MODEL = ROOT / "tests" / "fixtures" / "models" / "bert"
IMPORT_SERVER = f"import {PACKAGE}.cli, {PACKAGE}.server.serve"
OPEN = f"""
from {PACKAGE}.loading.open import open_model
from {PACKAGE}.settings import Settings
open_model(Settings.of(model_id={str(MODEL)!r})).engine.close()
"""
LOAD_AS_SERVER = f"""
from {PACKAGE}.inference.model import Model
from {PACKAGE}.loading.load import load_parts
from {PACKAGE}.loading.open import open_model
from {PACKAGE}.settings import Settings
settings = Settings.of(model_id={str(MODEL)!r})
Model(load_parts(open_model(settings)), settings.limits).stop()
"""
ENGINE_ALONE = f"import {PACKAGE}.engines.openvino"
KINDS = f"import {PACKAGE}.engines.registry"
LOAD_IN_PROCESS = f"from {PACKAGE} import load; load({str(MODEL)!r}).embed(['text'])"
HEAVY = {"torch", "transformers", "huggingface_hub", "opentelemetry"}
# `import openvino` brings its converter along, and that a client that reports every import to its maker.
CONVERTER = {"openvino.tools.ovc", "openvino_telemetry"}
needs_no_gpu = pytest.mark.skipif(has_gpu_driver(), reason="there may be a GPU here, which PyTorch is asked about")


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        pytest.param(f"import {PACKAGE}", HEAVY | {"numpy", "openvino", "httptools"}, id="package"),
        pytest.param(f"import {PACKAGE}.cli", HEAVY | {"openvino", "httptools"}, id="command line"),
        pytest.param(IMPORT_SERVER, HEAVY | {"openvino"}, id="server"),
        pytest.param(KINDS, HEAVY | {"openvino", "asyncio"}, id="kinds of engines"),
        pytest.param(ENGINE_ALONE, HEAVY | CONVERTER, id="engine alone"),
        pytest.param(OPEN, HEAVY | CONVERTER | {"asyncio", "tokenizers"}, id="engine", marks=needs_no_gpu),
        pytest.param(LOAD_AS_SERVER, HEAVY | CONVERTER, id="model of the server", marks=needs_no_gpu),
        pytest.param(LOAD_IN_PROCESS, HEAVY | CONVERTER, id="model in process", marks=needs_no_gpu),
    ],
)
def test_not_loaded(program: str, unwanted: set[str]) -> None:
    loaded = loaded_by(program) & unwanted
    assert not loaded


def tracked_files() -> Iterator[Path]:
    """What git knows of this checkout."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            yield ROOT / name


needs_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


@needs_checkout
def test_what_is_read_at_once_is_short() -> None:
    files = [path for path in tracked_files() if path.suffix == ".py" and not path.stem.endswith("_pb2")]
    found = [(path, kind, name, lines) for path in files for kind, name, lines in lengths(path)]
    assert files
    assert not [
        f"{path.relative_to(ROOT)}: {kind} {name}: {lines} lines"
        for path, kind, name, lines in found
        if lines > MOST_LINES[kind]
    ]


def lengths(path: Path) -> Iterator[tuple[str, str, int]]:
    """Kind, name and lines of a file, and of all that it defines."""
    text = path.read_text()
    yield "file", path.name, len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield kind, node.name, (node.end_lineno or 0) - node.lineno + 1


@needs_checkout
def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    problems = []
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                problems += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in FORBIDDEN if word in line]
    assert not problems, "\n".join(problems)


LOCK_FILES = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.name)
def test_lock_file_pins_and_hashes_every_package(path: Path) -> None:
    text = re.sub(r"\\\n\s*", "", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[\w.]+(?: ; [^\\]+?)? *--hash=sha256:[0-9a-f]{64}", line), line
    names = {line.split("==")[0] for line in lines}
    # torch is an extra: which build is right depends on the machine.
    assert not names & {"torch", "openvino-telemetry"}


def test_lock_files_are_there() -> None:
    names = [
        "audit",
        "clients",
        "deploy",
        "docs",
        "model",
        "openvino",
        "peers-infinity",
        "peers-libraries",
        "schema",
        "serve",
        "test",
        "wheels",
        "zig",
    ]
    assert [path.stem for path in LOCK_FILES] == names


def test_every_page_is_in_the_contents() -> None:
    """`make docs` checks links too."""
    listed = re.search(r"```{toctree}\n:hidden:\n\n(.*?)\n```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    assert listed is not None
    assert {"index", *listed[1].split("\n")} == {path.stem for path in (ROOT / "docs").glob("*.md")}

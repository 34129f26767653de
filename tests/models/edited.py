"""Copies of fixture checkpoints with something changed, for tests of what must not start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from oracle.expected import MODELS

Tensors = dict[str, NDArray[Any]]


def edit(
    target: Path,
    name: str,
    *,
    config: dict[str, Any] | None = None,
    remove: tuple[str, ...] = (),
    rename: dict[str, str] | None = None,
    add: dict[str, tuple[int, ...]] | None = None,
) -> Path:
    """The fixture `name`, copied to `target`.

    config: keys put over those of config.json; remove: names of tensors; rename: from the old to the new name of a
    tensor, "" for the part before all names; add: shapes of tensors put over or beside the others.
    """
    shutil.copytree(MODELS / name, target, dirs_exist_ok=True)
    values = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(values | (config or {})))
    if not (remove or rename or add):
        return target  # the weights may be of a type that NumPy does not know
    tensors: Tensors = load_file(target / "model.safetensors")
    for tensor in remove:
        del tensors[tensor]
    for old, new in (rename or {}).items():
        tensors = {new + key.removeprefix(old) if key.startswith(old) else key: x for key, x in tensors.items()}
    for tensor, shape in (add or {}).items():
        tensors[tensor] = np.zeros(shape, np.float32)
    save_file(tensors, target / "model.safetensors")
    return target

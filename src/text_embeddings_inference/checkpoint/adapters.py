"""A PEFT adapter (LoRA, Hu et al., arXiv:2106.09685) in the folder of its base, added to the weights at load.

Format: https://huggingface.co/docs/peft, `adapter_config.json` and `adapter_model.safetensors`. A matrix W becomes
W + B A alpha / r, or alpha / sqrt(r) with `use_rslora` (arXiv:2312.03732).
"""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, UnsupportedError
from .files import DOWNLOAD_AGAIN
from .json_files import describe, read_object, read_optional_object
from .tensors.tensor import Tensor
from .tensors.weights import Weights, open_weight_files

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)

PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
}
"""The values of these keys that mean a plain low-rank sum."""

FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])\.(?:default\.)?weight")


def check_base(folder: Path) -> None:
    """Raises UnsupportedError for a folder that holds an adapter and no model."""
    if (folder / ADAPTER_CONFIG).exists() and not (folder / "config.json").exists():
        base = read_object(folder, ADAPTER_CONFIG).get("base_model_name_or_path")
        problem = f"{folder} holds no model: it is a PEFT adapter of {describe(base)}"
        raise UnsupportedError(problem, hint=f"put {' and '.join(ADAPTER_FILES)} into the folder of that model")


def apply_adapter(folder: Path, weights: Weights) -> Weights:
    """The weights with the adapter in `folder` added, if there is one; else as they are.

    Raises UnsupportedError for another kind of adapter, CheckpointError for one that does not fit the weights.
    """
    config = read_optional_object(folder, ADAPTER_CONFIG)
    if config is None or not len(weights):
        return weights
    for key, plain in PLAIN.items():
        if key in config and config[key] not in plain:
            found = f"`{key}` of `{ADAPTER_CONFIG}` in {folder} is {describe(config[key])}"
            raise UnsupportedError(f"{found}: not supported", hint="merge the adapter (PEFT: merge_and_unload)")
    factors = open_weight_files(folder / ADAPTER_WEIGHTS)
    merged = [_merged(module, config, factors, names, weights) for module, names in _pairs(factors).items()]
    replaced = {tensor.name: tensor for tensor in merged}
    logger.info("The adapter in %s is added to %d matrices", folder, len(replaced))
    return weights.replace(replaced, factors.files)


def _pairs(factors: Weights) -> dict[str, dict[str, str]]:
    """By module the names of its two factors. Raises UnsupportedError for a tensor that is none."""
    found: dict[str, dict[str, str]] = {}
    for name in factors.names():
        match = FACTOR.fullmatch(name)
        if match is None:
            problem = f"tensor `{name}` in {factors.file(name)} is no factor of a linear layer: not supported"
            raise UnsupportedError(problem, hint="merge the adapter (PEFT: merge_and_unload)")
        found.setdefault(match["module"], {})[match["factor"]] = name
    for module, names in found.items():
        if len(names) < 2:
            [only] = names.values()
            raise CheckpointError(f"the adapter has one factor of `{module}`: {only}", hint=DOWNLOAD_AGAIN)
    return found


def _merged(module: str, config: dict[str, Any], factors: Weights, names: dict[str, str], weights: Weights) -> Tensor:
    name = _base_tensor(module, factors.file(names["A"]), weights)
    a, b, base = factors.array(names["A"]), factors.array(names["B"]), weights.array(name)
    if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1] or (len(b), a.shape[1]) != base.shape:
        problem = f"the adapter's factors of `{module}` have shapes {b.shape} and {a.shape}, its tensor {base.shape}"
        raise CheckpointError(problem, hint="the adapter is of another model")
    scaled = b * np.float32(_alpha(module, config) / (math.sqrt(len(a)) if config.get("use_rslora") else len(a)))
    return Tensor(weights.file(name), name, "F32", base + scaled @ a)


def _alpha(module: str, config: dict[str, Any]) -> float:
    """`alpha_pattern` names the ends of modules; `lora_alpha` is for all others."""
    pattern, alpha = config.get("alpha_pattern") or {}, config.get("lora_alpha", 8)
    for key, value in pattern.items() if isinstance(pattern, dict) else ():
        if re.fullmatch(rf"(.*\.)?({key})", module):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise CheckpointError(f"`{ADAPTER_CONFIG}`: `lora_alpha` should be a number, is {describe(alpha)}")
    return float(alpha)


def _base_tensor(module: str, file: Path, weights: Weights) -> str:
    """The tensor that the module has in the weights, whose names may begin otherwise."""
    parts = module.split(".")
    for begin in range(len(parts)):
        name = ".".join((*parts[begin:], "weight"))
        if name in weights:
            return name
    longer = [name for name in weights.names() if name.endswith(f".{module}.weight")]
    if len(longer) != 1:
        problem = f"the adapter {file} is for a layer `{module}`, which the weights do not have"
        raise CheckpointError(problem, hint="the adapter is of another model")
    return longer[0]

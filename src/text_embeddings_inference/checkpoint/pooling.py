"""How a checkpoint pools: the `--pooling` option, else the Pooling module's file, else what its model type suggests."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnsupportedError
from ..types import Pooling
from .json_files import Found, describe, read_object
from .modules import ModulePaths

logger = logging.getLogger(__name__)

DEFAULT_PATH = "1_Pooling"

# Keys of the file, in the order in which sentence-transformers concatenates them.
MODE_KEYS = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_max_tokens": Pooling.MAX,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": Pooling.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": Pooling.LAST_TOKEN,
}

# Values of the one key `pooling_mode`, which sentence-transformers writes from 5.4 on.
MODE_NAMES = {
    "cls": Pooling.CLS,
    "max": Pooling.MAX,
    "mean": Pooling.MEAN,
    "mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "weightedmean": Pooling.WEIGHTED_MEAN,
    "lasttoken": Pooling.LAST_TOKEN,
}


SPLADE_FORMS = {
    ("max", "relu"): Pooling.SPLADE,
    ("max", "log1p_relu"): Pooling.SPLADE_LOG1P,
    ("sum", "relu"): Pooling.SPLADE_SUM,
    ("sum", "log1p_relu"): Pooling.SPLADE_SUM_LOG1P,
}
"""By `pooling_strategy` and `activation_function` of a SpladePooling module."""


def read_pooling(folder: Path, modules: ModulePaths, model_type: str) -> Found[Pooling]:
    """The pooling of an embedding model without a `--pooling` option.

    Raises `CheckpointError` when it is not known or its file is damaged, `UnsupportedError` for several modes at once.
    """
    if modules.splade is not None:
        return Found(Pooling.SPLADE, f"{modules.splade}/config.json")
    path = modules.pooling if modules.pooling is not None else DEFAULT_PATH
    name = f"{path}/config.json" if path else "config.json"
    if modules.pooling is not None or (folder / name).exists():
        return Found(_read_file(folder, name), name)
    if "bert" not in model_type.lower():
        raise CheckpointError(
            "The `--pooling` arg is not set and we could not find a pooling configuration "
            f"(`{DEFAULT_PATH}/config.json`) for this model.",
            hint="give `--pooling`: cls, mean, last-token or splade; the model's card says which it was trained with",
        )
    logger.warning("No pooling configuration (`%s`) found: using `cls`", name)
    return Found(Pooling.CLS, f"the rule for models without a pooling configuration (`{name}`)")


def read_splade(folder: Path, modules: ModulePaths) -> Pooling:
    """The form of SPLADE that the SpladePooling module asks for; without one `SPLADE`.

    Raises `UnsupportedError` for a strategy or an activation that sentence-transformers does not have either.
    """
    if modules.splade is None:
        return Pooling.SPLADE
    name = f"{modules.splade}/config.json"
    values = read_object(folder, name)
    chosen = []
    for key, known in (("pooling_strategy", ("max", "sum")), ("activation_function", ("relu", "log1p_relu"))):
        value = values.get(key, known[0])
        if value not in known:
            problem = f"`{key}` of `{name}` in {folder} is {describe(value)}: not supported"
            raise UnsupportedError(problem, hint=f"supported: {', '.join(known)}")
        chosen.append(value)
    return SPLADE_FORMS[chosen[0], chosen[1]]


def _read_file(folder: Path, name: str) -> Pooling:
    values = read_object(folder, name)
    modes = (
        _named_modes(folder, name, values["pooling_mode"])
        if "pooling_mode" in values
        else _flagged(folder, name, values)
    )
    if not modes:
        raise CheckpointError(
            f"Pooling config `{name}` in {folder} is not supported: no mode is set", hint="give `--pooling`"
        )
    if len(modes) > 1:
        problem = f"Pooling config `{name}` in {folder} is not supported: several modes at once ({', '.join(modes)})"
        raise UnsupportedError(problem, hint="`--pooling` chooses one of them, but the vectors will be others")
    if values.get("include_prompt") is False:
        logger.warning("`include_prompt` of `%s` is false, but prompts are pooled with the text", name)
    return modes[0]


def _flagged(folder: Path, name: str, values: dict[str, Any]) -> list[Pooling]:
    for key in MODE_KEYS:
        if not isinstance(values.get(key, False), bool):
            problem = f"`{key}` should be true or false, is {describe(values[key])}"
            raise CheckpointError(f"Failed to parse `{name}` in {folder}: {problem}")
    return [mode for key, mode in MODE_KEYS.items() if values.get(key, False)]


def _named_modes(folder: Path, name: str, value: Any) -> list[Pooling]:
    names = value if isinstance(value, list) else [value]
    for mode in names:
        if not isinstance(mode, str) or mode not in MODE_NAMES:
            problem = f"Pooling config `{name}` in {folder} is not supported: `pooling_mode` is {describe(value)}"
            raise UnsupportedError(problem, hint=f"supported: {', '.join(MODE_NAMES)}")
    return [MODE_NAMES[mode] for mode in names]

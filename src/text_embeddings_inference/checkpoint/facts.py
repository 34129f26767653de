"""What the rest of the package must know of a checkpoint's architecture, without knowing the architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one architecture, for one config.json; `models.build.facts_of` tells them."""

    first_position: int | None
    """The row of a text's first token in the model's table of positions, which limits the length of texts; None for a
    model without a table."""
    file: str | None = None
    """The model file for it, by its name; None: there is none."""
    reason: str = ""
    """What in config.json led to that file."""
    quantizes: bool = False
    """Whether the model itself quantizes its vectors, as FlexibleQuantizer of modules.json asks."""
    overflows_float16: bool = False
    """Whether its hidden states outgrow float16."""
    end_of_text: str = ""
    """The token that its own code puts after each text and its tokenizer.json does not; "": none."""


FactsOf = Callable[[str, dict[str, Any]], Facts]
"""From `model_type` and config.json."""

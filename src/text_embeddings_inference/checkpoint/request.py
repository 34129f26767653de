"""What is asked of a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..types import Pooling
from .facts import FactsOf
from .modules import ModulePaths
from .tensors.weights import Weights


@dataclass(frozen=True, slots=True)
class Request:
    """Which checkpoint is opened, and how."""

    folder: Path
    facts_of: FactsOf
    """Tells what must be known of the architecture."""

    pooling: Pooling | None = None
    """The option `--pooling`."""

    dense_path: str | None = None
    """The option `--dense-path`."""

    onnx_file: str | None = None
    """The option `--onnx-file`."""

    rerank_template: str | None = None
    """The option `--rerank-template`."""

    rerank_answers: str | None = None
    """The option `--rerank-answers`."""

    weights: Weights | None = None
    """In place of those in the folder."""

    linked: Path | None = None
    """Another folder that links in this one may lead to."""

    modules: ModulePaths | None = None
    """One of the sides of a Router; None: what the folder's files say."""

"""OpenVINO's package, imported without its converter, which would import a client that reports to its maker.

Takes 70 ms from a start, too. Every other module takes OpenVINO from here. A process that has imported the converter
already keeps it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Refuses the import of `module`, unless that was done before: OpenVINO goes on without it."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


with _without("openvino.tools.ovc"):
    import openvino as ov
    from openvino import opset15 as op

__all__ = ["op", "ov"]

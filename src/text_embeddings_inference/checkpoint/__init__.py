"""What lies on disk or on the Hub: where a model is, what its files say, and its weights."""

from .cache import HubAccess
from .checkpoint import Checkpoint, open_checkpoint
from .locate import locate
from .modules import Dense
from .onnx import OnnxGraph
from .previews import File, Preview, preview
from .weights import Weights, open_weights

__all__ = [
    "Checkpoint",
    "Dense",
    "File",
    "HubAccess",
    "OnnxGraph",
    "Preview",
    "Weights",
    "locate",
    "open_checkpoint",
    "open_weights",
    "preview",
]

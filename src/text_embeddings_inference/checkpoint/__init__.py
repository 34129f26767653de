"""What lies on disk or on the Hub: where a model is, what its files say, and its weights."""

from .checkpoint import Checkpoint
from .facts import Facts
from .findings import Findings, examine_checkpoint, open_checkpoint
from .hub.cache import HubAccess, expand
from .hub.locate import locate
from .hub.preview import File, Preview, preview
from .late_interaction import PROJECTION
from .modules import Dense, Router, Static
from .onnx import OnnxGraph
from .request import Request
from .reranking import ChatTemplate, Reranking
from .static import UNLIMITED
from .tensors.tensor import MappedFile
from .tensors.weights import StoredWeights, Weights, open_weights

__all__ = [
    "PROJECTION",
    "UNLIMITED",
    "ChatTemplate",
    "Checkpoint",
    "Dense",
    "Facts",
    "File",
    "Findings",
    "HubAccess",
    "MappedFile",
    "OnnxGraph",
    "Preview",
    "Request",
    "Reranking",
    "Router",
    "Static",
    "StoredWeights",
    "Weights",
    "examine_checkpoint",
    "expand",
    "locate",
    "open_checkpoint",
    "open_weights",
    "preview",
]

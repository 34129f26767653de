"""Every setting, each written once: flag, environment variable, default, unit and help text; sorted by what it sets."""

from .engine import EngineOptions
from .hub import HubOptions
from .limits import BatchLimits, Limits
from .model import ModelOptions
from .server import ServerOptions
from .settings import CONTRACT_VERSION, PROGRAM, Settings, command_line, hub_variables
from .telemetry import TelemetryOptions

__all__ = [
    "CONTRACT_VERSION",
    "PROGRAM",
    "BatchLimits",
    "EngineOptions",
    "HubOptions",
    "Limits",
    "ModelOptions",
    "ServerOptions",
    "Settings",
    "TelemetryOptions",
    "command_line",
    "hub_variables",
]

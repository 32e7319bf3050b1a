"""The plugin host: descriptions, hooks, selection by name."""

from pymicro.plugins._build import TLS, Build, Identity, Limits, ServiceView
from pymicro.plugins._host import enable
from pymicro.plugins._plugin import API_VERSION, NoOptions, Plugin, hookimpl

__all__ = [
    "API_VERSION",
    "TLS",
    "Build",
    "Identity",
    "Limits",
    "NoOptions",
    "Plugin",
    "ServiceView",
    "enable",
    "hookimpl",
]

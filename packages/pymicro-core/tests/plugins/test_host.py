from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import msgspec
import pytest
from pymicro.errors import (
    ConfigurationError,
    InvalidHandler,
    PluginConflict,
    PluginFailed,
    PluginIncompatible,
    UnknownPlugin,
)
from pymicro.plugins import Plugin, enable, hookimpl
from pymicro.plugins._host import Host, load
from pymicro.plugins._kinds import KINDS
from pymicro.plugins._official import OFFICIAL

from conftest import Site, hook, plugin

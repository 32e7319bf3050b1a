"""Selectors: which node serves the next attempt."""

from pymicro.selector._contract import Selector
from pymicro.selector._filters import endpoint, label, version
from pymicro.selector._registry import RegistrySelector, RegistrySelectorOptions
from pymicro.selector._types import Candidate, Filter, Outcome, Pick, Strategy

__all__ = [
    "Candidate",
    "Filter",
    "Outcome",
    "Pick",
    "RegistrySelector",
    "RegistrySelectorOptions",
    "Selector",
    "Strategy",
    "endpoint",
    "label",
    "version",
]

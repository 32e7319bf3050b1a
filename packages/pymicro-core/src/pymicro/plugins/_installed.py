"""Which plugins are installed, read from the metadata of distributions without importing any of them."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from pymicro.plugins._entry_points import entry_points

GROUP: Final = "pymicro.plugins"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """An entry point: one distribution says that it has a plugin.

    Attributes:
        kind, name: the plugin's.
        module: the module with the hook.
        distribution: who says so, with its version.
    """

    kind: str
    name: str
    module: str
    distribution: str


def normalise(name: str) -> str:
    """A plugin's name as it is registered: people may write dashes."""
    return name.strip().replace("-", "_")


def offers(kind: str, name: str) -> Sequence[Offer]:
    """Every distribution's offer of one plugin; more than one is a conflict."""
    return _scan(tuple(sys.path)).get((kind, name), ())


def installed_names(kind: str) -> list[str]:
    """The names of one kind that installed distributions offer."""
    return [name for of, name in _scan(tuple(sys.path)) if of == kind]


def rescan() -> None:
    """Look again: something may have been installed while this process ran."""
    importlib.invalidate_caches()
    _scan.cache_clear()


def origin(module: str) -> str:
    """The distribution that offers a module, or the module itself, for error texts."""
    found = (offer for group in _scan(tuple(sys.path)).values() for offer in group if offer.module == module)
    offer = next(found, None)
    return f"{offer.distribution} ({module})" if offer else f"module {module}"


def missing_requirements(package: str) -> list[str]:
    """What the distribution that offers a plugin of `package` asks for and is not installed.

    Requirements that hold under conditions only are left out.
    """
    import importlib.metadata

    for group in _scan(tuple(sys.path)).values():
        for offer in group:
            if offer.module.partition(".")[0] == package:
                requires = importlib.metadata.requires(offer.distribution.partition(" ")[0]) or []
                names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in requires if ";" not in text]
                return [name for name in names if not _is_installed(name)]
    return []


def _is_installed(distribution: str) -> bool:
    import importlib.metadata

    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@functools.lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> Mapping[tuple[str, str], tuple[Offer, ...]]:
    """All offers by kind and name."""
    found: dict[tuple[str, str], tuple[Offer, ...]] = {}
    for point in entry_points(GROUP, path):
        kind, _, name = point.name.partition(".")
        key = kind, normalise(name)
        offer = Offer(kind=kind, name=key[1], module=point.module, distribution=point.distribution)
        found[key] = (*found.get(key, ()), offer)
    return found

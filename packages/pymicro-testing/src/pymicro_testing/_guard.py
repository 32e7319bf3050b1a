"""What keeps the kit honest: nobody drops a case quietly, and a new case warns before it fails."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

#: The kit's version as (major, minor); a test compares it with the distribution's.
KIT_VERSION: Final = (0, 1)
_FIRST_VERSION: Final = (0, 1)
_SINCE: Final = "__pymicro_since__"

Case = TypeVar("Case", bound=Callable[..., Awaitable[None]])


class NewCaseWarning(UserWarning):
    """A case that is new in this minor version of the kit failed. In the next one the failure will count."""


def since(version: str, *, kit: tuple[int, int] = KIT_VERSION) -> Callable[[Case], Case]:
    """Mark a method as a case of the kit, there since `version` (`"<major>.<minor>"`).

    While `kit` is that very version, a failure is a `NewCaseWarning` only, so that a release of the kit breaks
    nobody's plugin on the day it comes out. The cases of the kit's first version count at once.
    """
    major, _, minor = version.partition(".")
    introduced = int(major), int(minor)

    def mark(case: Case) -> Case:
        marked = _warning(case, version) if introduced == kit and introduced != _FIRST_VERSION else case
        setattr(marked, _SINCE, version)
        return marked

    return mark


def _warning(case: Case, version: str) -> Case:
    @functools.wraps(case)
    async def warned(*args: Any, **kwargs: Any) -> None:
        try:
            await case(*args, **kwargs)
        except Exception as error:
            text = f"{case.__qualname__} is new in kit {version} and fails; it will count in the next minor: {error!r}"
            warnings.warn(NewCaseWarning(text), stacklevel=2)

    return warned  # type: ignore[return-value]  # same signature, as wraps says


class Weakened(TypeError):
    """A subclass drops, replaces or skips a case of the kit."""


def check(cls: type) -> None:
    """Raise `Weakened` unless `cls` runs every case that it inherits from the kit.

    A case may be overridden only by one that is marked `xfail(strict=True, reason="...")`.
    """
    complaints = [*_skipped(cls, cls.__qualname__)]
    for name, case in _cases(cls).items():
        found = inspect.getattr_static(cls, name, None)
        if found is not case and not _expected_failure(found):
            complaints.append(f"{cls.__qualname__}.{name} replaces a case of the kit")
        complaints += _skipped(found, f"{cls.__qualname__}.{name}")
    if complaints:
        raise Weakened(
            "; ".join(complaints) + ": a case may only be overridden by one marked "
            "@pytest.mark.xfail(strict=True, reason=...) that awaits the original"
        )


def _cases(cls: type) -> dict[str, Any]:
    """The kit's own functions by name. The one furthest up is the original."""
    return {name: thing for base in cls.__mro__ for name, thing in vars(base).items() if hasattr(thing, _SINCE)}


def _marks(thing: Any) -> Iterator[Any]:
    marks = getattr(thing, "pytestmark", [])
    yield from marks if isinstance(marks, list) else [marks]


def _expected_failure(thing: Any) -> bool:
    return callable(thing) and any(
        mark.name == "xfail" and mark.kwargs.get("strict") is True and mark.kwargs.get("reason")
        for mark in _marks(thing)
    )


def _skipped(thing: Any, name: str) -> Iterator[str]:
    for mark in _marks(thing):
        if mark.name in ("skip", "skipif"):
            yield f"{name} is skipped"
        elif mark.name == "xfail" and not (mark.kwargs.get("strict") is True and mark.kwargs.get("reason")):
            yield f"{name} is expected to fail without strict=True and a reason"

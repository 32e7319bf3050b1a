"""Which flags to look at when a backend refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pymicro.errors import BackendRefused
from pymicro.plugins._kinds import KINDS
from pymicro.settings._choices import Choice
from pymicro.settings._table import plugin_group

_USER = "username"


def advice(error: BaseException, choices: Iterable[Choice]) -> str:
    """The backends at the address that refused, each with the flags that say where it is and who asks.

    Empty for errors that are no refusal, nor caused by one. Choices without an address are meant if none has this one:
    then it is a plugin's own default.
    """
    refused = _refusal(error)
    if refused is None:
        return ""
    asked = [choice for choice in choices if choice.plugin is not None and KINDS[choice.kind].addressed]
    at_address = [choice for choice in asked if any(refused.address in each for each in choice.addresses)]
    found = (at_address if refused.address else []) or [choice for choice in asked if not choice.addresses]
    return "; ".join(text for choice in found if (text := _flags(choice)))


def _refusal(error: BaseException | None) -> BackendRefused | None:
    seen: set[int] = set()  # causes may go in a circle
    while error is not None and not isinstance(error, BackendRefused):
        if id(error) in seen:
            return None
        seen.add(id(error))
        error = error.__cause__
    return error


def _flags(choice: Choice) -> str:
    """Empty for a plugin without credentials."""
    names = list(_credentials(choice))
    flags = ", ".join(f"--{name}" for name in (f"{choice.kind}_address", *names))
    return f"{choice.label} {choice.name}: see {flags}" if names else ""


def _credentials(choice: Choice) -> Iterator[str]:
    assert choice.plugin is not None
    options = plugin_group(choice.plugin).options
    if any(option.secret for option in options):
        yield from (option.flag for option in options if option.secret or option.flag.endswith(_USER))

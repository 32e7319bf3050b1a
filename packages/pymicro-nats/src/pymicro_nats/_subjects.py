"""What a subject may be."""

from __future__ import annotations

import functools
import re
from typing import Final

from pymicro.errors import ConfigurationError

#: What no subject may have, and `$`, under which the server's own subjects are.
_UNFIT: Final = re.compile(r"[\s\0*>]|^\$|^\.|\.\.|\.$|^$")


@functools.lru_cache(maxsize=1024)
def check_subject(text: str, what: str) -> None:
    """Refuse what cannot be a subject, or would be another one.

    Args:
        text: the subject.
        what: what it is to the user, for the error.

    Raises:
        ConfigurationError: it says what a subject may be.
    """
    if _UNFIT.search(text):
        raise ConfigurationError(
            f"{what} {text!r} cannot be a NATS subject: no spaces, no '*' or '>', no empty part between dots, "
            "and no '$' at its beginning"
        )

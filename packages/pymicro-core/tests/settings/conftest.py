from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pytest

from pymicro.settings import Settings

#: What is installed beside the core makes no difference to these tests.
MEMORY = {"transport": "memory", "registry": "memory", "broker": "memory"}


class Resolve(Protocol):
    """Resolve settings from keywords, and the other sources by name."""

    def __call__(
        self,
        *argv: str,
        environ: Mapping[str, str] = ...,
        overrides: Mapping[str, Any] = ...,
        flags: type[Any] | None = ...,
        **keywords: Any,
    ) -> Settings: ...


@pytest.fixture
def resolve() -> Resolve:
    def run(
        *argv: str,
        environ: Mapping[str, str] = {},
        overrides: Mapping[str, Any] = {},
        flags: type[Any] | None = None,
        **keywords: Any,
    ) -> Settings:
        arguments: Sequence[str] = argv
        return Settings.resolve(
            keywords={**MEMORY, **keywords}, environ=environ, argv=arguments, overrides=overrides, flags=flags
        )

    return run

"""What a plugin says of itself, and the hooks by which it says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pluggy

if TYPE_CHECKING:
    from pymicro.plugins._build import ServiceView

#: Version of the plugin API as (major, minor). A plugin built for another major one is refused; a newer minor too.
API_VERSION: Final = (1, 0)

hookspec = pluggy.HookspecMarker("pymicro")
hookimpl = pluggy.HookimplMarker("pymicro")


class NoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a plugin that has none."""


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    """The description of one implementation of one contract. Making it imports nothing and opens nothing.

    Attributes:
        kind: the contract: `registry`, `transport`, `codec`, `broker`, ...
        name: what users write in a flag: lower case, `[a-z0-9_]+`, fixed for ever.
        api: the version of the plugin API that it was written for, as (major, minor).
        target: `package.module:Class`, imported when the plugin is chosen. It is called as `Class(options, build)`.
        options: a frozen `msgspec.Struct` type; each field becomes a flag, an environment variable, a line of help.
        requires: kinds that must be open before this one, and are closed after it.
        aliases: other names for it, such as Go Micro's.
        content_types: for codecs, the content types it reads and writes; the first is its own.
    """

    kind: str
    name: str
    api: tuple[int, int]
    target: str
    options: type[Any] = NoOptions
    requires: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    content_types: tuple[str, ...] = ()


class Hooks:
    """The hook specifications. Implementations are plain functions marked with `hookimpl`."""

    @hookspec
    def pymicro_plugins(self) -> Sequence[Plugin]:  # type: ignore[empty-body]  # a specification has no body
        """Describe the plugins of this module.

        Called once, when the module is enabled or chosen. It must do nothing but return descriptions.
        """

    @hookspec
    def pymicro_configure(self, service: ServiceView) -> None:
        """Add middleware, health checks or endpoints to a service that is being composed.

        Called once for each service, before it starts, for plugins that were chosen or enabled by import.
        """

"""Headers: the string map that travels with every message."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import Any, Final

#: Names that a message carries again and again, so that they are lowered and decoded once.
_KNOWN: Final[dict[bytes, str]] = {}


_known = _KNOWN.__getitem__
_text = bytes.decode


def _lower(name: bytes) -> str:
    known = _KNOWN.get(name)
    if known is None:
        known = name.decode("latin-1").lower()
        if len(_KNOWN) < 1024:  # a peer chooses the names: bound what is kept
            _KNOWN[name] = known
    return known


def _decoded(raw: dict[bytes, bytes]) -> dict[str, str]:
    """Values by lower-case name, the first of several."""
    try:
        return dict(zip(map(_known, reversed(raw)), map(_text, reversed(raw.values())), strict=True))
    except (KeyError, UnicodeDecodeError):
        return {_lower(name): value.decode("utf-8", "replace") for name, value in reversed(raw.items())}


class Headers(Mapping[str, str]):
    """Immutable string map with case-insensitive names that keeps their spelling.

    The first of several values of one name is seen, as Go's servers see it. `extend` is cheap: the result refers to
    the original, so a caller that prepares constant headers once pays per message only for what changes.

    Args:
        fields: a mapping, or pairs of name and value.
    """

    __slots__ = ("_base", "_fields", "_index", "_raw", "wire")

    #: A transport's encoded form of these headers, kept for headers that are sent many times; None until then.
    wire: Any

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._base: Headers | None = None
        self._raw: dict[bytes, bytes] | None = None
        if type(fields) is dict or isinstance(fields, Mapping):  # the second question is slow
            fields = fields.items()
        self._fields = tuple(fields)
        self._index: dict[str, str] | None = None
        self.wire = None

    @classmethod
    def from_raw(cls, raw: dict[bytes, bytes]) -> Headers:
        """Headers over undecoded names and values, in their order; `raw` must not be changed afterwards.

        Values are decoded as UTF-8, bad bytes replaced, when one of them is first looked at.
        """
        self = cls.__new__(cls)
        self._base = None
        self._raw = raw
        self._fields = ()
        self._index = None
        self.wire = None
        return self

    def extend(self, fields: tuple[tuple[str, str], ...]) -> Headers:
        """These headers with `fields` on top; a name that exists already is replaced.

        Names new to the headers cost nothing but the tuple: `base` and `added` then give a transport the two parts.
        """
        index = self._index_of()
        for name, _ in fields:
            if name.lower() in index:
                return self._replace(fields)
        return self.add(fields)

    def add(self, fields: tuple[tuple[str, str], ...]) -> Headers:
        """As `extend`, for a caller that knows that none of the names is among these headers. Checks nothing."""
        if self._base is not None or self._raw is not None:
            return self._replace(fields)
        new = Headers.__new__(Headers)
        new._base = self
        new._raw = None
        new._fields = fields
        new._index = None
        new.wire = None
        return new

    def _replace(self, fields: tuple[tuple[str, str], ...]) -> Headers:
        replaced = {name.lower() for name, _ in fields}
        return Headers([*((k, v) for k, v in self.items() if k.lower() not in replaced), *fields])

    def without(self, *names: str) -> Headers:
        """These headers without `names`."""
        dropped = {name.lower() for name in names}
        return Headers([(name, value) for name, value in self.items() if name.lower() not in dropped])

    @property
    def base(self) -> Headers | None:
        """The headers that these extend, or None."""
        return self._base

    @property
    def added(self) -> tuple[tuple[str, str], ...]:
        """The pairs on top of `base`; all pairs when there is no base."""
        return self._fields if self._raw is None else tuple(self.items())

    @property
    def lowered(self) -> dict[str, str]:
        """Values by lower-case name: what the call path reads. Not to be changed."""
        index = self._index
        return self._index_of() if index is None else index

    def _index_of(self) -> dict[str, str]:
        index = self._index
        if index is None:
            if self._raw is not None:
                index = _decoded(self._raw)
            else:
                index = {name.lower(): value for name, value in reversed(self._fields)}
                if self._base is not None:
                    index = {**self._base.lowered, **index}
            self._index = index
        return index

    def __getitem__(self, name: str) -> str:
        return self._index_of()[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._index_of()

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for name in self._names():
            lower = name.lower()
            if lower not in seen:
                seen.add(lower)
                yield name

    def _names(self) -> Iterator[str]:
        if self._raw is not None:
            yield from (name.decode("latin-1") for name in self._raw)
            return
        if self._base is not None:
            yield from self._base
        yield from (name for name, _ in self._fields)

    def items(self) -> ItemsView[str, str]:
        """Names as they are spelled, with their values."""
        return _Items(self)

    def _pairs(self) -> Iterable[tuple[str, str]]:
        index = self._index_of()
        if self._raw is None:
            pairs = self._fields if self._base is None else (*self._base._pairs(), *self._fields)
            if len(pairs) == len(index):  # no name is there twice
                return pairs
        return [(name, index[name.lower()]) for name in self]

    def __len__(self) -> int:
        return len(self._index_of())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return self._index_of() == other._index_of()
        if isinstance(other, Mapping):
            return self._index_of() == {str(name).lower(): value for name, value in other.items()}
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # equal to plain mappings, which have no hash either

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


class _Items(ItemsView[str, str]):
    """Goes through the pairs; the general view looks up each name."""

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._headers = headers

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._headers._pairs())


EMPTY: Final = Headers()

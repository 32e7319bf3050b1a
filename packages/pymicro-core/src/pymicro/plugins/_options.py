"""Options declared once, as fields of a Struct: the source of flags, environment variables, help and reference."""

from __future__ import annotations

import enum
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

from pymicro.errors import ConfigurationError
from pymicro.plugins._values import format_duration, format_size, parse_duration, parse_number, parse_size

#: What stands where a secret would be shown.
MASK: Final = "***"

_PASSWORD: Final = r"(://[^:/@\s]*:)\S*@"
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_LISTS: Final = (tuple, list, frozenset, set, Sequence)
_MAPS: Final = (dict, Mapping)


def option(
    help: str,
    *,
    unit: str | None = None,
    secret: bool = False,
    flag: str | None = None,
    env: str | None = None,
    **constraints: Any,
) -> msgspec.Meta:
    """Make a Struct field an option: `refresh: Annotated[float, option("How often.", unit="seconds")] = 5.0`.

    A field without it is no flag and can be set in code only. Fields are of type `bool`, `int`, `float`, `str`,
    `Literal[...]`, an `Enum`, a tuple, list or set of those, a `dict[str, ...]` of those, or any of them `| None`.

    Args:
        help: one sentence for `--help`.
        unit: what is counted. `"seconds"` also reads durations (`5s`, `1m30s`, `100ms`), `"bytes"` also sizes
            (`64k`, `4MiB`), and neither may be negative; any other text is shown only.
        secret: never shown: not in logs, help, errors or provenance.
        flag: the whole name of the flag, without dashes; None for prefix and field name.
        env: the whole name of the environment variable; None for `MICRO_` and the flag in upper case.
        constraints: `ge`, `gt`, `le`, `lt`, `pattern`, `min_length`, ... as `msgspec.Meta` has them.
    """
    own = {"unit": unit, "secret": secret, "flag": flag, "env": env}
    return msgspec.Meta(description=help, extra=own, **constraints)


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option, as users see it.

    Attributes:
        field: its name in the Struct.
        flag: its flag, without dashes; also the keyword in code.
        env: its environment variable; empty for none.
        help: one sentence.
        unit: what is counted; empty for nothing.
        secret: whether the value may not be shown.
        required: whether it has no default.
        default: the value when nobody gives one; None too when it is required.
        type: the field's type, without `None` and annotations.
        optional: whether None is a value.
        constraints: the annotations that bound it.
        called: what a value is called, where its type does not say.
    """

    field: str
    flag: str
    env: str
    help: str
    unit: str
    secret: bool
    required: bool
    default: Any
    type: Any
    optional: bool
    constraints: tuple[msgspec.Meta, ...] = ()
    called: str = ""

    @property
    def is_switch(self) -> bool:
        """Whether the flag may stand without a value."""
        return self.type is bool

    @property
    def is_list(self) -> bool:
        """Whether several values may be given: repeated flags add to it."""
        return _origin(self.type) in _LISTS

    @property
    def is_map(self) -> bool:
        """Whether `key=value` pairs are given: repeated flags and several sources add to it."""
        return _origin(self.type) in _MAPS

    @property
    def type_text(self) -> str:
        """The type in one word: `text`, `duration`, `list of text`, `a|b`."""
        return self.called or _name(self.type, self.unit)

    @property
    def unit_text(self) -> str:
        """The unit as a sentence, where the type does not imply it; empty for none."""
        return f"In {self.unit}." if self.unit not in ("", "seconds", "bytes") else ""

    @property
    def default_text(self) -> str:
        """The default as it would be written; empty for none."""
        return "" if self.required or self.default is None else self.show(self.default)

    @property
    def expected(self) -> str:
        """What a value has to be, for errors."""
        bounds = [text for meta in self.constraints for text in _bounds(meta, lambda bound: _show(bound, self.unit))]
        return ", ".join([f"a {self.called}" if self.called else _expectation(self.type, self.unit), *bounds])

    def show(self, value: Any) -> str:
        """A value as it would be written, for people; secrets and passwords in URLs are masked."""
        return MASK if self.secret and value else _show(value, self.unit)

    def read(self, value: Any) -> Any:
        """The field's value from text, or from a Python value of about the right type.

        Empty text is None for a field that can be None.

        Raises:
            ValueError: it does not fit; `expected` says what would.
        """
        if self.optional and (value is None or value == ""):
            return None
        parsed = _parse(value, self.type, self.unit) if isinstance(value, str) else _plain(value)
        if self.unit in ("seconds", "bytes") and isinstance(parsed, (int, float)) and parsed < 0:
            raise ValueError(value)
        try:
            return msgspec.convert(parsed, Annotated[(self.type, *self.constraints)] if self.constraints else self.type)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error


def describe_options(struct: type[Any], prefix: str = "", *, environment: bool = True) -> tuple[Option, ...]:
    """The options of a Struct, in the order of its fields.

    Args:
        struct: the Struct; only fields with `option(...)` count.
        prefix: stands before each flag that does not name its own.
        environment: whether fields that do not name an environment variable have one.

    Raises:
        ConfigurationError: a field cannot be given as text, or its default does not fit.
    """
    options = []
    try:
        fields = msgspec.structs.fields(struct)
    except (TypeError, NameError) as error:
        raise ConfigurationError(f"{struct!r} is no msgspec.Struct with options: {error}") from error
    for field in fields:
        own = next((meta for meta in _metas(field.type) if meta.extra and "secret" in meta.extra), None)
        if own is None:
            continue
        try:
            options.append(_describe(field, own, prefix, environment))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{struct.__qualname__}.{field.name} cannot be an option: {error}") from error
    return tuple(options)


def hide_passwords(text: str) -> str:
    """`text`, such as a URL, with the password in it masked: rather too much of it than too little."""
    return re.sub(_PASSWORD, rf"\1{MASK}@", text) if "://" in text else text


def _describe(field: msgspec.structs.FieldInfo, own: msgspec.Meta, prefix: str, environment: bool) -> Option:
    extra = own.extra or {}
    flag = extra["flag"] or prefix + field.name
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    inner, optional = _inner(field.type)
    _check_type(inner)
    described = Option(
        field=field.name,
        flag=flag,
        env=extra["env"] or (f"MICRO_{flag.upper()}" if environment else ""),
        help=own.description or "",
        unit=extra["unit"] or "",
        secret=extra["secret"],
        required=default is msgspec.NODEFAULT,
        default=None if default is msgspec.NODEFAULT else default,
        type=inner,
        optional=optional,
        constraints=_metas(field.type),
    )
    if not described.required:
        described.read(default)
    return described


def _metas(annotation: Any) -> tuple[msgspec.Meta, ...]:
    """The annotations of a type, looking through `| None`."""
    if get_origin(annotation) is Annotated:
        inner, *metas = get_args(annotation)
        return (*_metas(inner), *(meta for meta in metas if isinstance(meta, msgspec.Meta)))
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(meta for part in get_args(annotation) for meta in _metas(part))
    return ()


def _inner(annotation: Any) -> tuple[Any, bool]:
    """The type without annotations and without None, and whether None was in it."""
    if get_origin(annotation) is Annotated:
        return _inner(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not types.NoneType]
        if len(parts) != 1:
            raise TypeError(f"it has one type, or one type and None, not {annotation}")
        return _inner(parts[0])[0], len(parts) < len(get_args(annotation))
    return annotation, False


def _origin(type: Any) -> Any:
    return get_origin(type) or type


def _is_enum(type: Any) -> bool:
    return isinstance(type, enum.EnumMeta)


def _item(type: Any) -> Any:
    """The type of a list's items or of a map's values."""
    args = get_args(type)
    return (args[1] if _origin(type) in _MAPS else args[0]) if args else str


def _choices(type: Any) -> dict[str, Any]:
    """The values of a Literal or an Enum by their text; empty for other types."""
    if get_origin(type) is Literal:
        return {str(value): value for value in get_args(type)}
    return {str(member.value): member.value for member in type} if _is_enum(type) else {}


def _check_type(type: Any) -> None:
    if _origin(type) in (*_LISTS, *_MAPS):
        type = _item(type)
    if type not in (bool, int, float, str) and not _choices(type):
        raise TypeError(f"{type} cannot be written as a flag's value")


def _parse(text: str, type: Any, unit: str) -> Any:
    if _origin(type) in _LISTS:
        return [_parse(part.strip(), _item(type), unit) for part in text.split(",") if part.strip()]
    if _origin(type) in _MAPS:
        return dict(_pair(part.strip(), type, unit) for part in text.split(",") if part.strip())
    if type is str:
        return text
    return _parser(type, unit)(text.strip())


def _pair(text: str, type: Any, unit: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(text)
    return key.strip(), _parse(value.strip(), _item(type), unit)


def _parser(type: Any, unit: str) -> Callable[[str], Any]:
    if type is bool:
        return lambda text: _pick(_TRUTH, text.lower())
    if unit == "seconds":
        return parse_duration if type is float else lambda text: _whole(parse_duration(text))
    if unit == "bytes":
        return parse_size
    if type is int:
        return int
    if type is float:
        return parse_number
    return lambda text: _pick(_choices(type), text)


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(number)
    return int(number)


def _pick(values: Mapping[str, Any], text: str) -> Any:
    if text not in values:
        raise ValueError(text)
    return values[text]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _name(type: Any, unit: str) -> str:
    if _origin(type) in _LISTS:
        return f"list of {_name(_item(type), unit)}"
    if _origin(type) in _MAPS:
        return "key=value"
    if type in (int, float) and unit in ("seconds", "bytes"):
        return "duration" if unit == "seconds" else "size"
    return "|".join(_choices(type)) or {bool: "true|false", int: "integer", float: "number"}.get(type, "text")


def _expectation(type: Any, unit: str) -> str:
    if _origin(type) in _LISTS:
        item = _item(type)
        return "a comma-separated list" + ("" if item is str else f", each {_expectation(item, unit)}")
    if _origin(type) in _MAPS:
        return "key=value pairs, separated by commas"
    if type in (int, float) and unit in ("seconds", "bytes"):
        return "a duration like 30, 5s or 1m30s" if unit == "seconds" else "a size like 65536, 64k or 4MiB"
    if choices := list(_choices(type)):
        return "one of " + ", ".join(choices)
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(type, "text")


def _bounds(meta: msgspec.Meta, show: Callable[[Any], str]) -> list[str]:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    texts = [f"{word} {show(bound)}" for name, word in words.items() if (bound := getattr(meta, name)) is not None]
    if meta.pattern is not None:
        texts.append(f"matching {meta.pattern}")
    if meta.min_length is not None:
        texts.append("not empty" if meta.min_length == 1 else f"at least {meta.min_length} long")
    if meta.max_length is not None:
        texts.append(f"at most {meta.max_length} long")
    return texts


def _show(value: Any, unit: str) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)) and unit in ("seconds", "bytes"):
        return format_duration(value) if unit == "seconds" else format_size(int(value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_show(item, unit)}" for key, item in value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        return ",".join(_show(item, unit) for item in value)
    return hide_passwords(str(value.value if isinstance(value, enum.Enum) else value))

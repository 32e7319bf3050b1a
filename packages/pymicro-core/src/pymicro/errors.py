"""Every error that pymicro raises.

    PymicroError
    ├── Error                        the wire form: id, code, detail, status; travels between services
    │   ├── BadRequest 400, Unauthorized 401, Forbidden 403, NotFound 404, MethodNotAllowed 405
    │   ├── Timeout 408 (TimeoutError), Conflict 409, PreconditionFailed 412, TooLarge 413, TooManyRequests 429
    │   ├── InternalServerError 500, Unimplemented 501, BadGateway 502, DeadlineExceeded 504 (TimeoutError)
    │   └── Unavailable 503
    │       └── NoNode               nobody to call is known
    │           └── NoOtherNode      each node was tried
    ├── ConfigurationError           the program is set up wrongly; found before it serves (ValueError)
    │   ├── UnknownPlugin (LookupError), PluginFailed, PluginConflict, PluginIncompatible
    │   └── InvalidOption, InvalidHandler
    ├── UsageError                   the API was used wrongly (RuntimeError)
    │   └── Closed                   the object was closed, or not opened yet
    └── ConnectionFailed             a peer or a backend, seen from this process (ConnectionError)
        ├── DialFailed               no connection came about: nothing was executed
        ├── Disconnected             an open connection ended
        ├── ProtocolViolation        the peer broke the rules of the protocol
        ├── BackendUnavailable       the server behind a registry or broker cannot be reached
        └── BackendRefused           that server answered no: credentials, permissions, limits

Two facts decide about a retry, on each error that can come out of a call: `transient` (it may pass) and
`executed` (`"no"`: the handler did not run; `"maybe"`: it may have run).

The wire form follows go-micro `errors/errors.go`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal, get_type_hints

import msgspec

Executed = Literal["no", "maybe"]

#: Reason phrases by code, as go-micro sends them in `status` (RFC 9110, section 15). Others have none.
REASONS: Final[dict[int, str]] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


#: Subclasses of `Error` by qualified name, so that a peer's error can be given its class back.
_SUBCLASSES: Final[dict[str, list[type[Error]]]] = {}


class PymicroError(Exception):
    """Base of every error that pymicro raises."""


class Error(PymicroError):
    """An error that travels between services.

    Args:
        detail: what went wrong, for a person. It reaches the caller.
        id: who says so, for example the service's name. Empty: the server fills in its own name.
        code: HTTP-like number; None takes the class's own.
        executed: `"no"` promises that the handler did not run; None takes the class's own value.

    Attributes:
        relayed: whether it came out of a call that this process made. A handler that lets such an error through has
            run, whatever became of that call.

    A user's subclass may annotate fields of its own. Between pymicro peers that both have the class it arrives as
    itself, fields and all; elsewhere as the pymicro class of its code.
    """

    id: str = ""  # defaults, for subclasses whose `__init__` does not call this one
    detail: str = ""
    relayed: bool = False
    code: int = 0
    transient: ClassVar[bool] = False
    executed: Executed = "maybe"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _SUBCLASSES.setdefault(cls.__qualname__, []).append(cls)

    def __init__(
        self, detail: str = "", id: str = "", *, code: int | None = None, executed: Executed | None = None
    ) -> None:
        super().__init__(detail)
        self.id = id
        self.detail = str(detail)  # people pass exceptions
        if code is not None:
            self.code = code
        if executed is not None:
            self.executed = executed

    @property
    def status(self) -> str:
        """The reason phrase of the code; empty for a code that has none."""
        return REASONS.get(self.code, "")

    def __str__(self) -> str:
        head = " ".join(part for part in (str(self.code), self.status) if part)
        return ": ".join(part for part in (self.id, head, self.detail) if part)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, code={self.code}, detail={self.detail!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.detail, self.id, self.code, self.executed)


def _rebuild(cls: type[Error], detail: str, id: str, code: int, executed: Executed) -> Error:
    error = cls.__new__(cls, detail)
    Error.__init__(error, detail, id, code=code, executed=executed)
    return error


class BadRequest(Error):
    """400: the request cannot be served as it is; a body that does not fit its type."""

    code = 400


class Unauthorized(Error):
    """401: the caller did not say who it is, or not convincingly."""

    code = 401


class Forbidden(Error):
    """403: the caller may not do this."""

    code = 403


class NotFound(Error):
    """404: the endpoint, or the thing asked for, does not exist."""

    code = 404


class MethodNotAllowed(Error):
    """405: the endpoint exists and does not serve this shape of call."""

    code = 405


class Timeout(Error, TimeoutError):
    """408: a caller's own time-out, as Go Micro peers report it. pymicro servers never originate it."""

    code = 408
    transient = True


class Conflict(Error):
    """409: the request does not fit the present state."""

    code = 409


class PreconditionFailed(Error):
    """412: a condition that the caller stated does not hold."""

    code = 412


class TooLarge(Error):
    """413: a message or its headers are over a limit."""

    code = 413
    executed = "no"


class TooManyRequests(Error):
    """429: a limit on calls in flight is reached."""

    code = 429
    transient = True
    executed = "no"


class InternalServerError(Error):
    """500: the handler failed."""

    code = 500


class Unimplemented(Error):
    """501: not built, or not supported by this peer."""

    code = 501


class BadGateway(Error):
    """502: a service behind this one answered wrongly."""

    code = 502
    transient = True


class Unavailable(Error):
    """503: no node can serve the call now."""

    code = 503
    transient = True


class NoNode(Unavailable):
    """503: the selector knows no node for the call: nobody runs the service, or no node passes the filters."""

    executed = "no"


class NoOtherNode(NoNode):
    """503: the service has nodes, and each was tried in this call."""


class DeadlineExceeded(Error, TimeoutError):
    """504: the call's deadline passed."""

    code = 504


BY_CODE: Final[dict[int, type[Error]]] = {
    cls.code: cls
    for cls in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Timeout,
        Conflict,
        PreconditionFailed,
        TooLarge,
        TooManyRequests,
        InternalServerError,
        Unimplemented,
        BadGateway,
        Unavailable,
        DeadlineExceeded,
    )
}


def from_code(code: int, detail: str = "", id: str = "", *, executed: Executed = "maybe") -> Error:
    """The error of the class that stands for `code`, or a plain `Error` for a code without one."""
    cls = BY_CODE.get(code)
    return cls(detail, id, executed=executed) if cls else Error(detail, id, code=code, executed=executed)


class _Wire(msgspec.Struct, omit_defaults=True):
    id: str = ""
    code: int = 0
    detail: str = ""
    status: str = ""


_encode = msgspec.json.Encoder().encode
_encode_any = msgspec.json.Encoder(enc_hook=repr).encode
_BASE_NAMES: Final = frozenset(Error.__annotations__)
_decode = msgspec.json.Decoder(dict[str, Any] | None).decode
_INT32: Final = 2**31


def to_wire(error: Error) -> str:
    """The JSON text of `error`, fields as in go-micro `errors/errors.go`; control characters are escaped.

    Never fails: a detail that is no text (an exception, say) is made one, and what UTF-8 cannot write is replaced.
    """
    return _encode(_Wire(_text(error.id), error.code, _text(error.detail), error.status)).decode()


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def from_wire(text: str, *, executed: Executed = "maybe") -> Error:
    """The error that `text` stands for. Never fails: what is no error object becomes the detail, with code 0.

    Fields that were read before a fault keep their value, and null is nothing said, as in go-micro's parser.
    """
    try:
        fields = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Error(text, executed=executed)
    known = {key.lower(): value for key, value in (fields or {}).items() if value is not None}
    id, code, detail = known.get("id", ""), known.get("code", 0), known.get("detail", "")
    sound = isinstance(code, int) and not isinstance(code, bool) and -_INT32 <= code < _INT32
    if not (sound and isinstance(id, str) and isinstance(detail, str)):
        return from_code(code if sound else 0, text, id if isinstance(id, str) else "", executed=executed)
    return from_code(code, detail, id, executed=executed)


def own_fields(error: Error) -> str | None:
    """The JSON of the fields that a user's subclass of `Error` declares; None for pymicro's own classes.

    A field is an annotation in the body of the subclass; its value is an attribute of the error. None also for fields
    that cannot be written: the error then arrives as the class of its code.
    """
    cls = type(error)
    if cls.__module__ == __name__:
        return None
    try:
        return _encode_any({name: getattr(error, name, None) for name in _own_types(cls)}).decode()
    except Exception:  # annotations and values are the user's, and the caller waits for the error
        return None


def specialised(error: Error, name: str, fields: str) -> Error:
    """`error` as the user's subclass called `name`, if this process knows exactly one of that name and code.

    `error` itself when it knows none, or when the fields do not fit the class.
    """
    known = [cls for cls in _SUBCLASSES.get(name, ()) if cls.code == error.code]
    if len(known) != 1:
        return error
    cls = known[0]
    try:
        values = msgspec.convert(_decode(fields), dict[str, Any])
        typed = {key: msgspec.convert(values.get(key), type) for key, type in _own_types(cls).items()}
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, NameError):
        return error
    special = _rebuild(cls, error.detail, error.id, error.code, error.executed)
    vars(special).update(typed)
    return special


def _own_types(cls: type[Error]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {name: hints[name] for name in hints if name not in _BASE_NAMES}


class ConfigurationError(PymicroError, ValueError):
    """The program is set up wrongly. The text says what is wrong and what to do."""


class UnknownPlugin(ConfigurationError, LookupError):
    """No installed or enabled plugin has this name."""


class PluginFailed(ConfigurationError):
    """The chosen plugin cannot be imported or built; the cause is attached."""


class PluginConflict(ConfigurationError):
    """Two different implementations carry one kind and name."""


class PluginIncompatible(ConfigurationError):
    """The plugin was built for another major version of the plugin API."""


class InvalidOption(ConfigurationError):
    """A flag, environment variable or keyword is unknown, or its value does not fit."""


class InvalidHandler(ConfigurationError):
    """A handler or subscriber cannot be served: its signature, its types or its name."""


class UsageError(PymicroError, RuntimeError):
    """The API was used wrongly; the text says how to use it."""


class Closed(UsageError):
    """The object was closed, or was not opened."""


class ConnectionFailed(PymicroError, ConnectionError):
    """A peer or a backend failed, as seen from this process.

    Args:
        detail: what went wrong.
        address: whom it concerns; empty when unknown.
    """

    transient: ClassVar[bool] = True
    executed: ClassVar[Executed] = "maybe"

    def __init__(self, detail: str = "", address: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.address = address

    def __str__(self) -> str:
        return f"{self.address}: {self.detail}" if self.address else self.detail


class DialFailed(ConnectionFailed):
    """No connection came about, so nothing was sent and nothing executed."""

    executed = "no"


class Disconnected(ConnectionFailed):
    """An open connection ended: by the peer, by the network, or because a message was cut off."""


class ProtocolViolation(ConnectionFailed):
    """The peer broke the rules of the protocol; the connection is of no further use."""

    transient = False


class BackendUnavailable(ConnectionFailed):
    """The server behind a registry or broker cannot be reached, or did not answer in time."""


class BackendRefused(ConnectionFailed):
    """The server behind a registry or broker refused: credentials, permissions, a limit."""

    transient = False

"""What a person should read about a connection that did not come about."""

from __future__ import annotations

import socket
import ssl
from typing import Final

#: What OpenSSL says when the other side answers a handshake with something else.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"})


def connection_problem(error: OSError) -> str:
    """Why a peer could not be connected to, in plain words, for the detail of an error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the TLS certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason in _NOT_TLS:
            return f"the peer does not speak TLS and this side does: configure both sides alike ({error.reason})"
        return f"TLS handshake failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"the host cannot be resolved: {error.strerror}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return f"no connection: {error}"

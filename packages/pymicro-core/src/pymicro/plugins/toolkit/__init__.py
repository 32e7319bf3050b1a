"""What plugin authors share. Public and versioned with the plugin API."""

from pymicro._internal.logs import log
from pymicro.plugins._options import option
from pymicro.plugins.toolkit._address import advertised, join_address, split_address
from pymicro.plugins.toolkit._bind import bind, bind_shared
from pymicro.plugins.toolkit._component import Component
from pymicro.plugins.toolkit._problem import connection_problem
from pymicro.plugins.toolkit._tls import TLSContext

__all__ = [
    "Component",
    "TLSContext",
    "advertised",
    "bind",
    "bind_shared",
    "connection_problem",
    "join_address",
    "log",
    "option",
    "split_address",
]

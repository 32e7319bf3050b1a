"""What plugin authors share. Public and versioned with the plugin API."""

from pymicro._internal.backoff import backoff
from pymicro._internal.logs import log
from pymicro.plugins._options import option
from pymicro.plugins.toolkit._address import advertised, join_address, server_address, split_address
from pymicro.plugins.toolkit._bind import bind, bind_shared
from pymicro.plugins.toolkit._component import Component
from pymicro.plugins.toolkit._problem import connection_problem
from pymicro.plugins.toolkit._tasks import detached, end_task, start_task
from pymicro.plugins.toolkit._tls import TLSContext

__all__ = [
    "Component",
    "TLSContext",
    "advertised",
    "backoff",
    "bind",
    "bind_shared",
    "connection_problem",
    "detached",
    "end_task",
    "join_address",
    "log",
    "option",
    "server_address",
    "split_address",
    "start_task",
]

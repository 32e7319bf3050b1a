"""Logs each call that a service answers."""

import logging

from pymicro import Request, Response
from pymicro.plugins import ServiceView, enable, hookimpl
from pymicro.rpc import Call


async def log_call(request: Request, next: Call) -> Response:
    logging.info("%s from %s", request.endpoint, request.peer)
    return await next(request)


@hookimpl
def pymicro_configure(service: ServiceView) -> None:
    service.use(calls=[log_call])


enable(__name__)

"""Connections. Importing it imports the driver."""

from pymicro_nats._driver import Tap
from pymicro_nats._link import Link
from pymicro_nats._session import Arrived, Callback, Session, Within, unanswered

__all__ = ["Arrived", "Callback", "Link", "Session", "Tap", "Within", "unanswered"]

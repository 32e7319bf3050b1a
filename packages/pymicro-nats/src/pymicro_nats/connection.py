"""Connections. Importing it imports the driver."""

from pymicro_nats._link import Link
from pymicro_nats._reader import Tap
from pymicro_nats._session import Session
from pymicro_nats._traffic import Arrived, Callback, Within, unanswered

__all__ = ["Arrived", "Callback", "Link", "Session", "Tap", "Within", "unanswered"]

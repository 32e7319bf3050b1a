"""Serves the greeter: run it in one terminal, or in three, and client.py in another."""

from greeter import service

service.run()

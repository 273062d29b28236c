"""A router as a decision service over HTTP."""

from uniroute_fast.serving.server import Server

__all__ = ["Server"]

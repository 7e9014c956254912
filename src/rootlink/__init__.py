"""Rootlink: one self-hosted server that gives an AI access to the outside world."""

__version__ = "0.1.0"

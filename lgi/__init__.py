"""Leiden Grid Infrastructure: project server, scheduler, resource daemon and clients."""

__version__ = "2.0.0.dev0"

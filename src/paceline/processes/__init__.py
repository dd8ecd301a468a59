"""Engines as processes: starting, watching, examining, restarting and stopping them."""

from paceline.processes.supervisor import Health, Supervisor

__all__ = ["Health", "Supervisor"]

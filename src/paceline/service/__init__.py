"""Paceline as a service of the system: what systemd and launchd are told, and how they are told it."""

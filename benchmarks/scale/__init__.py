"""Paceline beyond one machine."""

"""Paceline's decision inside other programs' routers."""

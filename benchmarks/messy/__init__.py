"""Routing on recorded requests as programs send them: see ``__main__.py``."""

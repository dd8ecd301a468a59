"""Worlds in which a request may be served by one's own engine or by a provider's."""

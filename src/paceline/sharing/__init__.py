"""Routers that learn as one: each tells a common store what it learned, and learns from there what the others told."""

from paceline.sharing.opening import open_store
from paceline.sharing.sharer import Sharer, State, new_origin
from paceline.sharing.stores import CannotOpen, News, Store

__all__ = ["CannotOpen", "News", "Sharer", "State", "Store", "new_origin", "open_store"]

"""All that a router knows, with what it has heard of whom: a router that joins, or was away for too long, goes on from
there."""

from msgspec import Struct

from paceline.decision.knowledge import Key, Knowledge, decoded_row, encoded_entry


class Snapshot(Struct, frozen=True):
    """What one router knew at a moment."""

    known: dict[str, int]
    """By origin, the number of the last delta that is in it."""
    rows: list[tuple[str, Key, bytes]]
    """Entries of what it knew: part, key, and the entry as MessagePack."""


def snapshot_of(knowledge: Knowledge, known: dict[str, int]) -> Snapshot:
    """To be called with the knowledge's lock held."""
    return Snapshot(known, [(row.part, row.key, encoded_entry(row.entry)) for row in knowledge.rows()])


def knowledge_of(snapshot: Snapshot, latest_s: float) -> Knowledge:
    """What it holds, without entries that can't have been learned.

    Args:
        latest_s: what is dated later was dated by a wrong clock, and counts as of then.
    """
    rows = [decoded_row(part, key, entry, latest_s) for part, key, entry in snapshot.rows]
    return Knowledge.from_rows([row for row in rows if row is not None])

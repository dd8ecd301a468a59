"""What is known, for comparing."""

from paceline.decision import Key, Knowledge


def entries(knowledge: Knowledge) -> dict[tuple[str, Key], object]:
    """All of it, by part and key; the order in which rows stand tells nothing."""
    return {(part, key): entry for part, key, entry in knowledge.rows()}

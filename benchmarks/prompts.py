"""Requests for benchmarks on the embedded engine: what drafting helps, and what it hinders."""

from typing import Any

CODE = """class Cache:
    def __init__(self, path, limit=100):
        self.path = path
        self.limit = limit
        self.items = {}

    def load(self):
        if os.path.exists(self.path):
            with open(self.path) as handle:
                for line in handle:
                    key, value = line.strip().split("=", 1)
                    self.items[key] = value

    def store(self, key, value):
        if len(self.items) >= self.limit:
            self.items.pop(next(iter(self.items)))
        self.items[key] = value
"""
PEOPLE = (
    "Anna Berg lives in Oslo and repairs boats. Peter Holm lives in Bergen and teaches music. Maria Lind lives in "
    "Stockholm and writes about trade. John Smith lives in London and drives a bus. Eva Klein lives in Berlin and "
    "builds bridges. Paul Martin lives in Paris and bakes bread. Nina Rossi lives in Rome and restores paintings."
)

EDIT = f"Rename the class Cache to Store in this file and print the whole file.\n```python\n{CODE}```"
EXTRACT = f"List all the people and their cities in this text as JSON objects with the keys name and city.\n\n{PEOPLE}"
STORY = "Tell me a story about a lighthouse keeper who finds a message in a bottle."
NEW_CODE = "Write a Python function that takes an ISO date string and returns the name of the weekday."

BY_TASK = {"edit": EDIT, "extract": EXTRACT, "story": STORY, "new code": NEW_CODE}


def chat(prompt: str, max_tokens: int) -> dict[str, Any]:
    """A chat request that always decodes ``max_tokens`` tokens, greedily."""
    return {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }

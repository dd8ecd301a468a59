"""What a bench sends: the workload that comes along, or the user's own."""

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

from msgspec import Struct

SHIPPED = "mixed"
"""Twelve tasks, ten requests each: agent turns with tool results, a file to print again with a change, extraction by a
JSON schema, answers from given passages, summaries, translation, math, chat, new code, stories, poems, role play."""


class BadWorkload(Exception):
    """The file can't be read as a workload; ``str()`` says where and why."""


class Item(Struct, frozen=True):
    """A request of a workload."""

    id: str
    task: str
    fields: dict[str, Any]
    """Of a chat completion: ``messages``, and what else the request needs, like ``response_format``."""


class Workload(Struct, frozen=True):
    """What is sent, in its order."""

    name: str
    items: tuple[Item, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item.task for item in self.items))

    @property
    def hash(self) -> str:
        """Of what is sent, so that results of different workloads are not taken for comparable."""
        sent = json.dumps([[item.id, item.task, item.fields] for item in self.items], sort_keys=True)
        return blake2b(sent.encode(), digest_size=8).hexdigest()

    def part(self, per_task: int, skip: int = 0) -> tuple[Item, ...]:
        """So many items of each task after the first ``skip``, the tasks in turn; fewer where a task has fewer."""
        by_task = [[item for item in self.items if item.task == task][skip : skip + per_task] for task in self.tasks]
        return tuple(items[place] for place in range(per_task) for items in by_task if place < len(items))


def shipped() -> Workload:
    """The one that comes along."""
    text = (files("paceline.bench") / "workloads" / f"{SHIPPED}.jsonl").read_text("utf-8")
    return Workload(SHIPPED, tuple(_items(text.splitlines(), SHIPPED)))


def read(path: Path) -> Workload:
    """A file of the user's: JSON lines, each a request (``messages`` or ``prompt``, and if it likes ``task``, ``id``
    and other fields of a chat completion), or a question as Spec-Bench's ``question.jsonl`` and SPEED-Bench have it
    (``turns`` and ``category``); or ShareGPT's JSON list of ``conversations``.

    Of questions with several turns the first is sent; of conversations, all up to the last message of the user.

    Raises:
        BadWorkload: names the line and what is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadWorkload(f"{path}: {error}") from error
    if text.lstrip().startswith("["):
        try:
            documents = json.loads(text)
        except ValueError as error:
            raise BadWorkload(f"{path}: {error}") from error
        lines: Sequence[str] = [json.dumps(document) for document in documents]
    else:
        lines = text.splitlines()
    items = tuple(_items(lines, str(path)))
    if not items:
        raise BadWorkload(f"{path}: there is no request in it")
    doubled = len(items) - len({item.id for item in items})
    if doubled:
        raise BadWorkload(f"{path}: {doubled} ids occur more than once")
    return Workload(path.name, items)


def _items(lines: Sequence[str], name: str) -> Iterator[Item]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            item = _item(document, number)
        except (ValueError, TypeError) as error:
            raise BadWorkload(f"{name}, line {number}: {error}") from error
        if item is not None:
            yield item


NO_TASK = "no task"
"""What a request is listed under that names none."""


def _item(document: Any, number: int) -> Item | None:
    """``None`` for a conversation in which the user says nothing."""
    if not isinstance(document, dict):
        raise TypeError("is no JSON object")
    name = document.pop("id", document.pop("question_id", number))
    task = str(document.pop("task", document.pop("category", NO_TASK)))
    if "conversations" in document:
        messages = _sharegpt(document["conversations"])
        return Item(str(name), task, {"messages": messages}) if messages else None
    if "turns" in document:
        turns = document["turns"]
        if not (isinstance(turns, list) and turns and isinstance(turns[0], str)):
            raise TypeError("turns: is no list of texts")
        return Item(str(name), task, {"messages": [{"role": "user", "content": turns[0]}]})
    if isinstance(document.get("prompt"), str):
        document["messages"] = [{"role": "user", "content": document.pop("prompt")}]
    if not isinstance(document.get("messages"), list) or not document["messages"]:
        raise TypeError("has none of messages, prompt, turns and conversations")
    return Item(str(name), task, document)


ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "system": "system"}
"""By ShareGPT's names."""


def _sharegpt(conversations: Any) -> list[dict[str, str]]:
    if not isinstance(conversations, list):
        raise TypeError("conversations: is no list")
    messages = [
        {"role": ROLES[turn["from"]], "content": turn["value"]}
        for turn in conversations
        if isinstance(turn, dict) and turn.get("from") in ROLES and isinstance(turn.get("value"), str)
    ]
    while messages and messages[-1]["role"] != "user":
        messages.pop()
    return messages

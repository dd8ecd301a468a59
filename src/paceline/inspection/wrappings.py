"""What a user wrote, out of what a program wrapped it in.

Clients put what they know beside what was asked: environment details, reminders, open files, the chat so far. Some mark
what was asked (``<task>``, ``### Task:``), some mark the rest, some use a chat template in a plain prompt. Bounded: of
a long text only its beginning and end are searched.
"""

import re
from collections.abc import Sequence

SEARCHED_CHARS = 8_000
"""At either end of a text."""
MAX_BLOCKS = 12
"""Marked blocks that are looked at in one text."""
MAX_TAG_CHARS = 60

_ASKED = re.compile(
    r"^(?:task|user_?(?:query|message|request|input|prompt|question)|query|question|feedback|answer|user|request"
    r"|instructions?|prompt)$",
    re.IGNORECASE,
)
"""Names of tags that hold what was asked."""
_BESIDE = re.compile(
    r"environment|reminder|context|system|workspace|editor|attach|additional|metadata|user_?info|git|memor|rules|histor"
    r"|conversation|layout|docs?$|document|tools?_|date|selection|open_|files?$|file_|diagnostic|state|settings|cwd"
    r"|example|command-|local-command|repo",
    re.IGNORECASE,
)
"""Parts of the names of tags that hold what a program adds."""
_TAG = re.compile(r"<([A-Za-z][\w-]{2,40})(?: [^<>\n]{0,200})?>")
_HEADING = re.compile(
    r"^#{1,4} *\**(?:task|instructions?|question|query|(?:user(?:'s)? )?(?:request|input|message))\b\**:?\**",
    re.IGNORECASE | re.MULTILINE,
)
_NEXT_HEADING = re.compile(r"\n#{1,4} ?\S|\n-{3,}\n")
_TEMPLATES = (
    ("<|im_start|>user", "<|im_end|>"),
    ("<|start_header_id|>user<|end_header_id|>", "<|eot_id|>"),
    ("<start_of_turn>user", "<end_of_turn>"),
    ("<|user|>", "<|"),
    ("[INST]", "[/INST]"),
    ("\nHuman:", "\nAssistant:"),
    ("\nUSER:", "\nASSISTANT:"),
)
"""How chat templates begin and end a user's turn."""


def unwrapped(blocks: Sequence[str]) -> str:
    """What is asked in a message of several blocks; the last of them, with all its wrappings, where nothing else is
    left."""
    kept = [text for block in blocks if (text := _without_wrappings(block))]
    if kept:
        return kept[0] if len(kept) == 1 else _joined(kept)
    return blocks[-1] if blocks else ""


def of_template(prompt: str) -> str:
    """The last user's turn in a prompt that is written out in a chat template; empty where it is not."""
    end = prompt[-SEARCHED_CHARS:]
    for begins, ends in _TEMPLATES:
        at = end.rfind(begins)
        if at >= 0:
            return end[at + len(begins) :].partition(ends)[0].strip()
    return ""


def section(text: str) -> str:
    """What stands under a heading that says it is the task; empty where there is none."""
    if "#" not in text[:SEARCHED_CHARS]:
        return ""
    beginning = text[:SEARCHED_CHARS]
    heading = _HEADING.search(beginning)
    if heading is None:
        return ""
    rest = beginning[heading.end() :].lstrip()
    following = _NEXT_HEADING.search(rest)
    return rest[: following.start()].strip() if following else rest.strip()


def _without_wrappings(text: str) -> str:
    if "<" not in text[:SEARCHED_CHARS] and (len(text) <= SEARCHED_CHARS or "<" not in text[-SEARCHED_CHARS:]):
        return section(text) or text
    if len(text) <= 2 * SEARCHED_CHARS:
        kept = _without_tags(text)
    else:
        ends = text.rstrip()[-MAX_TAG_CHARS:] if text[-1:].isspace() and len(text) < 100_000 else text[-MAX_TAG_CHARS:]
        opening = _TAG.match(text[:SEARCHED_CHARS])
        if opening and f"</{opening[1]}>" in ends and _BESIDE.search(opening[1]):
            return ""
        head, tail = _without_tags(text[:SEARCHED_CHARS]), _without_tags(text[-SEARCHED_CHARS:])
        if len(head) == len(tail) == SEARCHED_CHARS:
            return section(text) or text
        kept = f"{head}\n{tail}"
    return section(kept) or kept


def _without_tags(text: str) -> str:
    """``text`` less the blocks that a program added; only what was asked, where that is marked."""
    beside: list[tuple[int, int]] = []
    at = 0
    for _ in range(MAX_BLOCKS):
        tag = _TAG.search(text, at)
        if tag is None:
            break
        name, at = tag[1], tag.end()
        is_asked = _ASKED.match(name)
        if not is_asked and not _BESIDE.search(name):
            continue
        end = text.find(f"</{name}>", at)
        if end < 0:
            continue
        if is_asked and (inner := text[at:end].strip()):
            return inner
        at = end + len(name) + 3
        beside.append((tag.start(), at))
    if not beside:
        return text
    left, begins = [], 0
    for start, end in beside:
        left.append(text[begins:start])
        begins = end
    left.append(text[begins:])
    return "".join(left).strip()


def _joined(texts: Sequence[str]) -> str:
    """One message of several; of long ones no more than is read."""
    return "\n".join(
        [text if len(text) <= 2 * SEARCHED_CHARS else text[:SEARCHED_CHARS] + text[-SEARCHED_CHARS:] for text in texts]
    )

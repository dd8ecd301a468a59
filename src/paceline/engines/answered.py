"""What an answer says of itself beside its text: its identifier, the model, why it ended. For records; see
:class:`paceline.types.Answered`.

Read from the answer's beginning and end, which is where they stand. The answer's own text can't pass for them: inside a
JSON string the quotes of a key are escaped. An identifier is taken only with a beginning that answers' identifiers
have, so that one of a tool's call is none.
"""

import re

from paceline.types import Answered

_ID = re.compile(rb'(?<!\\)"id" ?: ?"((?:chatcmpl|cmpl|msg|resp|gen)[-_][A-Za-z0-9._:-]{1,120})"')
"""OpenAI, llama.cpp and vLLM; Anthropic; OpenAI's Responses; OpenRouter."""
_MODEL = re.compile(rb'(?<!\\)"model" ?: ?"([^"\\]{1,200})"')
_REASON = re.compile(rb'(?<!\\)"(?:finish_reason|stop_reason|stop_type)" ?: ?"([A-Za-z_]{1,40})"')


def answered(head: bytes, tail: bytes) -> Answered:
    """
    Args:
        head: the first bytes of the answer's body.
        tail: its last ones; may overlap with the head.
    """
    identifier, model = _ID.search(head) or _ID.search(tail), _MODEL.search(head) or _MODEL.search(tail)
    return Answered(
        identifier[1].decode() if identifier else None,
        model[1].decode("utf-8", "replace") if model else None,
        tuple(reason.decode() for reason in _REASON.findall(tail)),
    )

"""Request -> Signals: what a request asks for, read from its fields and a bounded part of its text.

>>> from paceline.types import Api, Request
>>> fields = {"messages": [{"role": "user", "content": "Tell me a story."}]}
>>> inspect(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", fields)).task
<Task.CREATE: 'create'>
"""

from paceline.inspection.inspect import inspect

__all__ = ["inspect"]

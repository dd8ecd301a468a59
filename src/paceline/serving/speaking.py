"""In which API each engine is asked: the client's own where the engine speaks it, else in a translation."""

import asyncio
from collections.abc import Mapping
from time import time
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from paceline.serving.errors import CannotBeSaid
from paceline.serving.names import Served
from paceline.settings import EngineSettings
from paceline.translation import Translated, Untranslatable, can_translate, translated
from paceline.translation.flavour import Flavour
from paceline.types import Request

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_AT_ONCE_BYTES = 300_000
"""A larger body is decoded and translated beside all else, in a thread: its images take some time."""


MAX_NAMES, MAX_NAME_CHARS = 5, 40
"""Of fields that a reason tells of, and of such a name."""


class Spoken(Struct, frozen=True):
    """How the engines that serve a request are asked."""

    served: Served
    """With the lanes of those engines that can be."""
    translations: Mapping[str, Translated] = {}
    """By engine, for those that do not speak the client's API."""
    silent: Mapping[str, str] = {}
    """By engine that can't be asked, why not."""

    def request(self, engine: str, request: Request) -> Request:
        """The request as it is for an engine."""
        translation = self.translations.get(engine)
        if translation is None:
            return request
        fields = dict(translation.fields)
        return replace(
            request, api=translation.api, path=translation.path, body=msgspec.json.encode(fields), fields=fields
        )

    def note(self, engine: str) -> str:
        """What a reason tells of the engines that can't be asked, and of fields that this one is not sent; empty where
        there are none."""
        notes = [f"; not {name}: {why}" for name, why in self.silent.items()]
        if (translation := self.translations.get(engine)) is not None and translation.left_out:
            names = [name[:MAX_NAME_CHARS] for name in translation.left_out[:MAX_NAMES]]
            more = len(translation.left_out) - len(names)
            notes.append(f"; left out: {', '.join(names)}{f' and {more} more' if more else ''}")
        return "".join(notes).encode("ascii", "replace").decode()


async def spoken(request: Request, served: Served) -> Spoken:
    """How the engines behind ``served`` are asked.

    Raises:
        CannotBeSaid: none of them can be.
    """
    others = {lane.engine.name: lane.engine.settings for lane in served.lanes}
    others = {name: settings for name, settings in others.items() if request.api not in settings.speaks}
    if not others:
        return Spoken(served)
    if len(request.body) > MAX_AT_ONCE_BYTES:
        return await asyncio.to_thread(_spoken, request, served, others)
    return _spoken(request, served, others)


def _spoken(request: Request, served: Served, others: Mapping[str, EngineSettings]) -> Spoken:
    fields = _whole(request.body) if request.elided_chars else request.fields
    translations: dict[str, Translated] = {}
    silent: dict[str, str] = {}
    for name, settings in others.items():
        try:
            translations[name] = _translated(request, fields, settings)
        except Untranslatable as error:
            silent[name] = str(error)
    lanes = tuple(lane for lane in served.lanes if lane.engine.name not in silent)
    if not lanes:
        raise CannotBeSaid(next(iter(silent.values())))
    return Spoken(replace(served, lanes=lanes), translations, silent)


def _whole(body: bytes) -> dict[str, Any]:
    """All fields of a body of which only an outline was decoded, but what it has around its JSON."""
    fields: dict[str, Any] = msgspec.json.decode(body.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\0"))
    return fields


def _translated(request: Request, fields: Mapping[str, Any], settings: EngineSettings) -> Translated:
    api = can_translate(request.api, settings.speaks)
    if api is None:
        raise Untranslatable(f"the engine {settings.name} does not speak this API, nor one that it is translated into")
    return translated(
        request.api,
        api,
        fields,
        flavour=Flavour(
            max_tokens_field=settings.max_tokens_field,
            takes_more=not settings.is_openais,
            default_max_tokens=settings.default_max_tokens,
            caches=settings.is_to_cache,
        ),
        now_s=int(time()),
    )

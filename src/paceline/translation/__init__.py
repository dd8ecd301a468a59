"""From the dialect that a client speaks to the one that an engine speaks, and its answer back.

One module for each direction. A direction is a pure function over a parsed body, and an object that is fed with the
bytes of the engine's answer and yields those for the client. What one dialect can't say in the other is refused, in
words for people, and never left out in silence; ``docs/cloud.md`` has the list.
"""

from paceline.translation.directions import Translated, can_translate, translated
from paceline.translation.parts import Garbled, Untranslatable
from paceline.translation.streams import StreamTranslator

__all__ = ["Garbled", "StreamTranslator", "Translated", "Untranslatable", "can_translate", "translated"]

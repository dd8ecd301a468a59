"""The language of a few words, by those that nearly every sentence of it holds."""

_COMMON = {
    "en": "the a an of to and in is what how this that my me you it for with please write give from who are do can i",
    "de": "der die das und ist nicht ein eine zu den in mit von wie was auf für ich bitte dem des sich im wer sie",
    "fr": "le la les et est un une des de du que qui pour dans ce en vous je au sur il quelle comment avec pas",
    "es": "el la los las y es un una de que en por para con del al se qué cómo cuál no lo su me como",
    "it": "il lo la gli e è un una di che per con del della non in sono come cosa si mi questo alle",
    "pt": "o a os as e é um uma de que em por para com do da não se como qual no na isso me ao",
    "nl": "de het een en is van te dat op in met voor niet wat hoe ik je zijn wie aan om deze",
}
_WORDS = {code: frozenset(words.split()) for code, words in _COMMON.items()}
ENOUGH_ENGLISH = 4
"""With so many of English's, the others are not looked for."""
_SCRIPTS = (
    ("Ѐ", "ӿ", "ru"),
    ("֐", "׿", "he"),
    ("؀", "ۿ", "ar"),
    ("ऀ", "ॿ", "hi"),
    ("぀", "ヿ", "ja"),
    ("가", "힣", "ko"),
    ("一", "鿿", "zh"),
)


def language(words: set[str], text: str) -> str:
    """ISO 639-1 code; empty where the words don't tell. ``words`` are in lower case, ``text`` is what they are from."""
    if len(_WORDS["en"] & words) >= ENOUGH_ENGLISH:
        return "en"
    counts = {code: len(common & words) for code, common in _WORDS.items()}
    best = max(counts, key=counts.__getitem__)
    if counts[best]:
        return best
    if not text.isascii():
        for first, last, code in _SCRIPTS:
            if any(first <= char <= last for char in text):
                return code
    return ""

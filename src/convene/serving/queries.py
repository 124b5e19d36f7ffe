"""What to search for, made from a conversation without a model: small rules that give the same words each time. Pure.

For models that cannot decide by themselves (`research.py`). English rules; other languages lose their politeness to no
rule and are searched for as they stand, which engines bear well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import Message

QUERY_CHARACTERS_MAX: Final = 300
"""Engines take about 400; what is longer was not written as a query."""
LONG_WORDS: Final = 32
"""A message of more words is cut to the sentence that asks."""
FOLLOW_UP_WORDS: Final = 9
"""A question of at most so many words may lean on the one before it."""

_CODE: Final = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_SMALL_TALK: Final = re.compile(
    r"\W*(?:(?:hi|hello|hey|yo|hallo|hola|bonjour|salut|ciao|good (?:morning|afternoon|evening|night)|guten tag|moin|"
    r"thanks?(?: you)?(?: (?:so|very) much| a lot)?|danke|merci|gracias|ok(?:ay)?|great|cool|nice|bye|goodbye|yes|no|"
    r"please|there|again|how are you(?: (?:doing|today))?|what'?s up|who are you|everyone|all)\W*)+",
    re.IGNORECASE,
)
_CHORE: Final = re.compile(
    r"\s*(?:#+ Task:|(?:generate|create|write) (?:a|an) (?:[\w,-]+ ){0,5}title\b)", re.IGNORECASE
)
"""What chat programs ask beside the conversation: a title, tags, a follow-up."""
_POLITE: Final = re.compile(
    r"^(?:\W*(?:please|hi|hello|hey|(?:can|could|would|will) you(?: please)?|"
    r"i (?:want|need|would like|'d like) to know|(?:tell|show) me(?: about)?|"
    r"search (?:the )?(?:web|internet|online)(?: for)?|search for|look up|google|find out|"
    r"do you know|i wonder)\b[\s,:]*)+",
    re.IGNORECASE,
)
_LEANING: Final = re.compile(
    r"\b(?:it|its|that|this|these|those|they|them|their|he|him|his|she|her|hers|there|then|one|ones|same|former|latter)\b"
    r"|^\W*(?:and|but|or|so|also|what about|how about|why|when|where|who|which one|how (?:much|many|old|long|far))\W*"
    r"(?:\?|$|\w+\W*$)|^\W*(?:and|but|what about|how about)\b",
    re.IGNORECASE,
)
_EMPTY_WORDS: Final = frozenset(
    (
        *("a", "an", "the", "of", "in", "on", "at", "to", "for", "from", "by", "with", "about", "is", "are", "was"),
        *("were", "be", "been", "do", "does", "did", "has", "have", "had", "what", "who", "when", "where", "why"),
        *("how", "which", "and", "or", "but", "it", "its", "that", "this", "he", "she", "they", "them", "his"),
        *("her", "their", "there", "i", "me", "my", "you", "your", "we", "our", "some", "any", "please", "can"),
        *("could", "would", "should", "will", "what's", "who's", "where's", "so", "then", "also", "much", "many"),
    )
)
_LEANING_WORDS: Final = frozenset(
    (
        *("and", "but", "or", "so", "also", "then", "about", "what", "it", "its", "that", "this", "these", "those"),
        *("he", "him", "his", "she", "her", "they", "them", "their", "there", "is", "are", "was", "were", "did"),
        *("do", "does", "a", "an", "the", "of"),
    )
)
_SENTENCE: Final = re.compile(r"[^.!?\n。！？]+[.!?。！？]*")  # noqa: RUF001 - other scripts end sentences too


class Wanted(msgspec.Struct, frozen=True):
    """A query, and whether a model would likely have made a better one."""

    query: str
    doubtful: bool = False


def form_query(messages: Sequence[Message]) -> Wanted | None:
    """Return what to search for to answer the last message; None if it asks for nothing."""
    said = [message.text() for message in messages if message.role == "user"]
    if not said:
        return None
    last = _clean(said[-1])
    if not last or _SMALL_TALK.fullmatch(said[-1].strip()) or _CHORE.match(said[-1]):
        return None
    asked, long = _asking(last)
    words = asked.split()
    if len(words) <= FOLLOW_UP_WORDS and _LEANING.search(asked):
        before = next((one for one in map(_clean, reversed(said[:-1])) if _stands_alone(one)), "")
        if before:
            topic = _keywords(_asking(before)[0])
            return Wanted(_cut(f"{topic} {' '.join(_new_words(words, topic))}"), doubtful=True)
    if not _keywords(asked):
        return None
    return Wanted(_cut(asked), doubtful=long)


def _clean(text: str) -> str:
    """Return a message as one line without code and politeness."""
    line = " ".join(_CODE.sub(" ", text).split())
    return _POLITE.sub("", line).strip(" \"'“”") or line


def _asking(text: str) -> tuple[str, bool]:
    """Return the part that asks, and whether the text was too long to be asked as it is."""
    if len(text.split()) <= LONG_WORDS and len(text) <= QUERY_CHARACTERS_MAX:
        return text, False
    sentences = [one.strip() for one in _SENTENCE.findall(text) if one.strip()]
    questions = [one for one in sentences if one.endswith(("?", "？"))]  # noqa: RUF001 - the full-width mark
    return (questions or sentences or [text])[-1 if questions else 0], True


def _stands_alone(text: str) -> bool:
    return bool(text) and not _SMALL_TALK.fullmatch(text) and len(_keywords(text).split()) > 1


def _keywords(text: str) -> str:
    words = [word.strip(".,;:!?()\"'") for word in text.split()]
    return " ".join(word for word in words if word and word.lower() not in _EMPTY_WORDS)


def _new_words(words: list[str], topic: str) -> list[str]:
    known = {word.lower() for word in topic.split()}
    bare = (word.strip(".,;:!?()\"'") for word in words)
    return [word for word in bare if word and word.lower() not in known and word.lower() not in _LEANING_WORDS]


def _cut(text: str) -> str:
    text = text.strip()
    if len(text) <= QUERY_CHARACTERS_MAX:
        return text
    return text[:QUERY_CHARACTERS_MAX].rsplit(" ", 1)[0]

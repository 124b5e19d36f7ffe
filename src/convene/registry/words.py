"""Text as the words it is searched by: any language, without accents and endings. Pure; `lexical.py` calls it.

Letters are case-folded and lose their accents (Unicode NFKD), so that `Zürich` is found by `zurich`. Writing without
spaces (Chinese, Japanese, Korean, Thai) becomes pairs of letters. A plural `s` of Latin words goes; other endings are
left to the index, which looks at words with the same beginning. `camelCase` and `snake_case` fall into their parts.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

WORD_CHARS_MAX: Final = 40
"""Longer ones are addresses and digests; nobody types them as words, so they are cut."""
PLURAL_CHARS_MIN: Final = 4
_UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u3040-\u30ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul, whole and in parts (NFKD takes it apart)
    "\U00020000-\U0003134f"
)
_INDIC: Final = "\u0900-\u0963\u0966-\u0dff"
"""Scripts of India whose vowel signs are no letters by Unicode's classes; without them words would fall apart."""
_PIECES: Final = re.compile(rf"[{_UNSPACED}]+|(?:[^\W_{_UNSPACED}]|[{_INDIC}])+")
_ASCII: Final = re.compile(r"[a-z0-9]+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_UNSPACED_FIRST: Final = re.compile(rf"[{_UNSPACED}]")
_KEPT_S: Final = ("ss", "us", "is", "as", "os", "ws")

_FUNCTION_WORDS: Final = """
a about all also am an and any are as at be been but by can could did do does for from get give had has have he
her here him his how i if in into is it its just know let like make may me might more most my need no not of on
or our out please she should so some tell than that the their them then there these they this to up us want was
we were what when where which who whose why will with would you your agent agents au aux avec ce ces dans de des
du elle en est et il je la le les ma mes mon nous ou par pas pour que qui sa se ses son sur ta te tu un une vous
aber als auch auf aus bei bin bitte das dem den der die ein eine einen einer es fur hat ich im ist kann mein
mich mir mit nach nicht oder sich sie sind und uns von wer wie wir wo zu zum zur al como con cual del donde el
ella los las mi muy o para pero por puedo quien quiero si sin su una y yo che chi come cosa da dei della di gli
ho io lo nel per piu questo sono com dos e em eu meu na nao os qual quero um uma
"""
FUNCTION_WORDS: Final = frozenset(_FUNCTION_WORDS.split())
"""Words that say how a question is built and not what it is about (English, French, German, Spanish, Italian,
Portuguese); left out of questions that hold another word. In a directory of three agents their rarity says nothing."""


def fold(text: str) -> str:
    """Return text with case and accents taken away."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def words(text: str, most: int = 1_000_000) -> list[str]:
    """Return the words of a text in their order, at most so many, each in the form in which it is indexed."""
    plain = fold(_HUMP.sub(" ", text))
    if plain.isascii():  # most texts, in a third of the time
        pieces = _ASCII.findall(plain)[:most]
        return [stem(piece[:WORD_CHARS_MAX]) if piece[-1] == "s" else piece[:WORD_CHARS_MAX] for piece in pieces]
    found: list[str] = []
    for piece in _PIECES.findall(plain):
        if _UNSPACED_FIRST.match(piece):
            found += [piece[at : at + 2] for at in range(max(1, len(piece) - 1))]
        else:
            found.append(stem(piece[:WORD_CHARS_MAX]))
        if len(found) >= most:
            return found[:most]
    return found


def stem(word: str) -> str:
    """Return a folded word without its plural ending."""
    if len(word) < PLURAL_CHARS_MIN or not word.endswith("s") or not word.isascii() or word.endswith(_KEPT_S):
        return word
    if word.endswith("ies") and len(word) > PLURAL_CHARS_MIN:
        return word[:-3] + "y"
    if word.endswith(("shes", "ches", "xes", "sses", "zes")):
        return word[:-2]
    return word[:-1]


def question_words(text: str, most: int) -> list[str]:
    """Return the different words that a question is about, at most so many."""
    found = list(dict.fromkeys(words(text, most * 4)))
    telling = [word for word in found if word not in FUNCTION_WORDS and stem(word) not in _STEMMED]
    return (telling or found)[:most]


_STEMMED: Final = frozenset(stem(word) for word in FUNCTION_WORDS)

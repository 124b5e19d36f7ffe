"""Where a lesson stands: the stages of study mode, decided in code from what the learner writes. Pure.

    diagnose ──► guide ──► guide ──► guide ──► check ──► guide ...
                   └── asks for the answer again ──► tell ──► check
    "next topic" from anywhere ──► diagnose

The same conversation always stands at the same place, so it is worked out from the messages that a client sends; a
client that sends the last one only has its place in its session.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import Message

Stage = Literal["diagnose", "guide", "check", "tell"]
Level = Literal["unknown", "beginner", "intermediate", "advanced"]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long stages last, from the prompt file."""

    guide_turns: int = 3
    """Messages of guiding before the understanding is checked."""
    insist_turns: int = 2
    """How often a learner asks for the answer until it is told."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a lesson stands once the learner has written `mark`."""

    stage: Stage = "diagnose"
    level: Level = "unknown"
    turns: int = 1
    """Messages in this stage, this one included."""
    insisted: int = 0
    mark: int = 0
    """Of the message: a request that is sent again does not go on."""


_NEW_TOPIC: Final = re.compile(
    r"\b(?:new|another|different|next) (?:topic|subject|question|exercise|problem|chapter)\b|\blet'?s (?:do|move on to|"
    r"talk about|learn) (?!it\b|that\b)|\b(?:i want|i'd like|i would like) to learn (?:about )?(?!it\b|that\b)|"
    r"\b(?:teach me|quiz me on)\b|\b(?:neues|anderes|nächstes) thema\b",
    re.IGNORECASE,
)
_INSISTS: Final = re.compile(
    r"\bjust (?:tell|give|show|solve|explain|answer|say)\b|"
    r"\b(?:give|tell|show) me the (?:\w+ )?(?:answer|solution|result)|\bwhat(?:'s| is) the "
    r"(?:answer|solution)\b|\bstop asking\b|\bno more questions\b|\bi give up\b|\bsolve it\b"
    r"|\bi (?:really )?(?:don'?t know|have no idea)\b|\bsag mir (?:einfach|die)\b|\bkeine ahnung\b",
    re.IGNORECASE,
)
_UNDERSTOOD: Final = re.compile(
    r"\b(?:i (?:get|got|see|understand)(?: it| that| now)?|got it|makes sense|that'?s clear|aha|verstanden|"
    r"jetzt verstehe)\b(?!.{0,20}\b(?:but|except)\b)",
    re.IGNORECASE,
)
_NOT_YET: Final = re.compile(r"\b(?:don'?t|do not|didn'?t|not|can'?t|cannot|nicht)\b", re.IGNORECASE)
_LEVELS: Final[Sequence[tuple[Level, re.Pattern[str]]]] = (
    (
        "beginner",
        re.compile(
            r"\b(?:beginner|new to (?:this|it)|never (?:heard|learned|learnt|done|used)|no (?:clue|idea what)|"
            r"explain like|eli5|i'?m (?:[5-9]|1[0-2])\b|(?:grade|class|year) (?:[1-8]|one|two|three|four|five|six)\b|"
            r"(?:primary|elementary|middle) school|anfänger|grundschule)",
            re.IGNORECASE,
        ),
    ),
    (
        "advanced",
        re.compile(
            r"\b(?:advanced|expert|phd|doctora\w+|master'?s|graduate (?:level|student|course)|researcher|professor|"
            r"i know (?:all )?the basics (?:very )?well|rigorous(?:ly)?|fortgeschritten)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "intermediate",
        re.compile(
            r"\b(?:intermediate|i know (?:the basics|some|a bit|a little)|high school|college|undergrad\w*|university|"
            r"(?:grade|class|year) (?:9|1[0-3])|some experience|abitur|studium)\b",
            re.IGNORECASE,
        ),
    ),
)


def follow(messages: Sequence[Message], pace: Pace, kept: Standing | None = None) -> Standing | None:
    """Return where the lesson stands after these messages; `kept` is where it stood for the session.

    None when nobody has written anything. More than one message of the learner's is a conversation that tells all.
    """
    said = [text for message in messages if message.role == "user" and (text := message.text().strip())]
    if not said:
        return None
    if len(said) == 1 and kept is not None:
        return kept if kept.mark == _mark(said[0]) else advance(kept, said[0], pace)
    level: Level = "unknown" if kept is None else kept.level
    found = _first(said[0], level)
    for text in said[1:]:
        found = advance(found, text, pace)
    return found


def advance(standing: Standing, said: str, pace: Pace) -> Standing:
    """Return where the lesson stands after one more message of the learner's."""
    level = _level(said) or standing.level
    insisted = standing.insisted + (_INSISTS.search(said) is not None)
    if _NEW_TOPIC.search(said):
        return _first(said, level)
    stage: Stage
    if standing.stage != "diagnose" and insisted > standing.insisted and insisted >= pace.insist_turns:
        stage, insisted = "tell", 0
    elif standing.stage == "tell" or (standing.stage == "guide" and _is_done(standing, said, pace)):
        stage = "check"
    else:
        stage = "guide"
    turns = standing.turns + 1 if stage == standing.stage else 1
    return replace(standing, stage=stage, level=level, turns=turns, insisted=insisted, mark=_mark(said))


def _first(said: str, level: Level) -> Standing:
    return Standing(level=_level(said) or level, mark=_mark(said))


def _is_done(standing: Standing, said: str, pace: Pace) -> bool:
    """Whether it is time to see what has been understood."""
    if standing.turns >= pace.guide_turns:
        return True
    return _UNDERSTOOD.search(said) is not None and _NOT_YET.search(said) is None


def _level(said: str) -> Level | None:
    return next((level for level, pattern in _LEVELS if pattern.search(said)), None)


def _mark(said: str) -> int:
    return zlib.crc32(said.encode("utf-8", "replace"))

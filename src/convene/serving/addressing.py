"""Which requests are for agents: addressed to one by name, or too small for any (decision 18, AGENTIC-08). Pure.

"@agent1q... how are you"          that agent, and nobody else
"@weather in Rome?"                the agent with that handle, if there is one
"ask the agent at address agent1q..."      that agent too
"hi", or the title of a chat       no agent, however many there are
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import Message

GREETING_MAX: Final = 60
"""Characters of a message that may be a mere greeting."""
_MENTION: Final = re.compile(
    r"\s*@(agent1q[02-9ac-hj-np-z]{58}|[A-Za-z0-9][A-Za-z0-9_.-]{0,39})(?=[\s,:;!?]|$)[\s,:;]*"
)
_NAMED: Final = re.compile(r"\bagent at (?:the )?address[:\s]+(agent1q[02-9ac-hj-np-z]{58})\b", re.IGNORECASE)
_GREETING: Final = re.compile(
    r"\W*(?:hi|hello|hey|hallo|hola|bonjour|ciao|yo|greetings|good (?:morning|afternoon|evening|night)"
    r"|thanks?|thank you|thx|ok(?:ay)?|bye|goodbye|how are you|what'?s up|test|ping|who are you|what can you do)"
    r"(?:[ ,]+(?:there|all|everyone|you|very much|so much|a lot|again|asi|asi1|asi:one))*\W*",
    re.IGNORECASE,
)
_CHORE: Final = re.compile(
    r"^\s*#+ *task:|\b(?:title|name) (?:for|of) (?:this|the) (?:chat|conversation)"
    r"|\b(?:generate|create|write|provide|suggest)\b[^.\n]{0,80}\b(?:title|tags?|follow-?ups?)\b"
    r"(?=.{0,200}\b(?:chat|conversation|dialogue|themes|questions)\b)",
    re.IGNORECASE | re.DOTALL,
)
"""What chat programs ask for beside the conversation: its title, tags, questions that could follow."""
CHORE_HEAD: Final = 400


class Addressed(msgspec.Struct, frozen=True):
    """Who is addressed, and with what."""

    agent: str
    """An address, or `@handle`."""
    say: str
    certain: bool
    """It is an agent's address, so it is meant for one whether it is known or not."""


def addressed(messages: Sequence[Message]) -> Addressed | None:
    """Return whom the last message of the user's addresses."""
    last = messages[-1]
    if last.role != "user":
        return None
    text = last.text()
    found = _MENTION.match(text)
    if found is not None:
        name, rest = found[1], text[found.end() :].strip()
        is_address = name.startswith("agent1q") and len(name) > len("agent1q") + 40
        return Addressed(name if is_address else f"@{name}", rest or text.strip(), is_address)
    named = _NAMED.search(text)
    return None if named is None else Addressed(named[1].lower(), text.strip(), certain=True)


def is_trivial(messages: Sequence[Message]) -> bool:
    """Whether a request is a greeting or a chore of a chat program: no agent is started for it."""
    last = messages[-1]
    if last.role != "user":
        return False
    text = last.text()
    if len(text) <= GREETING_MAX and _GREETING.fullmatch(text) is not None:
        return True
    return _CHORE.search(text[:CHORE_HEAD]) is not None

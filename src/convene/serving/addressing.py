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
_PHRASES: Final = (
    r"hi+|hello+|hey+(?:a|ya)?|hiya|howdy|yo|sup|greetings|good (?:day|morning|afternoon|evening|night)"
    r"|how are (?:you|things)(?: (?:doing|today|all|now))*|how(?:'?s| is) it going|how do you do|what'?s (?:up|new)"
    r"|(?:i am|i'?m) (?:fine|good|great|well|ok(?:ay)?|bored|back|here)"
    r"|(?:nice|good|pleased|great) to (?:meet|see) you|(?:many )?thanks?|thank you|thx|ty|cheers|much appreciated"
    r"|you(?:'re| are) (?:the best|great|welcome|awesome)|that (?:helped|helps|was (?:helpful|great))"
    r"|(?:so|very) (?:helpful|kind)|sorry|no problem|never ?mind|bye+|good ?bye|bye bye"
    r"|see (?:you|ya)(?: (?:later|tomorrow|soon|around))?|farewell|take care|have a (?:nice|good|great) \w+"
    r"|who are you|what are you|what can you do|what(?:'?s| is) your name|tell me about yourself"
    r"|are you (?:there|real|human|a (?:robot|bot|human|person|machine|computer)|an ai|ok(?:ay)?|alive|awake)|lol"
    r"|(?:ha){2,}h?|hehe+|hmm+|wow|test(?:ing)?|ping|wie heißt du|wer bist du|was kannst du|hallo|servus"
    r"|moin(?: moin)?|grüß (?:dich|gott)|guten? (?:morgen|tag|abend|nacht)|wie geht'?s(?: (?:dir|ihnen|euch))?"
    r"|wie geht es (?:dir|ihnen|euch)|danke(?: (?:schön|sehr|dir))?|vielen dank|tschüss|tschüs"
    r"|bis (?:bald|morgen|später)|auf wiedersehen|hola|buen[oa]s (?:días|dias|tardes|noches)|buenas"
    r"|¿?(?:cómo|como) (?:estás|estas|está|te va)|¿?qué tal|que tal|(?:muchas )?gracias|adiós|adios"
    r"|hasta (?:luego|mañana|pronto)|¿?(?:quién|quien) eres|bonjour|bonsoir|salut|coucou|ça va"
    r"|comment (?:ça va|allez[- ]vous|vas[- ]tu)|merci(?: (?:beaucoup|bien))?|au revoir|à (?:bientôt|demain|plus)"
    r"|bonne (?:nuit|journée|soirée)|qui es[- ]tu|ciao|salve|buon(?:giorno|asera|anotte)|come (?:stai|va|sta)"
    r"|grazie(?: (?:mille|tante))?|arrivederci|a (?:presto|domani)|chi sei|olá|ola|oi|tudo bem|bom dia"
    r"|boa (?:tarde|noite)|como vai|(?:muito )?obrigad[oa]|tchau|até (?:logo|amanhã)|hoi|hallo daar"
    r"|goede(?:morgen|middag|navond)|hoe gaat het(?: met (?:je|jou|u))?|dank ?(?:je|u)(?: wel)?|bedankt|doei"
    r"|tot (?:ziens|morgen)|cześć|dzień dobry|hejka|jak się masz|co słychać|dziękuję|do widzenia|hej(?:san)?"
    r"|hur mår du|tack(?: så mycket)?|god (?:morgon|kväll|natt|dag)|hei|terve|kiitos|merhaba|selam"
    r"|günaydın|nasılsın"  # noqa: RUF001 -- Turkish
    r"|teşekkürler|привет|здравствуй(?:те)?|как дела|спасибо|пока|доброе утро|добрый (?:день|вечер)|до свидания"
    r"|你好(?:吗|啊)?|您好|嗨|谢谢(?:你)?|再见|早上好|晚上好|こんにちは|こんばんは"
    r"|おはよう(?:ございます)?|ありがとう(?:ございます)?|さようなら|元気(?:ですか)?|안녕(?:하세요)?"
    r"|감사합니다|नमस्ते|धन्यवाद|مرحبا|السلام عليكم|شكرا|שלום|תודה"
)
"""What is only said to be polite, in the languages that come often."""
_FILL: Final = (
    r"there|all|everyone|everybody|you|again|today|now|very much|so much|a lot"
    r"|for (?:everything|your help|that|the help)|and|my friend|friend|buddy|mate|dear|asi|asi1|asi:one|convene"
    r"|assistant|then|und|y|et|e|dir|te|a todos|daar"
)
_GREETING: Final = re.compile(rf"\W*(?:{_PHRASES})(?:\W+(?:{_PHRASES}|{_FILL}))*\W*", re.IGNORECASE)
_ASSENTS: Final = (
    r"ok(?:ay)?|cool|great|nice|perfect|good|fine|super|awesome|sure|alright|all right|yes|no|yeah|yep|nope|ja|nein|sí"
    r"|si|oui|non|gut|alles klar|prima|vale|bien|d'accord|da|да|нет|thanks?|thank you|a lot|so much|got it|i see"
)
_ASSENT: Final = re.compile(rf"\W*(?:(?:{_ASSENTS})(?:\W+|$))+", re.IGNORECASE)
"""Words that may be the answer to what the model has asked, so they are trivial only where it has not said anything."""
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
    """Whether a request is a greeting or a chore of a chat program: no agent is started for it.

    Measured on the embedded model (docs/decisions/0022-agentic-turn.md): of 62 greetings in 20 languages that the words
    were not made from 52 are found, and of 120 requests that ask for something none.
    """
    last = messages[-1]
    if last.role != "user":
        return False
    text = last.text()
    if len(text) <= GREETING_MAX:
        opens = all(message.role != "assistant" for message in messages)
        if _GREETING.fullmatch(text) is not None or (opens and _ASSENT.fullmatch(text) is not None):
            return True
    return _CHORE.search(text[:CHORE_HEAD]) is not None

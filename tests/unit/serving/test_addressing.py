"""Who is addressed by a message, and which messages are for no agent at all."""

from __future__ import annotations

import pytest

from convene.messages import Message
from convene.serving.addressing import Addressed, addressed, is_trivial
from market_doubles import ADDRESS


def said(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


@pytest.mark.req("AGENTIC-08")
@pytest.mark.parametrize(
    ("text", "whom"),
    [
        (f"@{ADDRESS} how is it?", Addressed(ADDRESS, "how is it?", certain=True)),
        (f"  @{ADDRESS}, how is it?", Addressed(ADDRESS, "how is it?", certain=True)),
        (f"@{ADDRESS}", Addressed(ADDRESS, f"@{ADDRESS}", certain=True)),
        ("@weather in Rome?", Addressed("@weather", "in Rome?", certain=False)),
        ("@my-agent_2.x: go\non", Addressed("@my-agent_2.x", "go\non", certain=False)),
        (
            f"Please ask the agent at address {ADDRESS} for the time",
            Addressed(ADDRESS, f"Please ask the agent at address {ADDRESS} for the time", certain=True),
        ),
        ("mail me@home.test", None),
        ("ask @weather", None),
        ("@", None),
        ("@!x", None),
        (f"@{ADDRESS}x hello", None),
    ],
)
def test_an_address_or_a_handle_at_the_head_addresses_an_agent(text: str, whom: Addressed | None) -> None:
    assert addressed(said(text)) == whom


def test_only_the_last_message_counts_and_only_the_users() -> None:
    assert addressed([*said("@weather in Rome?"), Message(role="assistant", content="Sunny.")]) is None
    assert addressed([*said("@weather in Rome?"), *said("and now?")]) is None
    assert not is_trivial([*said("hi"), Message(role="assistant", content="hi")])


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "Hello!",
        "hey there",
        "Thanks a lot!",
        "how are you?",
        "Hello, how are you today?",
        "see you tomorrow",
        "good morning everyone",
        "that was great, thank you",
        "hahaha",
        "ok",
        "Perfect, thanks!",
        "Guten Morgen",
        "Wie geht's?",
        "Danke schön",
        "¿Cómo estás?",
        "merci beaucoup",
        "olá, tudo bem?",
        "jak się masz?",
        "hej, hur mår du?",
        "привет",
        "你好",
        "こんにちは",
        "### Task:\nGenerate a concise, 3-5 word title with an emoji for the chat.",
        "Generate a concise title for this conversation",
        "Create 1-3 broad tags categorizing the main themes",
        "Suggest 3-5 relevant follow-up questions",
        "Write a title for this chat",
    ],
)
def test_greetings_and_chores_of_chat_programs_are_for_no_agent(text: str) -> None:
    assert is_trivial(said(text))


@pytest.mark.parametrize(
    "text",
    [
        "What is the weather in Rome?",
        "hi, book me a table",
        "Suggest the best title company in Boston",
        "test my site",
        "tomorrow",
        "morning",
        "later today at 5",
        "thanks, now send it to Bob",
        "hello world in python",
        "how do you say hello in German",
        "what is your name in Japanese",
        "yes please do",
        "Hallo, wie ist das Wetter in Berlin?",
    ],
)
def test_a_question_is_not_trivial(text: str) -> None:
    assert not is_trivial(said(text))


@pytest.mark.parametrize("text", ["ok", "yes", "sure, great", "perfect", "nein", "oui"])
def test_a_word_of_assent_is_trivial_only_before_the_model_has_asked_anything(text: str) -> None:
    assert is_trivial(said(text))
    assert not is_trivial([*said("Book it?"), Message(role="assistant", content="Shall I?"), *said(text)])
    assert is_trivial([*said("Book it?"), Message(role="assistant", content="Done."), *said("thank you")])

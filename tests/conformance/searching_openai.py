"""OpenAI's SDK for Python reads turns in which the server itself does something, with strict validation on.

An answer from the web, a plan, a lesson, and a turn that mixes a search, a tool of an MCP server and a function of the
client's: every chunk and every whole reply is held against the SDK's own types. Prints as `openai_sdk.py` does.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import openai

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION: Final = "How high is the lighthouse of Vellmar, and when was it lit first?"
ANSWER: Final = re.compile(r"The tower is 43 metres high \[\[1\]\]\(http[^)]+\) and .* \[\[2\]\]\(http[^)]+\)\.")
ASK: Final[Any] = [{"role": "user", "content": QUESTION}]
PAINT: Final[Any] = {
    "type": "function",
    "function": {
        "name": "paint_wall",
        "description": "Paints a wall",
        "parameters": {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]},
    },
}


def client() -> openai.OpenAI:
    return openai.OpenAI(
        base_url=os.environ["CHECK_BASE_URL"],
        api_key=os.environ["CHECK_API_KEY"],
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    )


def create(model: str = "asi1", messages: Any = ASK, **fields: Any) -> Any:  # noqa: ANN401 - as the SDK has it
    """Return a whole reply."""
    extra = {name: fields.pop(name) for name in ("web_search", "planner_mode", "study_mode") if name in fields}
    return client().chat.completions.create(model=model, messages=messages, extra_body=extra, **fields)


def read(model: str = "asi1", messages: Any = ASK, **fields: Any) -> tuple[str, list[str], Any]:  # noqa: ANN401
    """Stream one answer; return its text, the kinds of its steps in their order, and the last chunk."""
    text, steps, last = "", {}, None
    for chunk in create(model, messages, stream=True, stream_options={"include_usage": True}, **fields):
        for step in (chunk.model_extra or {}).get("intermediate_steps") or []:
            steps[step["id"]] = step["kind"]
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            last = chunk if chunk.choices[0].finish_reason else last
    assert last is not None, "no chunk with a finish_reason"
    return text, list(steps.values()), last


def streams_an_answer_from_the_web() -> None:
    text, kinds, last = read(web_search=True)
    assert ANSWER.fullmatch(text), text
    assert kinds == ["model", "search", "model", "fetch", "model"], kinds
    assert last.model_extra["metadata"]["run_id"], last


def gets_a_whole_answer_from_the_web() -> None:
    reply = create(web_search=True)
    message = reply.choices[0].message
    assert ANSWER.fullmatch(message.content), message
    cut = [message.content[one.url_citation.start_index : one.url_citation.end_index] for one in message.annotations]
    assert cut == re.findall(r"\[\[\d\]\]\([^)]*\)", message.content), cut


def streams_a_plan() -> None:
    text, kinds, last = read("asi1-ultra", planner_mode=True, web_search=True)
    assert text.startswith("High water is at 14:20 [[1]]"), text
    assert kinds[0] == "plan", kinds
    assert {"search", "tool", "model"} <= set(kinds), kinds
    assert last.choices[0].finish_reason == "stop", last


def gets_a_whole_plan() -> None:
    reply = create("asi1-ultra", planner_mode=True, web_search=True)
    assert {one["tool_name"] for one in reply.model_extra["executable_data"]} == {"web_search", "harbour__tides"}


def streams_a_lesson() -> None:
    text, kinds, _ = read(study_mode=True, web_search=True)
    assert ANSWER.fullmatch(text), text
    assert "model" in kinds, kinds


def mixes_tools_of_both_sides_and_takes_its_message_back() -> None:
    first = create("asi1-mini", tools=[PAINT], web_search=True)
    message = first.choices[0].message
    [call] = message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls", first
    assert (call.function.name, json.loads(call.function.arguments)) == ("paint_wall", {"colour": "red"}), call
    ran = {one["tool_name"]: one["status"] for one in first.model_extra["executable_data"]}
    assert ran == {"web_search": "done", "harbour__tides": "done"}, ran
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"painted": true}'}
    second = create("asi1-mini", [*ASK, message, result], tools=[PAINT], web_search=True)
    assert second.choices[0].message.content.startswith("High water is at 14:20; the wall is red [[1]]"), second


def streams_a_mixed_turn_and_takes_its_message_back() -> None:
    calls: dict[int, Any] = {}
    for chunk in create("asi1-mini", tools=[PAINT], web_search=True, stream=True):
        for piece in chunk.choices[0].delta.tool_calls or []:
            known = calls.setdefault(piece.index, {"id": piece.id, "name": piece.function.name, "arguments": ""})
            known["arguments"] += piece.function.arguments or ""
    [call] = calls.values()
    assert (call["name"], json.loads(call["arguments"])) == ("paint_wall", {"colour": "red"}), call
    function = {"name": call["name"], "arguments": call["arguments"]}
    said = {"role": "assistant", "tool_calls": [{"id": call["id"], "type": "function", "function": function}]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": '{"painted": true}'}
    text, _, _ = read("asi1-mini", [*ASK, said, result], tools=[PAINT], web_search=True)
    assert text.startswith("High water is at 14:20; the wall is red [[1]]"), text


def accepts_notices_strictly() -> None:
    reply = create(web_search=True, n=2)
    assert [one["code"] for one in json.loads(reply.metadata["notices"])] == ["one_choice"], reply.metadata
    _, _, last = read(web_search=True, n=2)
    assert [one["code"] for one in last.model_extra["metadata"]["notices"]] == ["one_choice"], last


CHECKS: Final[tuple[Callable[[], None], ...]] = (
    streams_an_answer_from_the_web,
    gets_a_whole_answer_from_the_web,
    streams_a_plan,
    gets_a_whole_plan,
    streams_a_lesson,
    mixes_tools_of_both_sides_and_takes_its_message_back,
    streams_a_mixed_turn_and_takes_its_message_back,
    accepts_notices_strictly,
)


def main() -> int:
    """Run all checks; the exit code says whether one failed."""
    failed = 0
    for check in CHECKS:
        try:
            check()
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is what the check found
            failed += 1
            print(f"failed {check.__name__}: {' '.join(str(fault).split())[:300]}")  # noqa: T201 - a program's answer
        else:
            print(f"ok {check.__name__}")  # noqa: T201 - the same
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

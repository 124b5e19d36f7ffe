"""Every form of a chat request that real clients send gets an answer; what cannot be read is a 400 that names it."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from api.conftest import Served

PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"foo": "bar"}, "strict": True}}

EVERY_FIELD: dict[str, Any] = {
    "audio": {"format": "wav", "voice": "alloy"},
    "frequency_penalty": -2,
    "function_call": "none",
    "functions": [{"name": "get_time", "description": "description", "parameters": {"foo": "bar"}}],
    "logit_bias": {"foo": 0},
    "logprobs": True,
    "max_completion_tokens": 0,
    "max_tokens": 0,
    "metadata": {"foo": "string"},
    "modalities": ["text"],
    "moderation": {"model": "any"},
    "n": 1,
    "parallel_tool_calls": True,
    "prediction": {"content": "string", "type": "content"},
    "presence_penalty": -2,
    "prompt_cache_key": "prompt-cache-key-1234",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "in-memory",
    "reasoning_effort": "none",
    "response_format": {"type": "text"},
    "safety_identifier": "safety-identifier-1234",
    "seed": -9007199254740991,
    "service_tier": "auto",
    "stop": "\n",
    "store": True,
    "temperature": 1,
    "tool_choice": "none",
    "tools": [TOOL],
    "top_logprobs": 0,
    "top_p": 1,
    "user": "user-1234",
    "verbosity": "low",
    "web_search_options": {
        "search_context_size": "low",
        "user_location": {
            "approximate": {"city": "city", "country": "country", "region": "region", "timezone": "timezone"},
            "type": "approximate",
        },
    },
}


@pytest.mark.req("CHAT-01", "CHAT-02", "CHAT-08", "API-01", "DEC-16")
async def test_the_smallest_request_is_a_model_and_one_message(served: Served) -> None:
    answer = await served.http.post(
        "/v1/chat/completions",
        headers=served.auth,
        json={"model": "scripted-echo", "messages": [{"role": "user", "content": "What are you capable of?"}]},
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["choices"][0]["message"]["content"] == "What are you capable of?"


@pytest.mark.req("OAI-02", "OAI-03", "CHAT-23", "CHAT-25", "OAI-25")
async def test_one_body_with_every_known_field_is_answered_whole_and_streamed(served: Served) -> None:
    whole = await served.chat(**EVERY_FIELD, stream=False, stream_options={"include_usage": True})
    assert whole.status_code == 200, whole.text
    assert whole.json()["choices"][0]["message"]["content"] == "hello big world"
    assert whole.json()["choices"][0]["finish_reason"] == "stop"
    frames = await served.frames(**EVERY_FIELD, stream_options={"include_usage": True, "include_obfuscation": True})
    assert text_of(frames) == "hello big world"
    assert frames[-1] == "[DONE]"


def text_of(frames: list[Any]) -> str:
    """Return the streamed text of the first choice."""
    chunks = [frame for frame in frames if isinstance(frame, dict)]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"] if choice["index"] == 0
    )


@pytest.mark.parametrize("field", sorted(EVERY_FIELD))
@pytest.mark.req("OAI-04", "CHAT-24")
async def test_null_asks_for_nothing_new_in_any_field(served: Served, field: str) -> None:
    answer = await served.chat(**{field: None})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "extra",
    [
        {"ignore_eos": True, "top_k": 5},
        {"fun_mode": True},
        {"enable_thinking": True, "thinking_budget": 6000},
        {"best_of": 1, "suffix": "x", "echo": False},
        {"parallel_tool_calls": False},
        {"stop": ["never"], "n": 1, "seed": 7},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"stream_options": {}},
        {"logit_bias": {"50256": 0}, "service_tier": "flex"},
        {"anything": {"nested": [1, {"deep": None}]}, "": 1, "\u2028": "\u0000"},
        {"web_search": True, "planner_mode": False, "study_mode": True, "agent_address": "agent1q..."},
        {"web_search_options": {}},
        {"temperature": 0, "top_p": 0.001, "presence_penalty": 2, "frequency_penalty": 2.0},
    ],
)
@pytest.mark.req("CHAT-24", "CHAT-25", "OAI-01", "SSE-13", "SSE-19")
async def test_fields_that_nobody_knows_are_no_reason_to_refuse(served: Served, extra: dict[str, Any]) -> None:
    answer = await served.chat(**extra)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "hello big world"


@pytest.mark.req("OAI-01")
async def test_unknown_fields_leave_one_debug_line_with_their_names_and_not_their_values(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="convene.chat"):
        await served.chat(top_k=5, ignore_eos="private words")
    (record,) = [record for record in caplog.records if record.name == "convene.chat"]
    assert record.levelname == "DEBUG"
    assert "ignore_eos, top_k" in record.getMessage()
    assert "private" not in record.getMessage()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("tools", [[], None])
@pytest.mark.req("OAI-13", "CHAT-24")
async def test_a_forced_tool_choice_without_tools_counts_as_none_with_a_warning(
    served: Served, caplog: pytest.LogCaptureFixture, choice: object, tools: object
) -> None:
    answer = await served.chat(tool_choice=choice, tools=tools)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    assert [record.levelname for record in caplog.records if "tool_choice" in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("limits", [{"max_tokens": 0}, {"max_completion_tokens": 0, "max_tokens": None}])
@pytest.mark.req("CHAT-06", "DEC-15", "OAI-05")
async def test_a_limit_of_zero_or_null_is_no_limit(served: Served, limits: dict[str, Any]) -> None:
    answer = await served.chat(**limits)
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.req("CHAT-05", "OAI-05", "OAI-41", "OAI-43")
async def test_the_newer_token_limit_wins_over_the_older_and_the_cut_shows(served: Served) -> None:
    reply = (await served.chat(max_tokens=1, max_completion_tokens=2)).json()
    assert reply["choices"][0]["message"]["content"] == "hello big"
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 2
    older = (await served.chat(max_tokens=1)).json()
    assert older["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.req("CHAT-03", "OAI-07", "OAI-10")
async def test_system_and_developer_messages_pass_and_any_message_may_have_a_name(served: Served, role: str) -> None:
    messages = [{"role": role, "content": "Be brief.", "name": "boss"}, {"role": "user", "content": "x", "name": "me"}]
    assert (await served.chat(messages=messages)).status_code == 200


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "assistant",
    [
        {"content": None, "tool_calls": [CALL]},
        {"content": "", "tool_calls": [CALL]},
        {"tool_calls": [CALL]},
        {"content": [{"type": "text", "text": "thinking"}], "tool_calls": [CALL], "name": "bot"},
        {"content": [], "tool_calls": [CALL | {"index": 0}]},
        {"content": "with text", "tool_calls": [CALL | {"custom": None}]},
    ],
)
@pytest.mark.req("OAI-08", "TOOLS-05", "TOOLS-06", "TOOLS-08")
async def test_assistant_content_may_be_anything_or_nothing_and_results_are_answered_without_tools(
    served: Served, assistant: dict[str, Any]
) -> None:
    messages = [
        {"role": "user", "content": "what now"},
        {"role": "assistant", **assistant},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"error":"Tool execution failed","status":"failed"}'},
    ]
    answer = await served.chat(messages=messages)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "what now"
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("content", [None, "", []])
@pytest.mark.req("OAI-08")
async def test_an_assistant_message_may_say_nothing_at_all(served: Served, content: object) -> None:
    messages = [{"role": "assistant", "content": content}, {"role": "user", "content": "x"}]
    assert (await served.chat(messages=messages)).status_code == 200


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "x", "refusal": None, "annotations": [], "audio": None, "function_call": None},
        {"role": "assistant", "content": "x", "reasoning": "r", "reasoning_content": "r", "tool_calls": None},
        {"role": "assistant", "content": None, "refusal": "I will not."},
        {"role": "assistant", "content": "x", "reasoning": {"any": "form"}, "thought": ["\n\n"]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}, {"type": "output_text", "text": "t"}]},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
    ],
)
@pytest.mark.req("OAI-11", "CHAT-30")
async def test_extras_and_nulls_that_clients_echo_are_accepted(served: Served, message: dict[str, Any]) -> None:
    answer = await served.chat(messages=[message, {"role": "user", "content": "x"}])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("model", ["scripted-echo", "scripted-think", "scripted-tools"])
@pytest.mark.req("CHAT-30", "CLIENT-03")
async def test_the_message_of_a_reply_can_be_sent_back_untouched(served: Served, model: str) -> None:
    tools = [{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "b"}}]
    first = (await served.chat(model=model, tools=tools)).json()["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in first.get("tool_calls", [])]
    assert bool(results) == (model == "scripted-tools")
    messages = [{"role": "user", "content": "go on"}, first, *results]
    answer = await served.chat(model=model, messages=messages)
    assert answer.status_code == 200, answer.text
    assert "tool_calls" not in answer.json()["choices"][0]["message"]


@pytest.mark.req("OAI-07")
async def test_the_deprecated_function_role_answers_a_function_call(served: Served) -> None:
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "21"},
    ]
    answer = await served.chat(model="scripted-tools", messages=messages)
    assert answer.json()["choices"][0]["message"]["content"] == 'The tools answered: "21"'


@pytest.mark.req("CHAT-29", "DEC-14")
async def test_messages_nested_once_are_unwrapped_and_nested_more_are_refused_by_path(served: Served) -> None:
    inner = [{"role": "user", "content": "inside"}]
    assert (await served.chat(messages=[inner])).json()["choices"][0]["message"]["content"] == "inside"
    deeper = await served.chat(messages=[[inner]])
    assert deeper.status_code == 400
    assert deeper.json()["error"]["param"] == "messages[0]"
    two = await served.chat(messages=[inner, inner])
    assert (two.status_code, two.json()["error"]["param"]) == (400, "messages[1]")


@pytest.mark.parametrize(
    ("part", "seen"),
    [
        ({"type": "image_url", "image_url": {"url": PIXEL}}, "look [image]"),
        ({"type": "image_url", "image_url": {"url": "https://a.test/x.png", "detail": "low"}}, "look [image]"),
        ({"type": "image_url", "image_url": PIXEL}, "look [image]"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "look [input_audio]"),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "x.pdf"}},
            "look [file]",
        ),
    ],
)
@pytest.mark.req("CHAT-26", "CHAT-27", "OAI-09", "CLIENT-14")
async def test_user_content_takes_text_pictures_audio_and_files(
    served: Served, part: dict[str, Any], seen: str
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]
    answer = await served.chat(messages=messages)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == seen


@pytest.mark.req("OAI-09")
async def test_a_tool_message_may_be_a_list_of_parts(served: Served) -> None:
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "21"}]},
    ]
    answer = await served.chat(model="scripted-tools", messages=messages)
    assert answer.json()["choices"][0]["message"]["content"] == 'The tools answered: "21"'


@pytest.mark.req("OAI-18")
async def test_a_stop_string_ends_the_output_and_is_not_in_it(served: Served) -> None:
    for stop in (" world", ["zzz", " world"]):
        reply = (await served.chat(stop=stop)).json()["choices"][0]
        assert (reply["message"]["content"], reply["finish_reason"]) == ("hello big", "stop")
        assert text_of(await served.frames(stop=stop)) == "hello big"
    five = await served.chat(stop=list("abcde"))
    assert (five.status_code, five.json()["error"]["param"]) == (400, "stop")


@pytest.mark.req("OAI-20")
async def test_a_seed_gets_a_fingerprint_whole_and_streamed(served: Served) -> None:
    whole = (await served.chat(seed=1)).json()
    chunks = [frame for frame in await served.frames(seed=1) if frame != "[DONE]"]
    assert whole["system_fingerprint"]
    assert {chunk["system_fingerprint"] for chunk in chunks} == {whole["system_fingerprint"]}


@pytest.mark.parametrize("tier", ["auto", "default", "flex", "scale", "priority", "fast"])
@pytest.mark.req("OAI-23")
async def test_the_reply_names_the_service_tier_when_one_was_asked_for(served: Served, tier: str) -> None:
    assert (await served.chat(service_tier=tier)).json()["service_tier"] == "default"
    chunks = [frame for frame in await served.frames(service_tier=tier) if frame != "[DONE]"]
    assert {chunk["service_tier"] for chunk in chunks} == {"default"}
    assert "service_tier" not in (await served.chat()).json()


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
@pytest.mark.req("OAI-22")
async def test_every_reasoning_effort_passes(served: Served, effort: str) -> None:
    assert (await served.chat(reasoning_effort=effort, verbosity="high")).status_code == 200


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "*/*", "image/png"])
@pytest.mark.req("HDR-06", "OAI-27")
async def test_stream_alone_and_not_accept_chooses_the_form(served: Served, accept: str) -> None:
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}]}
    headers = served.auth | {"Accept": accept}
    whole = await served.http.post("/v1/chat/completions", json=body, headers=headers)
    streamed = await served.http.post("/v1/chat/completions", json=body | {"stream": True}, headers=headers)
    assert whole.headers["content-type"] == "application/json"
    assert streamed.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "?", "application/json; v=1"]
)
@pytest.mark.req("OAI-28", "HDR-03")
async def test_a_missing_or_odd_content_type_does_not_break_a_valid_request(served: Served, kind: str | None) -> None:
    body = msgspec.json.encode({"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}]})
    headers = served.auth | ({} if kind is None else {"Content-Type": kind})
    assert (await served.http.post("/v1/chat/completions", content=body, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.req("OAI-28")
async def test_packed_bodies_are_read(served: Served, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body = msgspec.json.encode({"model": "scripted-echo", "messages": [{"role": "user", "content": "packed"}]})
    headers = served.auth | {"Content-Encoding": encoding}
    answer = await served.http.post("/v1/chat/completions", content=pack(body), headers=headers)
    assert answer.json()["choices"][0]["message"]["content"] == "packed"


@pytest.mark.parametrize(
    "headers",
    [
        {"ASI-Organization": "x", "ASI-Version": "2"},
        {"OpenAI-Organization": "o", "OpenAI-Project": "p", "X-Stainless-Lang": "js", "X-Stainless-Retry-Count": "1"},
        {"X-OpenWebUI-User-Id": "1", "X-OpenWebUI-User-Role": "admin", "Idempotency-Key": "k"},
        {"x-session-id": "any random string", "X-Delegated-For": "somebody"},
        {"x-session-id": "ses_" + "a" * 300},
    ],
)
@pytest.mark.req("HDR-07", "OSDK-10", "OSDK-11")
async def test_headers_nobody_knows_do_no_harm(served: Served, headers: dict[str, str]) -> None:
    answer = await served.http.get("/v1/models", headers=served.auth | headers)
    assert answer.status_code == 200
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}]}
    chat = await served.http.post("/v1/chat/completions", json=body, headers=served.auth | headers)
    assert chat.status_code == 200
    refused = await served.http.get("/v1/models", headers=headers)
    assert refused.status_code == 401


@pytest.mark.req("OAI-26")
async def test_a_body_of_the_responses_form_is_answered_in_the_shape_of_a_chat(served: Served) -> None:
    body = {
        "model": "scripted-echo",
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "hello there"}]},
        ],
        "max_output_tokens": 1,
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False, "description": None}],
        "reasoning": {"effort": "low"},
        "store": False,
    }
    answer = await served.http.post("/v1/chat/completions", json=body, headers=served.auth)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "chat.completion"
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    text = {"model": "scripted-echo", "input": "plain", "stream": True}
    streamed = await served.http.post("/v1/chat/completions", json=text, headers=served.auth)
    assert '"content":"plain"' in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")

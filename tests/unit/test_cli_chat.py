"""`convene chat` without a wire: what a stream says, and what refusals are told."""

from __future__ import annotations

import pytest

from convene import cli_chat
from convene.cli_chat import Delta, Server, base_url, deltas, refusal
from convene.cli_output import AskedWrongly, Stop

SERVER = Server("http://127.0.0.1:8000/v1", "", "asi1")


def frame(text: str) -> bytes:
    return b"data: " + text.encode() + b"\n"


def test_text_and_reasoning_come_out_in_order() -> None:
    lines = [
        b": ping\n",
        b"\n",
        frame('{"choices": [{"delta": {"role": "assistant", "content": ""}}]}'),
        frame('{"choices": [{"delta": {"reasoning_content": "hm"}}]}'),
        frame('{"choices": [{"delta": {"content": "Hel"}}]}'),
        b'data:{"choices": [{"delta": {"content": "lo"}}]}\r\n',
        frame('{"choices": [], "usage": {}}'),
        frame('{"choices": [{"delta": {}}], "intermediate_steps": []}'),
        frame('{"choices": [{"delta": {"content": null}, "finish_reason": "stop"}]}'),
        frame("[DONE]"),
        frame("not read any more"),
    ]
    assert list(deltas(lines)) == [Delta(reasoning="hm"), Delta("Hel"), Delta("lo")]


@pytest.mark.parametrize(
    "odd", ["[]", "5", '{"choices": 5}', '{"choices": [{"delta": {"content": 5}}]}', '{"error": null}']
)
def test_odd_frames_are_passed_over(odd: str) -> None:
    assert list(deltas([frame(odd), frame("[DONE]")])) == []


def test_an_error_frame_ends_with_its_message() -> None:
    lines = [frame('{"choices": [{"delta": {"content": "a"}}]}'), frame('{"error": {"message": "too\\u001b long"}}')]
    found = deltas(lines)
    assert next(found) == Delta("a")
    with pytest.raises(Stop, match="the answer broke off: too long"):
        next(found)


def test_an_end_before_done_is_an_error() -> None:
    with pytest.raises(Stop, match="closed the connection"):
        list(deltas([frame('{"choices": []}')]))


def test_a_frame_that_is_no_json_is_an_error() -> None:
    with pytest.raises(Stop, match="no JSON"):
        list(deltas([frame("{")]))


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"error": {"message": "Unknown key."}}', "401: Unknown key.\n  `convene keys create NAME`"),
        (404, b'{"error": {"message": "No model x."}}', "404: No model x.\n  is http://127.0.0.1:8000/v1 the right"),
        (500, b'{"error": "short"}', "500: short"),
        (500, b"{}", "500: no reason given"),
        (502, b"<html>Bad\x1b gateway</html>", "502: <html>Bad gateway</html>"),
        (503, b"", "503: Service Unavailable"),
    ],
)
def test_a_refusal_says_status_reason_and_next_step(status: int, body: bytes, said: str) -> None:
    stop = refusal(SERVER, status, body)
    assert said in stop.message
    assert stop.exit_code == 1


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a:1", "http://a:1/v1"),
        ("http://a:1/", "http://a:1/v1"),
        ("https://a/v1/", "https://a/v1"),
        ("https://a/other", "https://a/other"),
    ],
)
def test_a_base_url_may_leave_v1_out(text: str, url: str) -> None:
    assert base_url(text) == url


@pytest.mark.parametrize("text", ["a:1", "localhost", "ftp://a", "http://", ""])
def test_what_is_no_address_is_asked_again(text: str) -> None:
    with pytest.raises(AskedWrongly, match="http://HOST:PORT/v1"):
        base_url(text)


def test_a_conversation_remembers_goes_on_after_trouble_and_ends_with_an_empty_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = iter(["one", "two", "three", "four", " "])
    asked: list[list[str]] = []

    def answer(server: Server, messages: list[dict[str, str]]) -> str:
        assert server is SERVER
        asked.append([message["content"] for message in messages])
        if messages[-1]["content"] == "two":
            raise KeyboardInterrupt
        if messages[-1]["content"] == "three":
            raise Stop("it broke off")
        return messages[-1]["content"].upper()

    monkeypatch.setattr("builtins.input", lambda _: next(questions))
    monkeypatch.setattr(cli_chat, "answer", answer)
    cli_chat._converse(SERVER, [{"role": "system", "content": "s"}])
    assert asked == [
        ["s", "one"],
        ["s", "one", "ONE", "two"],
        ["s", "one", "ONE", "three"],
        ["s", "one", "ONE", "four"],
    ]
    out, err = capsys.readouterr()
    assert out == ""
    assert "(stopped)" in err
    assert "it broke off" in err


def test_the_end_of_input_ends_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    cli_chat._converse(SERVER, [])


def test_reasoning_is_talk_and_text_is_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_chat, "stream", lambda *_: iter([Delta(reasoning="hm\x1b"), Delta("Hel\x1b"), Delta("lo")]))
    assert cli_chat.answer(SERVER, []) == "Hel\x1blo"
    out, err = capsys.readouterr()
    assert out == "Hello\n"
    assert "hm" in err
    assert "hm\x1b" not in err.replace("hm\x1b[0m", "hm")

"""Our codec against the official A2A library: it reads what we write, and we read what it writes, on both wires."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.environments import Absent, clean_environment, ensure_python
from convene.agents import a2a_codec as codec
from servers import do_without

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = Path(__file__).with_name("a2a_library.py")
WAIT_S = 120.0
DOORS = {
    "1.0": codec.Door(url="https://a.test", binding="JSONRPC"),
    "0.3": codec.Door(url="https://a.test", binding="JSONRPC", legacy=True),
    "0.3 proto": codec.Door(url="https://a.test", binding="HTTP+JSON", legacy=True),
}


def ask(messages: Sequence[dict[str, Any]]) -> Any:  # noqa: ANN401 -- JSON
    try:
        python = ensure_python("a2a")
    except Absent as fault:
        do_without(str(fault))
    done = subprocess.run(  # noqa: S603 -- our own program
        [str(python), str(PROGRAM)],
        input=json.dumps({"messages": [*messages]}),
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(form: str, text: str, context_id: str, task_id: str, *, streams: bool) -> dict[str, Any]:
    door = DOORS[form]
    body = json.loads(codec.write_message(door, text, "m1", context_id, task_id, streams=streams).body)
    return {"form": form, "body": body["params"] if door.binding == "JSONRPC" else body}


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.req("A2A-03", "A2A-08")
def test_the_library_reads_what_we_write() -> None:
    drawn: list[tuple[str, str, str, str, bool]] = []

    @given(st.sampled_from([*DOORS]), TEXTS, st.sampled_from(["", "c"]), st.sampled_from(["", "t"]), st.booleans())
    @settings(max_examples=300, deadline=None, database=None)
    def draw(form: str, text: str, context_id: str, task_id: str, streams: bool) -> None:  # noqa: FBT001 -- drawn
        drawn.append((form, text, context_id, task_id, streams))

    draw()
    assert len(drawn) >= 300
    messages = [written(form, text, context, task, streams=streams) for form, text, context, task, streams in drawn]
    read = ask(messages)["read"]
    assert read == [
        {"text": text, "msg_id": "m1", "context_id": context, "task_id": task} for _, text, context, task, _ in drawn
    ]


@pytest.mark.req("A2A-04", "A2A-05", "A2A-08")
def test_we_read_what_the_library_writes() -> None:
    events = ask([])["events"]
    assert len(events) > 40
    for said in events:
        found = codec.read_event(said["wire"])
        assert type(found).__name__ == said["kind"], said
        if isinstance(found, codec.Task | codec.StatusUpdate):
            assert found.status.state == said["state"], said
            assert found.status.message is not None
            assert found.status.message.parts == (codec.TextPart(said["text"]),)
        elif isinstance(found, codec.ArtifactUpdate):
            assert (found.task_id, found.artifact.id, found.append) == ("t", "a", True), said
            [part] = found.artifact.parts
            if isinstance(part, codec.FilePart):
                assert (part.uri, part.media_type, part.name) == (said["uri"], "image/png", "n"), said
            else:
                assert part == codec.TextPart(said["text"]), said
        else:
            assert isinstance(found, codec.Message)
            assert (found.is_agents, found.parts) == (True, (codec.TextPart(said["text"]),))

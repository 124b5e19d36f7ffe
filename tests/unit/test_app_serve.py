"""What the operator is told at the start: where, with which key, what comes up, and nothing twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene import app_serve
from convene.app import First
from convene.app_models import Deployments
from convene.app_serve import announce, narrate, refuse_port
from convene.clock import SystemClock
from convene.config import Config, Engine, Scripted
from convene.engine.base import EngineSettings, EngineStatus, EngineView
from convene.engine.remote import RemoteEngine

if TYPE_CHECKING:
    from convene.engine.base import Mode

WITHOUT_ENGINE = Config(engine=Engine(enabled=False), scripted=Scripted(enabled=True), cache_dir=Path("nowhere"))


class Told:
    """As much of an application as is told of."""

    def __init__(self, config: Config, first_key: str | None = None, first_link: str | None = None) -> None:
        self.first = First(first_key, first_link)
        self.deployments = Deployments(config, SystemClock(), make_engine=borrowed)


def borrowed(name: str, mode: Mode, settings: EngineSettings) -> RemoteEngine:
    return RemoteEngine(name, mode, settings, lambda _: None)


def told(config: Config, capsys: pytest.CaptureFixture[str], key: str | None = None, port: int = 8001) -> str:
    """Return all that is told, both ways."""
    announce(Told(config, key), config, port)
    said = capsys.readouterr()
    assert said.out.startswith("curl ")
    assert said.out.count("\n") == 1, "standard output is the line to paste and nothing else"
    return said.err + said.out


def test_the_line_to_paste_has_the_port_and_the_new_key(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(WITHOUT_ENGINE, capsys, "convene_x", 9123)
    assert "listens on http://127.0.0.1:9123;" in text
    assert "curl http://127.0.0.1:9123/v1/chat/completions -H 'Authorization: Bearer convene_x'" in text


def test_the_first_admins_link_is_told_once_with_the_address_to_open(capsys: pytest.CaptureFixture[str]) -> None:
    announce(Told(WITHOUT_ENGINE, "convene_x", "convene_link_y"), WITHOUT_ENGINE, 9123)
    said = capsys.readouterr()
    assert "http://127.0.0.1:9123/signup?link=convene_link_y" in said.err
    assert "convene_link_y" not in said.out
    public = msgspec.structs.replace(WITHOUT_ENGINE, public_url="https://ai.example/")
    announce(Told(public, None, "convene_link_y"), public, 9123)
    assert "https://ai.example/signup?link=convene_link_y" in capsys.readouterr().err
    assert "/signup" not in told(WITHOUT_ENGINE, capsys)


def test_without_a_new_key_its_place_is_marked_and_the_way_to_one_said(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(WITHOUT_ENGINE, capsys)
    assert "Bearer YOUR_KEY" in text
    assert "convene keys create NAME" in text


def test_a_server_without_keys_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(msgspec.structs.replace(WITHOUT_ENGINE, auth="none"), capsys)
    assert "Bearer none-needed" in text
    assert 'auth = "none"' in text


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("::", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - only compared
        ("::1", "[::1]"),
        ("10.1.2.3", "10.1.2.3"),
    ],
)
def test_an_address_to_listen_on_becomes_one_to_ask(host: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"http://{shown}:8001/docs" in told(msgspec.structs.replace(WITHOUT_ENGINE, host=host), capsys)


def test_the_smoke_test_model_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "smoke-test model" in told(Config(cache_dir=Path("nowhere")), capsys)
    assert "smoke-test model" not in told(WITHOUT_ENGINE, capsys)


def test_a_server_without_any_model_says_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(Config(engine=Engine(enabled=False)), capsys)
    assert "No chat model is configured" in text


def test_a_port_that_cannot_be_had_is_said_with_the_way_out() -> None:
    fault = refuse_port(WITHOUT_ENGINE, OSError(98, "Address already in use"))
    assert fault.message == (
        "Cannot listen on 127.0.0.1:8000: Address already in use. Choose another port with --port or PORT."
    )


async def test_each_engine_is_told_of_until_it_is_ready_and_each_line_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_serve, "LOOK_S", 0.0)
    chat, embedding = borrowed("tiny", "chat", EngineSettings()), borrowed("mini", "embedding", EngineSettings())
    steps = [
        EngineStatus(state="fetching", completed_bytes=3_000_000, total_bytes=100_000_000),
        EngineStatus(state="fetching", completed_bytes=4_000_000, total_bytes=100_000_000),
        EngineStatus(state="fetching", completed_bytes=52_000_000, total_bytes=100_000_000),
        EngineStatus(state="loading", detail="loading the model"),
        EngineStatus(state="ready"),
    ]
    embedding.see(EngineView(status=EngineStatus(state="failed", detail="no room")))
    chat.see(EngineView(status=steps[0]))
    telling = asyncio.create_task(narrate([chat, embedding]))
    for step in steps:
        chat.see(EngineView(status=step))
        for _ in range(3):
            await asyncio.sleep(0)
    await telling
    assert capsys.readouterr().err.splitlines() == [
        "tiny: fetching 100 MB, 0 %",
        "mini: failed (no room)",
        "tiny: fetching 100 MB, 50 %",
        "tiny: loading (loading the model)",
        "tiny: ready",
    ]

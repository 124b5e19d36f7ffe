"""Which torch pip would install, by its report: no build for CUDA is ever fetched for a test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from images import at_hand


def report(version: str) -> str:
    return json.dumps({"install": [{"metadata": {"name": "torch", "version": version}}]})


@pytest.mark.parametrize(
    ("version", "platform", "small"),
    [
        ("2.13.0+cpu", "linux", True),
        ("2.13.0", "linux", False),
        ("2.13.0+cu130", "linux", False),
        ("2.13.0", "darwin", True),
        ("2.13.0", "win32", True),
    ],
)
def test_only_builds_for_the_processor_are_at_hand(version: str, platform: str, *, small: bool) -> None:
    assert at_hand.judge(report(version), platform) == (version, small)


@pytest.mark.parametrize("answer", ["", "[]", '{"install": []}', '{"install": [{"metadata": {}}]}'])
def test_a_pip_that_knows_none_is_told_with_the_way_out(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(at_hand, "PIP", (sys.executable, "-c", f"print({answer!r})"))
    assert at_hand.main("torch") == 1
    assert "PIP_EXTRA_INDEX_URL" in capsys.readouterr().err


def test_a_pip_that_fails_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("pip", 1.0)

    monkeypatch.setattr(subprocess, "run", fail)
    assert at_hand.main("torch") == 1


def test_a_small_one_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(at_hand, "PIP", (sys.executable, "-c", f"print({report('9.9+cpu')!r})"))
    assert at_hand.main("torch") == 0
    assert capsys.readouterr().err == "torch 9.9+cpu\n"

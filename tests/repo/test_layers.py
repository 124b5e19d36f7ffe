"""The contract in `.importlinter` holds for the real tree, and breaks for a tree that imports upward or sideways."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repo.modules import ROOT


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the package `convene` in a folder, with the project's own contract."""
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--no-cache", "--config", str(ROOT / ".importlinter")]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - a fixed command


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A package with one file on each of a few floors, none importing another."""
    for name in ("errors", "clock", "events", "app", "api/chat", "serving/turn", "store/base", "engine/base"):
        file = tmp_path / "convene" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        (file.parent / "__init__.py").touch()
    return tmp_path


def test_the_tree_imports_one_way_down() -> None:
    run = lint(ROOT / "src")
    assert run.returncode == 0, run.stdout


def test_a_tree_without_breach_passes(sample: Path) -> None:
    (sample / "convene/api/chat.py").write_text("import convene.serving.turn\nimport convene.errors\n")
    run = lint(sample)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("serving/turn.py", "import convene.api.chat"),
        ("errors.py", "def f():\n    from convene import clock"),
        ("store/base.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import convene.engine.base"),
        ("events.py", "from convene import app"),
    ],
)
def test_an_import_upward_or_sideways_breaks_the_contract(sample: Path, path: str, source: str) -> None:
    (sample / "convene" / path).write_text(source)
    run = lint(sample)
    assert run.returncode == 1
    assert "BROKEN" in run.stdout


def test_the_linter_is_there() -> None:
    assert shutil.which("lint-imports", path=str(Path(sys.executable).parent))

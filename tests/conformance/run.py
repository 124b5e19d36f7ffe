"""`make conformance`: other people's test suites and SDKs against real servers of ours. See `docs/conformance.md`.

    python tests/conformance/run.py [--list] [--only NAME] [--keep]

Exit code 0 if every suite meets what is expected of it in `SUITES`, 1 if one does not, 2 if one could not be run for
want of a tool (the text names it). A suite without its input is skipped by name.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a file: its package is not on the path yet

from conformance import suites
from conformance.environments import OUT, Absent, write_pins
from conformance.reports import Outcome
from conformance.servers import CONFIGURATIONS, Server, serve
from conformance.suites import Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Run = Callable[[str, Server], Outcome]


@dataclass(frozen=True)
class Suite:
    """One suite on one server, and what is expected of it."""

    name: str
    server: str
    run: Run
    passes: int
    """At least so many tests pass: a suite that ran nothing has not passed."""
    known: Mapping[str, str] = field(default_factory=dict)
    """Tests that may fail, each with the reason. On a scripted server they must, else the entry is out of date; of a
    fuzzer's findings that is not asked, as in its time it may not come upon them."""


CHAT: Final = "POST /v1/chat/completions"
UNDECLARED: Final = "Wrong response to undeclared method"
UNLISTED: Final = "GET says that completions are not kept (OAI-25); no operation worth describing"
UNDESCRIBED: Final = "Agentverse's own paths for listings, which agents know and our document leaves to theirs"
SKIPPED: Final = 3
WORDS: Final[Mapping[int, str]] = {0: "as expected", 1: "not as expected", 2: "not run", SKIPPED: "skipped"}
TINY: Final = "the tiny model babbles on to the limit of 200 tokens inside free JSON"

KNOWN_OF_OURS: Final[Mapping[str, str]] = {
    f"{CHAT}: {UNDECLARED}": UNLISTED,
    **{f"GET /v1/agents{rest}: {UNDECLARED}": UNDESCRIBED for rest in ("", "/{agent}")},
}

SUITES: Final[tuple[Suite, ...]] = (
    Suite("openai-own-tests", "open", suites.run_openai_tests, 22),
    Suite("openai-3-scripted", "scripted", suites.run_openai_3, 19),
    Suite("openai-2-scripted", "scripted", suites.run_openai_2, 19),
    Suite("node-current-scripted", "scripted", suites.run_node_current, 25),
    Suite("node-previous-scripted", "scripted", suites.run_node_previous, 25),
    Suite("langchain-scripted", "scripted", suites.run_langchain, 43),
    Suite("openai-3-searching", "searching", suites.search_openai_3, 8),
    Suite("openai-2-searching", "searching", suites.search_openai_2, 8),
    Suite("node-current-searching", "searching", suites.search_node_current, 17),
    Suite("node-previous-searching", "searching", suites.search_node_previous, 17),
    Suite("langchain-searching", "searching", suites.search_langchain, 7),
    Suite("fuzz-openai-document", "scripted", suites.fuzz_openai, 4),
    Suite("fuzz-openai-streams", "scripted", suites.fuzz_openai_streams, 1),
    Suite("fuzz-own-document", "scripted", suites.fuzz_own, 56, KNOWN_OF_OURS),
    Suite("fuzz-own-streams", "scripted", suites.fuzz_own_streams, 2),
    Suite("openai-3-embedded", "embedded", suites.run_openai_3, 19),
    Suite("openai-2-embedded", "embedded", suites.run_openai_2, 19),
    Suite("node-current-embedded", "embedded", suites.run_node_current, 25),
    Suite("node-previous-embedded", "embedded", suites.run_node_previous, 25),
    Suite("langchain-embedded", "embedded", suites.run_langchain, 42, {"TestConvene.test_json_mode": TINY}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen suites and return the exit code."""
    asked = _parse(arguments)
    if asked.lock:
        return _write_pins()
    chosen = [suite for suite in SUITES if not asked.only or any(suite.name.startswith(name) for name in asked.only)]
    if not chosen:
        _say(f"no suite begins with {' or '.join(asked.only)}; --list shows them")
        return 2
    if asked.list:
        for suite in chosen:
            told = " ".join((suite.run.__doc__ or "").split(". ")[0].removesuffix(".").split())
            _say(f"{suite.name:24} on the {suite.server} server: {told}")
        return 0
    codes = []
    for server in CONFIGURATIONS:
        group = [suite for suite in chosen if suite.server == server]
        if group:
            codes += _run_group(server, group, keep=asked.keep)
    return _conclude(codes)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--list", action="store_true", help="show the suites")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run what begins so; repeatable")
    parser.add_argument("--keep", action="store_true", help="keep the servers' folders with their logs and stores")
    parser.add_argument("--lock", action="store_true", help="choose all pins anew and run nothing")
    return parser.parse_args(arguments)


def _write_pins() -> int:
    try:
        write_pins()
    except Absent as fault:
        _say(str(fault))
        return 2
    return 0


def _conclude(codes: Sequence[int]) -> int:
    """Say how it all went and return the exit code."""
    counts = {word: codes.count(code) for code, word in WORDS.items()}
    _say(", ".join(f"{count} {word}" for word, count in counts.items() if count) + f"; all output is in {OUT}")
    return next((code for code in (1, 2) if code in codes), 0)


def _run_group(name: str, group: Sequence[Suite], *, keep: bool) -> list[int]:
    """Run the suites of one server, which lives no longer than they do; return a key of `WORDS` for each."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(serve(name, keep=keep))
        except Absent as fault:
            _say(f"{name}: {fault}")
            return [1] * len(group)
        _say(f"== the {name} server, {server.root}")
        return [_run_one(suite, server) for suite in group]


def _run_one(suite: Suite, server: Server) -> int:
    began = time.monotonic()
    try:
        outcome = suite.run(suite.name, server)
    except Skipped as fault:
        _say(f"{suite.name:24} skipped: {fault}")
        return SKIPPED
    except Absent as fault:
        _say(f"{suite.name:24} not run: {fault}")
        return 2
    except subprocess.TimeoutExpired as fault:
        _say(f"{suite.name:24} did not end within {fault.timeout:g} s")
        return 1
    except FileNotFoundError as fault:  # it ended without writing its report
        _say(f"{suite.name:24} left no report ({fault.filename}); see output.txt beside it")
        return 1
    counts = f"{len(outcome.passed)} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped"
    note = f", {outcome.note}" if outcome.note else ""
    _say(f"{suite.name:24} {counts}{note}, {time.monotonic() - began:.0f} s")
    wrong = list(complaints(suite, outcome))
    for name, why in outcome.failed.items():
        if name in suite.known:
            _say(f"   known: {name} ({suite.known[name]})")
        else:
            _say(f"   FAILED {name}: {why}")
    for text in wrong:
        _say(f"   {text}")
    return 1 if wrong else 0


def complaints(suite: Suite, outcome: Outcome) -> list[str]:
    """Return what is not as expected, in words; empty if all is well."""
    found = []
    fresh = sorted(set(outcome.failed) - set(suite.known))
    if fresh:
        found.append(f"{len(fresh)} unexpected failures")
    stale = sorted(set(suite.known) & outcome.passed)
    if stale and suite.server != "embedded":  # a model that draws lots may succeed now and then
        found.append(f"known failures that pass now, take them out of the table: {', '.join(stale)}")
    explained = set(outcome.failed) & set(suite.known)  # what failed as is known has run too
    if len(outcome.passed) + len(explained) < suite.passes:
        found.append(f"{len(outcome.passed)} passed, {suite.passes} expected")
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

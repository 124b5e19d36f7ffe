"""The manifest and the tests agree: what is proved is cited, what is cited is proved, and every cited id exists."""

from __future__ import annotations

from collections import Counter

import pytest

import requirements
from repo.citations import Citation, citations, disagreements
from repo.modules import Module, read
from requirements import Requirement

IDS_BY_PAGE = {"asi-one": 228, "openai-conventions": 145, "agents": 165}


def sample(state: str = "2") -> dict[str, Requirement]:
    return {row.id: row for row in requirements.parse(f"[asi-one §3]\nCHAT-01 {state} A sentence.\n")}


def test_every_id_of_the_three_pages_is_in_the_manifest_once() -> None:
    rows = requirements.load().values()
    assert Counter(row.source.split()[0] for row in rows) == IDS_BY_PAGE


def test_every_sentence_of_the_manifest_is_one() -> None:
    poor = [row.id for row in requirements.load().values() if len(row.sentence) < 20 or row.sentence[-1] not in ".`"]
    assert not poor


def test_tests_and_manifest_agree() -> None:
    cited: list[Citation] = []
    wrong: list[str] = []
    for module in read("tests"):
        try:
            found = list(citations(module))
        except SyntaxError as fault:
            wrong.append(f"{module.path}:{fault.lineno}: does not parse: {fault.msg}")
            continue
        cited += [item for item in found if isinstance(item, Citation)]
        wrong += [str(item) for item in found if not isinstance(item, Citation)]
    for kind, items in disagreements(cited, requirements.load()).items():
        if items:
            wrong.append(f"{len(items)} {kind}:\n  " + "\n  ".join(items))
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_a_cited_id_that_does_not_exist_is_reported() -> None:
    found = disagreements([Citation("CHAT-99", "tests/x.py", 3)], sample())
    assert found["cited by a test but not in the manifest"] == ["CHAT-99 at tests/x.py:3"]


def test_a_cited_id_that_is_still_planned_is_reported() -> None:
    found = disagreements([Citation("CHAT-01", "tests/x.py", 3)], sample("2"))
    assert [items for kind, items in found.items() if "planned" in kind] == [["CHAT-01"]]


def test_a_proved_id_that_no_test_cites_is_reported() -> None:
    assert disagreements([], sample("proved"))["proved but cited by no test"] == ["CHAT-01"]


def test_a_proved_and_cited_id_is_in_order() -> None:
    assert not any(disagreements([Citation("CHAT-01", "tests/x.py", 3)], sample("proved")).values())


@pytest.mark.parametrize(
    "source",
    [
        '@pytest.mark.req("CHAT-01", "CHAT-02")\ndef test_x(): ...',
        '@mark.req("CHAT-01", "CHAT-02")\nclass TestX: ...',
        'pytestmark = [pytest.mark.req("CHAT-01"), pytest.mark.req("CHAT-02")]',
        'CASES = [pytest.param(1, marks=pytest.mark.req("CHAT-01", "CHAT-02"))]',
    ],
)
def test_a_citation_is_found_wherever_pytest_takes_a_mark(source: str) -> None:
    found = [item.id for item in citations(Module("tests/x.py", source)) if isinstance(item, Citation)]
    assert found == ["CHAT-01", "CHAT-02"]


@pytest.mark.parametrize("source", ["@pytest.mark.req(*IDS)\ndef test_x(): ...", "pytestmark = pytest.mark.req()"])
def test_a_citation_that_cannot_be_read_is_reported(source: str) -> None:
    assert not any(isinstance(item, Citation) for item in citations(Module("tests/x.py", source)))
    assert list(citations(Module("tests/x.py", source)))


def test_live_tests_prove_nothing_since_they_are_opt_in() -> None:
    assert not list(citations(Module("tests/live/test_x.py", 'pytestmark = pytest.mark.req("CHAT-01")')))


@pytest.mark.parametrize(
    "row", ["CHAT-1 2 A short id.", "CHAT-01 done No state.", "CHAT-01 2", "", "CHAT-01 0 No issue."]
)
def test_a_malformed_row_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match="not a row"):
        list(requirements.parse(f"[asi-one §3]\n{row}\n"))


def test_a_row_without_a_source_is_refused() -> None:
    with pytest.raises(ValueError, match="not a row"):
        list(requirements.parse("CHAT-01 2 A sentence.\n"))


def test_an_id_that_occurs_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "[asi-one §3]\nCHAT-01 2 A sentence.\n"
    monkeypatch.setattr(requirements, "TABLES", (table, table))
    with pytest.raises(ValueError, match="CHAT-01 occurs twice"):
        requirements.load()


def test_a_row_may_go_on_over_indented_lines() -> None:
    (row,) = requirements.parse("[asi-one §3]\nCHAT-01 proved One\n    two\n    three.\n")
    assert row == Requirement("CHAT-01", "One two three.", "asi-one §3", None)

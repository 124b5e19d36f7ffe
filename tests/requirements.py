"""The manifest of requirements: every id of the three specification pages, its sentence, its source and its state.

The rows stand in three tables beside this file, one per page. A table is plain text so that a row stays one short
paragraph and a change of state is a change of one word:

    [page §section]                  the source of the rows below it
    CHAT-01 2 The chat so far is ... planned: issue 2 will build it
    CHAT-02 proved The required ...  proved: at least one test cites it with @pytest.mark.req("CHAT-02")
        an indented line continues the sentence above it

`tests/repo/test_requirements.py` holds the manifest and the tests together: it fails when a proved id has no test, when
a test cites an id that is still planned, and when a test cites an id that does not exist.

Not here: evidence and rationale, which are the pages' business. Run as a program it prints how many ids of each page
are proved.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import requirements_agents
import requirements_asi_one
import requirements_openai

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROVED: Final = "proved"
"""The state word of a row that tests prove; any other state is the number of the issue that will."""

TABLES: Final = (requirements_asi_one.ROWS, requirements_openai.ROWS, requirements_agents.ROWS)

_SOURCE = re.compile(r"\[([a-z-]+ §\d+(?:\.\d+)?)\]")
_ROW = re.compile(r"([A-Z][A-Z0-9]*-\d\d) (proved|[1-9]\d*) (\S.*)")
_CONTINUATION = re.compile(r"    (\S.*)")


class Requirement(NamedTuple):
    """One sentence that must hold."""

    id: str
    sentence: str
    source: str
    """Page and section, such as `asi-one §4`."""
    issue: int | None
    """The issue that is to build it, or None once tests prove it."""

    @property
    def proved(self) -> bool:
        """Whether tests prove it."""
        return self.issue is None


def parse(table: str) -> Iterator[Requirement]:
    """Yield the rows of one table in order. Raises ValueError with the line's text if it is none of the three forms."""
    source = ""
    row: Requirement | None = None
    for line in table.splitlines():
        if (more := _CONTINUATION.fullmatch(line)) and row:
            row = row._replace(sentence=f"{row.sentence} {more[1]}")
            continue
        if row:
            yield row
            row = None
        if head := _SOURCE.fullmatch(line):
            source = head[1]
        elif (match := _ROW.fullmatch(line)) and source:
            row = Requirement(match[1], match[3], source, None if match[2] == PROVED else int(match[2]))
        else:
            raise ValueError(f"not a row of the manifest: {line!r}")
    if row:
        yield row


def load() -> Mapping[str, Requirement]:
    """Return every requirement by its id. Raises ValueError for a malformed row or an id that occurs twice."""
    found: dict[str, Requirement] = {}
    for table in TABLES:
        for row in parse(table):
            if row.id in found:
                raise ValueError(f"{row.id} occurs twice: in {found[row.id].source} and in {row.source}")
            found[row.id] = row
    return found


def _print_summary() -> None:
    rows = load().values()
    pages = dict.fromkeys(row.source.split()[0] for row in rows)
    for page in pages:
        mine = [row for row in rows if row.source.startswith(f"{page} ")]
        sys.stdout.write(f"{page}: {sum(row.proved for row in mine)} of {len(mine)} proved\n")


if __name__ == "__main__":
    _print_summary()

"""Which tests say that they prove which requirement: read from the syntax tree, so nothing is imported or run.

Every `pytest.mark.req("ID", ...)` counts, as a decorator of a function or class, in `pytestmark`, or as a `marks=` of a
`pytest.param`. Tests under `tests/live` are opt-in and prove nothing here.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from repo.modules import Finding, Module, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requirements import Requirement


class Citation(NamedTuple):
    """One id that one test cites."""

    id: str
    path: str
    line: int


def citations(module: Module) -> Iterator[Citation | Finding]:
    """Yield the ids cited in a file; a citation that is not plain text, or has no id, is a finding."""
    if module.path.startswith("tests/live/"):
        return
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Call) and dotted(node.func).endswith("mark.req")):
            continue
        if not node.args:
            yield module.finding(node, "a req mark without an id")
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield Citation(argument.value, module.path, node.lineno)
            else:
                yield module.finding(node, "a req mark takes plain texts, so that it can be read without running it")


def disagreements(cited: list[Citation], known: Mapping[str, Requirement]) -> dict[str, list[str]]:
    """Return, by kind of disagreement, what is wrong between the tests and the manifest; empty lists where nothing."""
    ids = {citation.id for citation in cited}
    unknown = [f"{c.id} at {c.path}:{c.line}" for c in cited if c.id not in known]
    return {
        "cited by a test but not in the manifest": unknown,
        "cited by a test but planned: write `proved` for the issue number in tests/requirements_*.py": sorted(
            name for name in ids if name in known and not known[name].proved
        ),
        "proved but cited by no test": sorted(name for name, row in known.items() if row.proved and name not in ids),
    }

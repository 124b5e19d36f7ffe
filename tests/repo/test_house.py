"""The bars and invariants of ARCHITECTURE.md over the real tree. Style is a test.

An exception is listed here by name with its reason, and is itself tested: one that excuses nothing fails.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

import pytest

from repo import rooms, rules, sizes, tracked
from repo.modules import ROOT, Finding, Module, Rule, apply, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TEST_RATIO_MIN: Final = 1.3
"""Lines of tests for each line of the product. The aim is 1.3."""

RULES: Final[tuple[Rule, ...]] = (
    sizes.module_length,
    sizes.function_length,
    sizes.branches,
    sizes.bare_signatures,
    sizes.uncommented_broad_handlers,
    sizes.swallowed_cancellation,
    rules.docstring,
    rules.local_imports,
    rules.import_time_work,
    rules.module_state,
    rules.clock_reads,
    rules.environment_reads,
    rules.outside_packages,
    rules.names,
    rules.depth,
    rooms.faces,
    rooms.loners,
)

EXCEPTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("clock_reads", "src/convene/engine/child.py"): (
        "A program of its own in the child process: it times its start before anything could be handed in."
    ),
    ("clock_reads", "src/convene/engine/image_child.py"): (
        "A program of its own in the child process: it times its start before anything could be handed in."
    ),
    ("environment_reads", "src/convene/engine/image_child.py"): (
        "A program of its own in the child process: it tells the libraries to keep off the network, then imports."
    ),
    ("environment_reads", "src/convene/engine/installer.py"): (
        "Lends the whole environment to the installer it starts, for the user's proxy; reads no setting."
    ),
    ("outside_packages", "src/convene/engine/hub.py"): (
        "Fetches model files by itself, as the engine imports nothing of ours: the statuses are the host's."
    ),
}
"""(rule, path) to the reason why this file may break this rule."""


@pytest.fixture(scope="module")
def written() -> list[Module]:
    modules = read("src/convene")
    assert modules, "the product is where the tests look for it"
    return modules


@pytest.fixture(scope="module")
def product(written: list[Module]) -> list[Module]:
    """What parses; the rest has a test of its own, so that one broken file is reported once and not by every rule."""
    broken = {finding.path for finding in apply(syntax, written)}
    return [module for module in written if module.path not in broken]


def syntax(module: Module) -> Iterator[Finding]:
    """Find nothing, but parse: `apply` turns a failure into a finding."""
    assert isinstance(module.tree, ast.Module)
    yield from ()


def report(findings: list[Finding]) -> None:
    """Fail with one line for each finding."""
    if findings:
        pytest.fail("\n".join(map(str, findings)), pytrace=False)


def test_every_module_parses(written: list[Module]) -> None:
    report(apply(syntax, written))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_no_module_breaks(rule: Rule, product: list[Module]) -> None:
    report([finding for finding in apply(rule, product) if (rule.__name__, finding.path) not in EXCEPTIONS])


def test_every_exception_still_excuses_something(product: list[Module]) -> None:
    used = {(rule.__name__, finding.path) for rule in RULES for finding in apply(rule, product)}
    assert not set(EXCEPTIONS) - used
    assert all(len(reason.split()) > 3 for reason in EXCEPTIONS.values())


def test_modules_are_short_as_a_rule(product: list[Module]) -> None:
    median, p90 = sizes.length_spread(product)
    assert median <= sizes.MODULE_LINES_MEDIAN
    assert p90 <= sizes.MODULE_LINES_P90


def test_any_is_rare(product: list[Module]) -> None:
    found = apply(sizes.any_uses, product)
    lines = sum(module.lines for module in product)
    if len(found) * 1000 > sizes.ANY_PER_1000_LINES * lines:
        report(found)


def test_broad_handlers_are_rare(product: list[Module]) -> None:
    found = apply(sizes.broad_handlers, product)
    total = sum(len(list(sizes.handlers(module))) for module in product)
    if len(found) * 100 > sizes.BROAD_HANDLERS_PERCENT * total:
        report(found)


def test_every_part_has_its_floor(product: list[Module]) -> None:
    report(rooms.unplaced(product, (ROOT / ".importlinter").read_text("utf-8")))


def test_no_file_names_the_workplace_or_a_registry() -> None:
    report([finding for path, text in tracked.texts() for finding in tracked.leaks(path, text)])


def test_tests_outweigh_the_product(product: list[Module]) -> None:
    tables = "tests/requirements_"
    tests = sum(module.lines for module in read("tests") if not module.path.startswith(tables))
    ratio = tests / sum(module.lines for module in product)
    if ratio < TEST_RATIO_MIN:
        pytest.fail(f"{ratio:.2f} lines of tests for each line of the product, {TEST_RATIO_MIN} wanted", pytrace=False)

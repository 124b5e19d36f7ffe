"""The project's files as the style tests see them: parsed modules, findings, and the walk over the tree.

A file that does not parse is one finding that names it, never a crash, so one half-written file does not hide what is
wrong with the others. The rules themselves are in sizes.py, rules.py, rooms.py and tracked.py; all are functions from a
`Module` to findings, which test_checks_can_fail.py shows to catch a bad sample.
"""

from __future__ import annotations

import ast
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "src/convene/"

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    """One breach of one rule."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        """Return `path:line: text`, as editors and terminals like it."""
        return f"{self.path}:{self.line}: {self.text}"


class Module:
    """One Python file: `path` is relative to the root of the project, with forward slashes."""

    def __init__(self, path: str, source: str) -> None:
        """Parse lazily; `tree` raises SyntaxError for a broken file."""
        self.path = path
        self.source = source

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree. Raises SyntaxError."""
        return ast.parse(self.source, self.path)

    @cached_property
    def name(self) -> str:
        """The dotted name, `convene.api.chat`; a package's is that of its folder."""
        dotted = self.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
        return dotted.removesuffix(".__init__")

    @property
    def is_package(self) -> bool:
        """Whether it is an `__init__.py`."""
        return self.path.endswith("/__init__.py")

    @property
    def lines(self) -> int:
        """Its length in lines."""
        return len(self.source.splitlines())

    def functions(self) -> Iterator[Function]:
        """Yield every function, methods and nested ones included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def finding(self, node: ast.AST | int, text: str) -> Finding:
        """Return a finding at a node or line."""
        return Finding(self.path, node if isinstance(node, int) else getattr(node, "lineno", 1), text)


Rule: TypeAlias = "Callable[[Module], Iterator[Finding]]"


def read(folder: str) -> list[Module]:
    """Return every Python file under a folder of the project, by path."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return [Module(file.relative_to(ROOT).as_posix(), file.read_text("utf-8")) for file in files]


def apply(rule: Rule, modules: list[Module]) -> list[Finding]:
    """Return what a rule finds in all modules; a file that cannot be parsed is itself a finding."""
    found: list[Finding] = []
    for module in modules:
        try:
            found.extend(rule(module))
        except SyntaxError as fault:
            found.append(module.finding(fault.lineno or 1, f"does not parse: {fault.msg}"))
    return found


def own_imports(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import of our own package as (statement, dotted name), relative ones resolved.

    `from convene.store import base` yields `convene.store.base`, `from convene.store.base import Keys` yields
    `convene.store.base.Keys`: whether the last part is a module or a name in one is for the caller to tell.
    """
    home = module.name.split(".")
    if not module.is_package:
        home = home[:-1]
    for node in ast.walk(module.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = home[: len(home) - node.level + 1] if node.level else []
            origin = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.stmt):
            yield from ((node, name) for name in names if name.split(".")[0] == "convene")


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for a chain of names, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def aliases(module: Module) -> dict[str, str]:
    """Return what each imported name stands for: `import time as t` gives `{"t": "time"}`."""
    found: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return found


def references(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield each use of an imported name as (node, full name): `t.monotonic` of the above gives `time.monotonic`.

    Only the longest chain of a use is yielded. A name that a function shadows is still taken for the import.
    """
    known = aliases(module)
    inner = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Name | ast.Attribute) or id(node) in inner:
            continue
        first, _, rest = dotted(node).partition(".")
        if first in known:
            yield node, f"{known[first]}.{rest}" if rest else known[first]


def imported(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield every absolute import as (statement, full name of the module or of the name in it)."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)

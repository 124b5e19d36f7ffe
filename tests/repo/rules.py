"""The invariants of ARCHITECTURE.md that one file alone can break: import effects, module state, time, environment.

Also names, docstrings, and which outside packages belong to which room. What two files can break is in rooms.py.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from repo.modules import PACKAGE, Finding, Module, aliases, dotted, imported, own_imports, references

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME_AND_CHANCE: Final = frozenset(
    {
        *(f"time.{name}" for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")),
        *(f"time.{name}_ns" for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")),
        *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
        *("datetime.date.today", "uuid.uuid1", "uuid.uuid4", "os.urandom", "ssl.RAND_bytes"),
    }
)
"""What reads the clock or draws lots; `random` and `secrets` do nothing else, so their import is the breach."""

TIME_IF_BARE: Final = frozenset({"time.gmtime", "time.localtime", "time.ctime", "email.utils.formatdate"})
"""These read the clock only when called without the time to convert."""

ENVIRONMENT: Final = frozenset(
    {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv", "os.expandvars"}
)

IMPORT_EFFECTS: Final = frozenset({"open", "read_text", "read_bytes", "write_text", "write_bytes", "connect", "mkdir"})
"""Calls (by their last name) that touch the world: never part of a module-level assignment."""

FACTORIES: Final = frozenset(
    {
        *(
            "list",
            "dict",
            "set",
            "bytearray",
            "defaultdict",
            "deque",
            "Counter",
            "OrderedDict",
            "ChainMap",
            "count",
            "cycle",
        ),
        *("WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "local", "Lock", "RLock", "Event", "Condition"),
        *("Semaphore", "BoundedSemaphore", "Queue", "LifoQueue", "PriorityQueue", "SimpleQueue", "Future"),
    }
)
"""What makes something that changes: as a module's global it would be shared by every server in the process."""

MUTATORS: Final = frozenset(
    {
        *("append", "extend", "insert", "remove", "pop", "popitem", "clear", "sort", "reverse"),
        *("add", "discard", "update", "setdefault", "difference_update", "intersection_update"),
    }
)

READ_ONLY: Final = re.compile(r"\b(Final|Mapping|Sequence|Collection|Iterable|AbstractSet)\b")
NAMES_REFUSED: Final = frozenset({"manager", "helper", "handler", "util", "common"})

HOMES: Final = (
    (frozenset({"sqlite3", "aiosqlite", "psycopg", "asyncpg", "sqlalchemy", "redis", "hiredis"}), ("store/",)),
    (frozenset({"starlette"}), ("api/", "app.py")),
    (frozenset({"http.HTTPStatus"}), ("api/", "http/", "app.py")),
)
"""Outside packages and the only places of ours that may import them."""

_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def _within(module: Module, *places: str) -> bool:
    return module.path.removeprefix(PACKAGE).startswith(places)


def docstring(module: Module) -> Iterator[Finding]:
    """Find a module that does not say what it is."""
    if not (ast.get_docstring(module.tree) or "").strip():
        yield module.finding(1, "no module docstring")


def local_imports(module: Module) -> Iterator[Finding]:
    """Find imports of our own modules inside functions, which hide cycles."""
    inside = {id(node) for function in module.functions() for node in ast.walk(function)}
    for node, name in own_imports(module):
        if id(node) in inside:
            yield module.finding(node, f"imports {name} inside a function")


def import_time_work(module: Module) -> Iterator[Finding]:
    """Find module-level statements that do something.

    Allowed: the docstring, imports, definitions, assignments, and an `if` over TYPE_CHECKING, `__name__` or `sys.*`
    (the body under `__name__` runs as a program, so it may be anything).
    """
    yield from _work_in(module, module.tree.body)


def _work_in(module: Module, body: list[ast.stmt]) -> Iterator[Finding]:
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Pass)
    for node in body:
        if isinstance(node, quiet) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node, ast.If):
            yield from _work_in_if(module, node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from _effects(module, node.value)
        elif type(node).__name__ != "TypeAlias":  # a node of Python 3.12, which 3.11 cannot name
            yield module.finding(node, "work at import time: importing a module does nothing")


def _work_in_if(module: Module, node: ast.If) -> Iterator[Finding]:
    names = {dotted(part).split(".")[0] for part in ast.walk(node.test)} - {""}
    if names == {"__name__"}:
        yield from _work_in(module, node.orelse)
    elif names and names <= {"TYPE_CHECKING", "typing", "sys"}:
        yield from _work_in(module, [*node.body, *node.orelse])
    else:
        yield module.finding(node, "a condition at import time: only TYPE_CHECKING, __name__ and sys.* are asked")


def _effects(module: Module, value: ast.expr | None) -> Iterator[Finding]:
    for node in ast.walk(value) if value else ():
        if isinstance(node, ast.Call):
            last = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
            if last in IMPORT_EFFECTS:
                yield module.finding(node, f"{last}() at import time: importing a module does nothing")


def module_state(module: Module) -> Iterator[Finding]:
    """Find module-level state: mutable values, and `global` anywhere.

    A table is allowed if its name is ALL_CAPS, its annotation is Final or a read-only type (Mapping, Sequence, ...),
    and nothing in the module changes it. `__all__` is allowed.
    """
    tables: set[str] = set()
    for node in module.tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        names = [dotted(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
        kind = _mutable_kind(node.value)
        if not kind or names == ["__all__"]:
            continue
        annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
        if kind == "table" and all(map(_CONSTANT.fullmatch, names)) and READ_ONLY.search(annotation):
            tables.update(names)
        else:
            yield module.finding(node, f"module-level mutable state: {', '.join(names)} (a table: ALL_CAPS and Final)")
    for part in ast.walk(module.tree):
        if isinstance(part, ast.Global):
            yield module.finding(part, f"global {', '.join(part.names)}")
        elif (name := _mutated(part)) in tables:
            yield module.finding(part, f"changes the module-level table {name}")


def _mutable_kind(value: ast.expr) -> str:
    if isinstance(value, _MUTABLE):
        return "table"
    if isinstance(value, ast.Call) and dotted(value.func).split(".")[-1] in FACTORIES:
        return "table" if dotted(value.func) in {"dict", "list", "set"} else "state"
    return ""


def _mutated(node: ast.AST) -> str:
    """Return the name whose value this node changes in place, if any."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        return dotted(node.func.value)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return dotted(node.value)
    if isinstance(node, ast.AugAssign):
        return dotted(node.target)
    return ""


def clock_reads(module: Module) -> Iterator[Finding]:
    """Find readings of time and randomness outside clock.py; handing on the function unread counts as reading."""
    if _within(module, "clock.py"):
        return
    for statement, name in imported(module):
        if name.split(".")[0] in {"random", "secrets"}:
            yield module.finding(statement, f"imports {name}: randomness comes from the Clock")
    for node, name in references(module):
        if name in TIME_AND_CHANCE:
            yield module.finding(node, f"reads {name}: time and randomness come from the Clock")
    bare = {id(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call) and not node.args}
    for node, name in references(module):
        if name in TIME_IF_BARE and id(node) in bare:
            yield module.finding(node, f"{name}() reads the time: pass it the Clock's")


def environment_reads(module: Module) -> Iterator[Finding]:
    """Find readings of the environment outside config.py."""
    if _within(module, "config.py"):
        return
    for node, name in references(module):
        if any(name == known or name.startswith(f"{known}.") for known in ENVIRONMENT):
            yield module.finding(node, f"reads {name}: settings come from config.py")


def outside_packages(module: Module) -> Iterator[Finding]:
    """Find imports of packages that only another room may know (invariant 2)."""
    whole = references(module) if aliases(module).get("http") == "http" else ()  # `import http; http.HTTPStatus`
    for statement, name in (*imported(module), *whole):
        for packages, homes in HOMES:
            known = any(name == package or name.startswith(f"{package}.") for package in packages)
            if known and not _within(module, *homes):
                yield module.finding(statement, f"imports {name}, which only {', '.join(homes)} may")


def _words(name: str) -> set[str]:
    return {word.lower().removesuffix("s") for word in _WORD.findall(name)}


def names(module: Module) -> Iterator[Finding]:
    """Find names of modules, classes and functions that say nothing, and `v2` files."""
    folders_and_stem = module.path.removeprefix(PACKAGE).removesuffix(".py").split("/")
    for part in folders_and_stem:
        if refused := _words(part) & NAMES_REFUSED:
            yield module.finding(1, f"the name {part} says nothing: {', '.join(sorted(refused))}")
        if re.search(r"(^|_)v\d+$", part):
            yield module.finding(1, f"a version in the name {part}: change the file, do not copy it")
    for node in ast.walk(module.tree):
        defined = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else ""
        if refused := _words(defined) & NAMES_REFUSED:
            yield module.finding(node, f"the name {defined} says nothing: {', '.join(sorted(refused))}")


def depth(module: Module) -> Iterator[Finding]:
    """Find modules more than two folders deep under the package."""
    if module.path.removeprefix(PACKAGE).count("/") > 2:
        yield module.finding(1, "more than two folders deep")

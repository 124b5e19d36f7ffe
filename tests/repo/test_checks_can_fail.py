"""Every check is shown a sample that breaks it and one that does not: a test that cannot fail tells nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from repo import rooms, rules, sizes, tracked
from repo.modules import Module, Rule, apply
from repo.test_house import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAT: Final = "src/convene/api/chat.py"
TURN: Final = "src/convene/serving/turn.py"

BAD: Final[tuple[tuple[Rule, str, str], ...]] = (
    (sizes.module_length, CHAT, "x = 1\n" * 801),
    (sizes.function_length, CHAT, "def f() -> None:\n" + "    g()\n" * 70),
    (sizes.function_length, CHAT, "class A:\n    async def f(self) -> None:\n" + "        g()\n" * 70),
    (sizes.branches, CHAT, "def f() -> None:\n" + "    if a: pass\n" * 13),
    (sizes.branches, CHAT, "def f() -> None:\n    if a: pass\n" + "    elif b: pass\n" * 12),
    (sizes.branches, CHAT, "def f() -> None:\n" + "    x = 1 if a or b or c else 2\n" * 7),
    (sizes.branches, CHAT, "def f() -> None:\n" + "    x = [y for y in z if y] if w else 0\n" * 7),
    (sizes.branches, CHAT, "def f() -> None:\n    match x:\n" + "        case 1: pass\n" * 13),
    (sizes.branches, CHAT, "def f() -> None:\n" + "    try: pass\n    except E: pass\n" * 13),
    (sizes.bare_signatures, CHAT, "def f(a) -> None: ..."),
    (sizes.bare_signatures, CHAT, "def f(): ..."),
    (sizes.bare_signatures, CHAT, "def f(*a, **b) -> None: ..."),
    (sizes.bare_signatures, CHAT, "def f(*, a) -> None: ..."),
    (sizes.bare_signatures, CHAT, "class A:\n    @staticmethod\n    def f(a) -> None: ..."),
    (sizes.uncommented_broad_handlers, CHAT, "try: pass\nexcept Exception: log()"),
    (sizes.uncommented_broad_handlers, CHAT, "try: pass\nexcept Exception:  # noqa: BLE001\n    log()"),
    (sizes.uncommented_broad_handlers, CHAT, "with contextlib.suppress(Exception): f()"),
    (sizes.swallowed_cancellation, CHAT, "try: pass\nexcept asyncio.CancelledError: pass"),
    (sizes.swallowed_cancellation, CHAT, "try: pass\nexcept (ValueError, CancelledError): pass"),
    (sizes.swallowed_cancellation, CHAT, "try: pass\nexcept BaseException as e: keep(e)"),
    (sizes.swallowed_cancellation, CHAT, "try: pass\nexcept: pass"),
    (sizes.swallowed_cancellation, CHAT, "try: pass\nexcept BaseException:\n    def f() -> None: raise E"),
    (sizes.swallowed_cancellation, CHAT, "with suppress(asyncio.CancelledError): f()"),
    (rules.docstring, CHAT, "x = 1"),
    (rules.docstring, CHAT, '""" """'),
    (rules.local_imports, CHAT, "def f() -> None:\n    import convene.errors"),
    (rules.local_imports, CHAT, "def f() -> None:\n    from convene import errors"),
    (rules.local_imports, CHAT, "class A:\n    def f(self) -> None:\n        from .. import errors"),
    (rules.import_time_work, CHAT, "main()"),
    (rules.import_time_work, CHAT, "for x in y: pass"),
    (rules.import_time_work, CHAT, "if DEBUG: x = 1"),
    (rules.import_time_work, CHAT, "if TYPE_CHECKING: f()"),
    (rules.import_time_work, CHAT, "try: import uvloop\nexcept ImportError: uvloop = None"),
    (rules.import_time_work, CHAT, "PAGE = Path(__file__).read_text()"),
    (rules.import_time_work, CHAT, "PAGE: str = open('page').read()"),
    (rules.module_state, CHAT, "cache = {}"),
    (rules.module_state, CHAT, "cache: Final = {}"),
    (rules.module_state, CHAT, "CACHE = []"),
    (rules.module_state, CHAT, "CACHE: dict[str, int] = {}"),
    (rules.module_state, CHAT, "CACHE: Final = {x for x in y}\ndef f() -> None:\n    CACHE.add(1)"),
    (rules.module_state, CHAT, "CACHE: Final = {}\ndef f() -> None:\n    CACHE['a'] = 1"),
    (rules.module_state, CHAT, "CACHE: Final = []\ndef f() -> None:\n    CACHE += [1]"),
    (rules.module_state, CHAT, "LOCK: Final = asyncio.Lock()"),
    (rules.module_state, CHAT, "SEEN: Final = collections.defaultdict(list)"),
    (rules.module_state, CHAT, "def f() -> None:\n    global x\n    x = 1"),
    (rules.clock_reads, CHAT, "import time\nx = time.monotonic()"),
    (rules.clock_reads, CHAT, "import time as t\ndef f(now: F = t.time_ns) -> None: ..."),
    (rules.clock_reads, CHAT, "from time import perf_counter as p\nx = p()"),
    (rules.clock_reads, CHAT, "import datetime\nx = datetime.datetime.now(tz)"),
    (rules.clock_reads, CHAT, "from datetime import datetime\nx = datetime.now(tz)"),
    (rules.clock_reads, CHAT, "from email.utils import formatdate\nx = formatdate(usegmt=True)"),
    (rules.clock_reads, CHAT, "import random"),
    (rules.clock_reads, CHAT, "from secrets import token_hex"),
    (rules.clock_reads, CHAT, "from uuid import uuid4\nx = uuid4()"),
    (rules.clock_reads, CHAT, "import os\nx = os.urandom(8)"),
    (rules.environment_reads, CHAT, "import os\nx = os.environ['A']"),
    (rules.environment_reads, CHAT, "from os import environ as e\nx = e.get('A')"),
    (rules.environment_reads, CHAT, "import os\nx = os.getenv('A')"),
    (rules.outside_packages, TURN, "import sqlite3"),
    (rules.outside_packages, TURN, "import redis.asyncio as r"),
    (rules.outside_packages, TURN, "from psycopg.rows import dict_row"),
    (rules.outside_packages, TURN, "from starlette.responses import Response"),
    (rules.outside_packages, TURN, "from http import HTTPStatus"),
    (rules.outside_packages, TURN, "import http\nx = http.HTTPStatus.OK"),
    (rules.names, "src/convene/serving/utils.py", ""),
    (rules.names, "src/convene/common/turn.py", ""),
    (rules.names, "src/convene/serving/turn_v2.py", ""),
    (rules.names, TURN, "class SessionManager: ..."),
    (rules.names, TURN, "class HTTPHandler: ..."),
    (rules.names, TURN, "def add_helpers() -> None: ..."),
    (rules.depth, "src/convene/store/sqlite/queries/keys.py", ""),
    (rooms.faces, TURN, "from convene.providers.openai import OpenAI"),
    (rooms.faces, TURN, "from convene.providers import openai"),
    (rooms.faces, TURN, "from ..store import sqlite"),
    (rooms.faces, TURN, "def f() -> None:\n    import convene.store.sqlite"),
    (rooms.faces, "src/convene/serving/__init__.py", "from ..tools.web_search import WebSearch"),
    (rooms.loners, "src/convene/engine/process.py", "from convene.errors import Busy"),
    (rooms.loners, "src/convene/http/client.py", "from ..clock import Clock"),
)
"""Each breaks its rule at least once."""

GOOD: Final[tuple[tuple[Rule, str, str], ...]] = (
    (sizes.module_length, CHAT, "x = 1\n" * 800),
    (sizes.function_length, CHAT, "@decorate\ndef f() -> None:\n" + "    g()\n" * 69),
    (sizes.branches, CHAT, "def f() -> None:\n" + "    if a: pass\n    else: pass\n" * 12),
    (sizes.branches, CHAT, "def f() -> None:\n    def g() -> None:\n        if a: pass\n" + "    if a: pass\n" * 12),
    (
        sizes.branches,
        CHAT,
        "def f() -> None:\n    match x:\n" + "        case 1: 1\n" * 12 + "        case _: 1\n",
    ),
    (sizes.branches, CHAT, "def f() -> None:\n" + "    x = a or b or c\n" * 13),
    (sizes.bare_signatures, CHAT, "class A:\n    @classmethod\n    def f(cls, *a: int, b: int = 1) -> None: ..."),
    (sizes.bare_signatures, CHAT, "f = lambda a: a"),
    (
        sizes.uncommented_broad_handlers,
        CHAT,
        "try: pass\nexcept Exception:  # noqa: BLE001 - any fault\n    f()",
    ),
    (sizes.uncommented_broad_handlers, CHAT, "try: pass\n# A plug-in may raise anything.\nexcept Exception: log()"),
    (sizes.uncommented_broad_handlers, CHAT, "try: pass\nexcept Exception:\n    # Whatever it was, settle.\n    f()"),
    (sizes.uncommented_broad_handlers, CHAT, "try: pass\nexcept ValueError: pass"),
    (sizes.swallowed_cancellation, CHAT, "try: pass\nexcept BaseException:\n    undo()\n    raise"),
    (sizes.swallowed_cancellation, CHAT, "try: pass\nexcept Exception: pass"),
    (sizes.swallowed_cancellation, CHAT, "with suppress(OSError): f()"),
    (rules.docstring, CHAT, '"""Says what is here."""'),
    (rules.local_imports, CHAT, "import convene.errors\ndef f() -> None:\n    import xllamacpp"),
    (
        rules.import_time_work,
        CHAT,
        '"""D."""\nimport a\nX = f(1)\nclass A: ...\nif __name__ == "x":\n    main()',
    ),
    (
        rules.import_time_work,
        CHAT,
        "if TYPE_CHECKING:\n    import a\nif sys.platform == 'x':\n    X = 1\nelse:\n    X = 2",
    ),
    (rules.module_state, CHAT, "X = (1, 2)\nY = frozenset({1})\nZ = MappingProxyType({1: 2})\n__all__ = ['X']"),
    (
        rules.module_state,
        CHAT,
        "X: Final = {1: 2}\nY: Mapping[int, int] = {1: 2}\ndef f() -> A:\n    return [X[1]]",
    ),
    (rules.clock_reads, "src/convene/clock.py", "import secrets, time\nx = time.time()"),
    (rules.clock_reads, CHAT, "import time, uuid\nx = time.gmtime(0)\ny = uuid.UUID('0' * 32)\nz = self.time.time()"),
    (rules.clock_reads, CHAT, "from email.utils import formatdate\nx = formatdate(now, usegmt=True)"),
    (rules.environment_reads, "src/convene/config.py", "import os\nx = os.environ"),
    (
        rules.environment_reads,
        CHAT,
        "import os\nx = os.path.join('a')\ndef f(environ: E) -> A:\n    environ.get(1)",
    ),
    (rules.outside_packages, "src/convene/store/sqlite.py", "import sqlite3"),
    (rules.outside_packages, CHAT, "from starlette.routing import Route\nfrom http import HTTPStatus"),
    (rules.outside_packages, TURN, "import http.client"),
    (rules.names, TURN, "class Turn: ...\ndef handle_turn() -> None: ...\ndef utilise() -> None: ..."),
    (rules.depth, "src/convene/store/sqlite/keys.py", ""),
    (
        rooms.faces,
        TURN,
        "from convene.tools.base import Tool\nfrom convene.store import base\nimport convene.errors",
    ),
    (rooms.faces, TURN, "from . import loop\nfrom convene.limits.gcra import admit"),
    (rooms.faces, "src/convene/app.py", "from convene.providers.openai import OpenAI"),
    (
        rooms.loners,
        "src/convene/http/client.py",
        "from .base import A\nfrom convene.http import decode\nimport ssl",
    ),
)
"""None breaks its rule."""


def label(value: object) -> str:
    """Name a case by its rule alone; pytest numbers the repeats."""
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("rule", "path", "source"), BAD, ids=label)
def test_a_breach_is_found(rule: Rule, path: str, source: str) -> None:
    assert list(rule(Module(path, source)))


@pytest.mark.parametrize(("rule", "path", "source"), GOOD, ids=label)
def test_what_is_in_order_is_left_alone(rule: Rule, path: str, source: str) -> None:
    assert not list(rule(Module(path, source)))


@pytest.mark.parametrize("rule", RULES, ids=label)
def test_every_rule_has_samples_of_both_kinds(rule: Rule) -> None:
    assert any(bad[0] is rule for bad in BAD)
    assert any(good[0] is rule for good in GOOD)


def test_a_file_that_does_not_parse_is_reported_by_name_and_hides_no_other() -> None:
    broken, bad = Module("src/convene/a.py", "def f(:"), Module("src/convene/b.py", "x = 1")
    found = apply(rules.docstring, [broken, bad])
    assert [finding.path for finding in found] == ["src/convene/a.py", "src/convene/b.py"]
    assert "does not parse" in found[0].text


def test_a_file_that_breaks_off_in_a_string_is_reported_too() -> None:
    (found,) = apply(sizes.uncommented_broad_handlers, [Module(CHAT, 'x = """')])
    assert "does not parse" in found.text


def test_the_spread_of_lengths_counts_modules_and_not_packages() -> None:
    modules = [Module(f"src/convene/m{n}.py", "x\n" * n) for n in (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)]
    assert sizes.length_spread([*modules, Module("src/convene/__init__.py", "")]) == (550, 900)
    assert sizes.length_spread([]) == (0, 0)


def test_any_is_counted_outside_the_wire_shapes() -> None:
    source = "def f(a: Any, b: typing.Any) -> dict[str, Any]: ..."
    assert len(list(sizes.any_uses(Module(TURN, source)))) == 3
    assert not list(sizes.any_uses(Module("src/convene/api/shapes_chat.py", source)))


def test_broad_handlers_are_told_from_narrow_ones() -> None:
    source = "try: pass\nexcept ValueError: pass\nexcept (KeyError, Exception): pass\nwith suppress(OSError): pass"
    module = Module(TURN, source)
    assert len(list(sizes.handlers(module))) == 3
    assert [finding.line for finding in sizes.broad_handlers(module)] == [3]


def test_a_part_without_a_floor_is_found_once() -> None:
    contract = "[importlinter:contract:floors]\nlayers =\n    (app)\n    errors | clock\n"
    modules = [Module(f"src/convene/{name}.py", "") for name in ("app", "clock", "audio/base", "audio/x", "__init__")]
    assert [str(finding) for finding in rooms.unplaced(modules, contract)] == [
        "src/convene/audio/base.py:1: src/convene/audio has no floor in .importlinter"
    ]


WORKPLACE: Final = "/" + "work/main"
LEAKS: Final[Mapping[str, bool]] = {
    f"see {WORKPLACE}/src": True,
    f"`{WORKPLACE}`": True,
    f"https://{tracked.REGISTRY_HOSTS[0]}/simple": True,
    f"{tracked.REGISTRY_HOSTS[2]}": True,
    "pip install --index-" + "url x": True,
    "a{0}/b, ~{0}/c and https://host{0}/d".format("/" + "work"): False,
    "pip install convene": False,
}


@pytest.mark.parametrize("line", LEAKS)
def test_a_leak_of_the_workplace_or_a_registry_is_found(line: str) -> None:
    assert bool(list(tracked.leaks("docs/run.md", line))) is LEAKS[line]

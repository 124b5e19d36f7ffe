"""The measurable bars of ARCHITECTURE.md: lengths, branches, annotations, `Any`, broad handlers.

How branches are counted: one for each `if`, `elif`, `for`, `while`, `except`, conditional expression, `if` inside a
comprehension, `case` that is not the bare `case _`, and `and`/`or` expression inside a condition (once, however many
operands). Nothing for `else`, `try`, `with`, plain comprehensions, and `and`/`or` as a value (`found or 0` is a
default, not a path to follow). A nested function or lambda has a count of its own.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from typing import TYPE_CHECKING, Final, TypeAlias

from repo.modules import Finding, Function, Module, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE_LINES_MEDIAN: Final = 200
MODULE_LINES_P90: Final = 550
MODULE_LINES_MAX: Final = 800
FUNCTION_LINES_MAX: Final = 70
BRANCHES_MAX: Final = 12
ANY_PER_1000_LINES: Final = 3
BROAD_HANDLERS_PERCENT: Final = 15

Handler: TypeAlias = ast.ExceptHandler | ast.Call
"""An `except` clause, or a call of `contextlib.suppress`, which is one in other words."""

_BROAD = ("Exception", "BaseException", "")
_WIRE_SHAPES = re.compile(r"src/convene/api/shapes\w*\.py")
_SILENCER = re.compile(r"#\s*(noqa|type:\s*ignore|pragma)[^#]*?(?=( - | -- |#|$))")


def module_length(module: Module) -> Iterator[Finding]:
    """Find a module over the cap."""
    if module.lines > MODULE_LINES_MAX:
        yield module.finding(1, f"{module.lines} lines, at most {MODULE_LINES_MAX}")


def length_spread(modules: list[Module]) -> tuple[float, float]:
    """Return median and 90th percentile of the lengths; `__init__.py` files, nearly empty, would flatter them."""
    lengths = sorted(module.lines for module in modules if not module.is_package)
    if not lengths:
        return 0.0, 0.0
    return statistics.median(lengths), float(lengths[max(0, -(-len(lengths) * 9 // 10) - 1)])


def function_length(module: Module) -> Iterator[Finding]:
    """Find functions over the cap, from `def` (or `async def`) to the last line, docstring included."""
    for function in module.functions():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield module.finding(function, f"{function.name} has {lines} lines, at most {FUNCTION_LINES_MAX}")


def _own_nodes(root: ast.AST) -> Iterator[ast.AST]:
    """Walk a function without entering functions inside it."""
    for child in ast.iter_child_nodes(root):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        yield child
        yield from _own_nodes(child)


def _tests(node: ast.AST) -> list[ast.expr]:
    """Return the conditions that this node asks."""
    if isinstance(node, ast.comprehension):
        return node.ifs
    test = getattr(node, "guard", None) or getattr(node, "test", None)
    return [test] if test else []


def count_branches(function: Function) -> int:
    """Count as the head of this file says."""
    plain = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp)
    nodes = list(_own_nodes(function))
    asked = {id(inner) for node in nodes for test in _tests(node) for inner in (test, *_own_nodes(test))}
    count = 0
    for node in nodes:
        if isinstance(node, plain) or (isinstance(node, ast.BoolOp) and id(node) in asked):
            count += 1
        elif isinstance(node, ast.comprehension):
            count += len(node.ifs)
        elif isinstance(node, ast.match_case):
            wildcard = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None and node.guard is None
            count += not wildcard
    return count


def branches(module: Module) -> Iterator[Finding]:
    """Find functions with too many branches."""
    for function in module.functions():
        count = count_branches(function)
        if count > BRANCHES_MAX:
            yield module.finding(function, f"{function.name} has {count} branches, at most {BRANCHES_MAX}")


def bare_signatures(module: Module) -> Iterator[Finding]:
    """Find functions with an argument or a return that has no annotation; `self` and `cls` need none."""
    methods = {
        id(item)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if not (isinstance(item, ast.FunctionDef) and any(dotted(d) == "staticmethod" for d in item.decorator_list))
    }
    for function in module.functions():
        spec = function.args
        positional = [*spec.posonlyargs, *spec.args]
        bound = positional[:1] if id(function) in methods else []
        others = [spec.vararg, spec.kwarg]
        arguments = [*positional[len(bound) :], *spec.kwonlyargs, *(argument for argument in others if argument)]
        bare = [argument.arg for argument in arguments if argument.annotation is None]
        if function.returns is None:
            bare.append("the return")
        if bare:
            yield module.finding(function, f"{function.name}: not annotated: {', '.join(bare)}")


def any_uses(module: Module) -> Iterator[Finding]:
    """Find each `Any` outside the wire shapes; a rate over the tree is judged, not a single use."""
    if _WIRE_SHAPES.fullmatch(module.path):
        return
    for node in ast.walk(module.tree):
        if dotted(node) in {"Any", "typing.Any", "t.Any"}:
            yield module.finding(node, "Any")


def handlers(module: Module) -> Iterator[tuple[Handler, tuple[str, ...]]]:
    """Yield each handler with the names of what it catches; a bare `except:` catches the name "" ."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            yield node, tuple(dotted(kind).split(".")[-1] if kind else "" for kind in kinds)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "suppress":
            yield node, tuple(dotted(kind).split(".")[-1] for kind in node.args)


def broad_handlers(module: Module) -> Iterator[Finding]:
    """Find each handler of Exception, BaseException or everything; their share of all handlers is judged."""
    for node, kinds in handlers(module):
        if any(kind in _BROAD for kind in kinds):
            yield module.finding(node, "a broad handler")


def _comments(module: Module) -> dict[int, str]:
    """Return the prose of the comments by line: a lone `noqa` is not a reason, one with words behind it is."""
    found: dict[int, str] = {}
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(module.source).readline))
    except (tokenize.TokenError, IndentationError) as fault:
        raise SyntaxError(str(fault)) from fault
    for token in tokens:
        if token.type == tokenize.COMMENT:
            prose = _SILENCER.sub("", token.string).strip("# -")
            if len(prose.split()) > 1:
                found[token.start[0]] = prose
    return found


def uncommented_broad_handlers(module: Module) -> Iterator[Finding]:
    """Find broad handlers with no comment on the line above, on the line itself, or before the first statement."""
    comments = _comments(module)
    for node, kinds in handlers(module):
        if not any(kind in _BROAD for kind in kinds):
            continue
        last = node.body[0].lineno if isinstance(node, ast.ExceptHandler) else node.lineno
        if not any(line in comments for line in range(node.lineno - 1, last + 1)):
            yield module.finding(node, "a broad handler without a comment that says why")


def swallowed_cancellation(module: Module) -> Iterator[Finding]:
    """Find handlers that catch CancelledError (by name, by BaseException, or by a bare except) and never raise."""
    for node, kinds in handlers(module):
        if not {"CancelledError", "BaseException", ""} & set(kinds):
            continue
        if isinstance(node, ast.Call) or not any(isinstance(inner, ast.Raise) for inner in _own_nodes(node)):
            yield module.finding(node, "swallows cancellation: raise again (asyncio.wait awaits a cancelled task)")

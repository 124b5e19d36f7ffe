"""`GET /metrics`: counters and histograms in Prometheus text (OPS-10, OPS-11). One `Metrics` for each server process.

Where several workers serve, whichever is asked adds the others' figures to its own (`app_metrics.py`).

All names begin with `convene_`, units are seconds, and labels have few values: a route's template, a deployed model's
own name (never a name somebody asked for), a status, a limit's scope and name. Nothing is labelled by key or user.

Noting a request costs about a microsecond, because one look-up finds all that belongs to its labels and nothing is
added up before somebody asks. That is why this is not the official client, whose label look-ups take locks and cost
some microseconds each (docs/decisions/0013-metrics.md).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from convene.api.routes import Route
from convene.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from typing import Literal

    from convene.api.call import Call
    from convene.serving.base import Outcome

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
PATH: Final = "/metrics"
UNMATCHED: Final = "unmatched"
"""The route of a request whose path is none of ours."""

SPANS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Bounds of the histograms of whole requests and first tokens."""
TOKEN_SPANS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
"""Bounds of the time between two tokens."""

Labels: TypeAlias = "tuple[tuple[str, str], ...]"
Sample: TypeAlias = "tuple[str, Labels, float]"
"""A suffix of the family's name, labels, a value."""


class _Histogram:
    """Counts by upper bound, not yet cumulated, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, counts: list[int], total: float) -> None:
        """Add another's. Raises ValueError if it has other bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, counts, strict=True)]
        self.total += total

    def samples(self, labels: Labels) -> Iterator[Sample]:
        """Yield the cumulated buckets, the sum and the count."""
        below = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            below += count
            yield "_bucket", (*labels, ("le", repr(bound))), below
        everything = below + self.counts[-1]
        yield "_bucket", (*labels, ("le", "+Inf")), everything
        yield "_sum", labels, self.total
        yield "_count", labels, everything


class Packed(msgspec.Struct, array_like=True):
    """All figures of one process, to be added to those of another."""

    requests: list[tuple[str, str, int, list[int], float]] = []
    models: list[tuple[str, list[int], float, list[int], float, tuple[int, int, int, int, int]]] = []
    tools: list[tuple[str, str, str, int]] = []
    refusals: list[tuple[str, str, int]] = []
    in_flight: int = 0
    waiting: int = 0


class _OfModel:
    """What is kept of one deployed model."""

    __slots__ = ("agent_calls", "between", "cached", "completion", "first", "prompt", "reasoning", "tools")

    def __init__(self) -> None:
        self.first = _Histogram(SPANS_S)
        self.between = _Histogram(TOKEN_SPANS_S)
        self.prompt = self.cached = self.completion = self.reasoning = 0
        self.tools: dict[tuple[str, str], int] = {}
        self.agent_calls = 0


class Metrics:
    """What one server process has done since it started. Belongs to one event loop."""

    def __init__(self, *, info: Mapping[str, str], queue_depth: Callable[[], int] = lambda: 0) -> None:
        """`info`: labels of `convene_build_info`; `queue_depth`: how many requests wait for their turn now."""
        self._paths: frozenset[str] = frozenset()
        self._info = tuple(info.items())
        self._queue_depth = queue_depth
        self._requests: dict[tuple[str, str, int], _Histogram] = {}
        self._models: dict[str, _OfModel] = {}
        self._refusals: dict[tuple[str, str], int] = {}
        self._in_flight: Callable[[], int] = lambda: 0

    def attach(self, paths: Iterable[str], in_flight: Callable[[], int]) -> None:
        """Name all routes that are served (other paths are counted as `unmatched`), and who knows what is under way."""
        self._paths = frozenset(paths)
        self._in_flight = in_flight

    def note(self, call: Call, duration_s: float) -> None:
        """Count one request that has ended."""
        outcome = call.outcome
        model = "" if outcome is None else outcome.model
        found = self._requests.get((call.path, model, call.status))
        if found is None:
            found = self._first_of(call.path, model, call.status)
        found.counts[bisect_left(SPANS_S, duration_s)] += 1
        found.total += duration_s
        if outcome is not None:
            self._note_outcome(outcome, duration_s, call)

    def render(self) -> bytes:
        """Return everything as Prometheus text, version 0.0.4."""
        lines: list[str] = []
        for name, kind, about, samples in self._families():
            lines += (f"# HELP {name} {about}", f"# TYPE {name} {kind}")
            for suffix, labels, value in samples:
                inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
                lines.append(f"{name}{suffix}{{{inner}}} {value}" if inner else f"{name}{suffix} {value}")
        return ("\n".join(lines) + "\n").encode()

    def pack(self) -> Packed:
        """Return all figures as they are now."""
        packed = Packed([], [], [], [], self._in_flight(), self._queue_depth())
        for (route, model, status), kept in self._requests.items():
            packed.requests.append((route, model, status, kept.counts, kept.total))
        for name, of in self._models.items():
            figures = (of.prompt, of.cached, of.completion, of.reasoning, of.agent_calls)
            packed.models.append((name, of.first.counts, of.first.total, of.between.counts, of.between.total, figures))
            packed.tools += ((name, tool, status, count) for (tool, status), count in of.tools.items())
        packed.refusals = [(scope, limit, count) for (scope, limit), count in self._refusals.items()]
        return packed

    def with_others(self, others: Iterable[Packed]) -> Metrics:
        """Return the sums over this process and others."""
        all_of_them = [self.pack(), *others]
        made = Metrics(info=dict(self._info), queue_depth=lambda: sum(one.waiting for one in all_of_them))
        made.attach(self._paths, lambda: sum(one.in_flight for one in all_of_them))
        for one in all_of_them:
            made.add(one)
        return made

    def add(self, other: Packed) -> None:
        """Add the counts of another process; what is under way and waits is not added here."""
        for route, model, status, counts, total in other.requests:
            self._requests.setdefault((route, model, status), _Histogram(SPANS_S)).add(counts, total)
        for name, first, first_s, between, between_s, figures in other.models:
            mine = self._models.setdefault(name, _OfModel())
            mine.first.add(first, first_s)
            mine.between.add(between, between_s)
            prompt, cached, completion, reasoning, agents = figures
            mine.prompt, mine.cached = mine.prompt + prompt, mine.cached + cached
            mine.completion, mine.reasoning = mine.completion + completion, mine.reasoning + reasoning
            mine.agent_calls += agents
        for name, tool, status_word, count in other.tools:
            tools = self._models.setdefault(name, _OfModel()).tools
            tools[tool, status_word] = tools.get((tool, status_word), 0) + count
        for scope, limit, count in other.refusals:
            self._refusals[scope, limit] = self._refusals.get((scope, limit), 0) + count

    def _first_of(self, path: str, model: str, status: int) -> _Histogram:
        route = path if path in self._paths else UNMATCHED
        return self._requests.setdefault((route, model, status), _Histogram(SPANS_S))

    def _note_outcome(self, outcome: Outcome, duration_s: float, call: Call) -> None:
        mine = self._models.get(outcome.model)
        if mine is None:
            mine = self._models[outcome.model] = _OfModel()
        first_ms, usage = outcome.first_event_ms, outcome.usage
        if first_ms is not None:
            first_s = first_ms / 1000
            mine.first.counts[bisect_left(SPANS_S, first_s)] += 1
            mine.first.total += first_s
        if usage is not None:
            written = usage.completion_tokens
            mine.prompt += usage.prompt_tokens
            mine.completion += written
            if usage.cached_tokens:
                mine.cached += usage.cached_tokens
            if usage.reasoning_tokens:
                mine.reasoning += usage.reasoning_tokens
            if call.streamed and written > 1 and first_ms is not None:
                between = mine.between
                between_s = (duration_s - first_ms / 1000) / (written - 1)
                between.counts[bisect_left(TOKEN_SPANS_S, between_s)] += 1
                between.total += between_s
        if outcome.standing is not None and outcome.standing.refusal is not None:
            limit = outcome.standing.refusal.limit
            labels = (limit.scope, limit.name)
            self._refusals[labels] = self._refusals.get(labels, 0) + 1
        if outcome.agent_calls:
            mine.agent_calls += outcome.agent_calls
        for tool in outcome.tools:
            mine.tools[tool] = mine.tools.get(tool, 0) + 1

    def _families(self) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
        """Yield name, type, meaning and samples of each family."""
        requests = sorted(self._requests.items())
        yield "convene_build_info", "gauge", "What runs here; always 1.", [("", self._info, 1)]
        yield (
            "convene_requests_total",
            "counter",
            "Requests that have ended, by route, deployed model and status (499: the client left).",
            [
                ("", (("route", route), ("model", model), ("status", str(status))), sum(kept.counts))
                for (route, model, status), kept in requests
            ],
        )
        yield "convene_requests_in_flight", "gauge", "Requests under way.", [("", (), self._in_flight())]
        yield "convene_queue_depth", "gauge", "Requests that wait for their turn.", [("", (), self._queue_depth())]
        yield (
            "convene_request_duration_seconds",
            "histogram",
            "From the request's head to the answer's last byte.",
            self._durations(),
        )
        yield from self._of_models()
        yield (
            "convene_limit_refusals_total",
            "counter",
            "Requests refused by a limit, by whose it is and its name.",
            [
                ("", (("scope", scope), ("limit", name)), count)
                for (scope, name), count in sorted(self._refusals.items())
            ],
        )

    def _of_models(self) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
        models = [((("model", name),), kept) for name, kept in sorted(self._models.items())]
        yield (
            "convene_time_to_first_token_seconds",
            "histogram",
            "From admission to the first event of the model.",
            [sample for labels, kept in models for sample in kept.first.samples(labels)],
        )
        yield (
            "convene_inter_token_seconds",
            "histogram",
            "Between two tokens of a stream: the mean over one answer, noted once an answer.",
            [sample for labels, kept in models for sample in kept.between.samples(labels)],
        )
        yield (
            "convene_tokens_total",
            "counter",
            "Tokens by kind; prompt holds the cached ones, completion the reasoning.",
            [
                ("", (("kind", kind), *labels), getattr(kept, kind))
                for labels, kept in models
                for kind in ("prompt", "cached", "completion", "reasoning")
            ],
        )
        tools = [
            (labels, tool, status, count) for labels, kept in models for (tool, status), count in kept.tools.items()
        ]
        yield (
            "convene_tool_calls_total",
            "counter",
            "Calls of the server's own tools.",
            [("", (("tool", tool), ("status", status), *labels), count) for labels, tool, status, count in tools],
        )
        yield (
            "convene_agent_calls_total",
            "counter",
            "Calls of agents.",
            [("", labels, kept.agent_calls) for labels, kept in models],
        )

    def _durations(self) -> Iterator[Sample]:
        """Yield the histograms by route and model; the status is left out, which would multiply the buckets."""
        merged: dict[Labels, _Histogram] = {}
        for (route, model, _), kept in sorted(self._requests.items()):
            into = merged.setdefault((("route", route), ("model", model)), _Histogram(SPANS_S))
            into.add(kept.counts, kept.total)
        for labels, kept in merged.items():
            yield from kept.samples(labels)


class MetricsPage:
    """The endpoint: open, for keys with the scope "admin", or not there at all."""

    def __init__(
        self,
        metrics: Metrics,
        access: Literal["open", "key", "off"],
        others: Callable[[], Awaitable[list[Packed]]] | None = None,
    ) -> None:
        """`others` returns the figures of the other workers, where there are any."""
        self._metrics = metrics
        self._others = others
        self._access = access

    def routes(self) -> tuple[Route, ...]:
        """Return its route; none if it is switched off."""
        if self._access == "off":
            return ()
        row = Route(
            method="GET",
            path=PATH,
            endpoint=self.show,
            summary="Counters and histograms for Prometheus",
            open=self._access == "open",
            tag="Health",
            described=False,
        )
        return (row,)

    async def show(self, call: Call) -> None:
        """Answer with everything. Raises `Forbidden` for a key that is no admin's."""
        if self._access == "key" and "admin" not in call.caller.scopes:
            raise Forbidden("Reading /metrics needs a key with the scope 'admin'.")
        metrics = self._metrics
        if self._others is not None:
            metrics = metrics.with_others(await self._others())
        await call.reply(200, metrics.render(), CONTENT_TYPE)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

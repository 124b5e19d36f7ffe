"""What the soak of the books compares: what clients got, what the upstream did, what the books say. Pure.

`judge` says what is wrong with one request, in words; nothing if all is right. Prices and estimates are worked out
here, by the words of the page on limits, not with the code that is checked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from process.truth_upstream import Attempt

MILLION: Final = 1_000_000
REQUEST: Final = 1_000
INPUT: Final = 3_700_000
OUTPUT: Final = 11_300_000
"""The price of each model in micro-units: one request, a million prompt tokens, a million completion tokens."""
PRICE: Final = f"request = {REQUEST / MILLION}\ninput = {INPUT / MILLION}\noutput = {OUTPUT / MILLION}\n"
MESSAGE_BYTES: Final = 12
"""What a template adds to a message, for the estimate of a prompt."""
TOKEN_BYTES: Final = 3
DUE_S: Final = 2.0
"""How soon the entry of an aborted request is due (goal B3)."""
MODELS: Final = ("cancel", "drain", "free")
"""The models are called by what their upstream does when a client leaves."""
_CONTENT: Final = re.compile(rb'"content":"([^"]*)"')

Outcome = Literal["under way", "whole", "left", "cut", "error", "never sent"]


@dataclass(kw_only=True)
class Fact:
    """One request as its client saw it. Times are Unix seconds."""

    id: str
    model: str
    stream: bool
    prompt: str
    outcome: Outcome = "under way"
    """`left`: the client hung up; `cut`: the server did; `error`: a whole answer that says no, or a stream's fault."""
    status: int = 0
    delivered: int = 0
    """Tokens of the answer that the client has got."""
    left_at: float = 0.0
    killed: bool = False
    """Its server was killed before the client had the last byte, or, of one who left, before its entry was seen."""
    entered_at: float = 0.0
    """When the entry of one who left was seen; 0: nobody looked, or the server was killed."""
    lag_s: float = 0.0
    """How long the client's own machine kept it waiting meanwhile."""


@dataclass
class Tally:
    """What a run came to."""

    requests: int = 0
    kills: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    aborted: int = 0
    """Clients that left, of servers that lived on."""
    upstream_saw: int = 0
    upstream_attempts: int = 0
    entries: int = 0
    reconciled: int = 0
    """Requests that `convene reconcile` has compared with what the upstream says of them."""
    cost_micros: int = 0
    counter_micros: int = 0
    counter_after_restart: int = 0
    latest_s: float = 0.0
    """The longest an aborted request's entry took to be seen."""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def cost_of(prompt_tokens: int, completion_tokens: int) -> int:
    """Return what an answer costs in micro-units, rounded up once."""
    return REQUEST - (-(prompt_tokens * INPUT + completion_tokens * OUTPUT) // MILLION)


def estimated_prompt(prompt: str) -> int:
    """Return the stated estimate of a prompt's tokens."""
    return -(-(len(prompt.encode()) + MESSAGE_BYTES) // TOKEN_BYTES)


def unchunked(answer: bytes) -> tuple[bytes, bool]:
    """Return what has come of a chunked body, and whether it is whole."""
    body = bytearray()
    while True:
        size, found, rest = answer.partition(b"\r\n")
        if not found:
            return bytes(body), False
        length = int(size, 16)
        if not length:
            return bytes(body), rest.startswith(b"\r\n")
        body += rest[:length]
        if len(rest) < length + 2:
            return bytes(body), False
        answer = rest[length + 2 :]


def take_answer(fact: Fact, received: bytes) -> bool:
    """Note in `fact` what a client has got; return whether that was a whole answer."""
    head, found, rest = received.partition(b"\r\n\r\n")
    if not found:
        return False
    fact.status = int(head[9:12])
    length = re.search(rb"content-length: *(\d+)", head.lower())
    if length is not None:
        body, whole = rest, len(rest) >= int(length[1])
    else:
        body, whole = unchunked(rest)
    if fact.stream:
        body = body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b""  # whole events only
        whole = whole and fact.status == 200
    elif not whole:
        body = b""
    fact.delivered = sum(len(text) for text in _CONTENT.findall(body)) // TOKEN_BYTES
    if whole or (length is not None and len(rest) >= int(length[1])):
        is_error = fact.status != 200 or (fact.stream and b"data: [DONE]" not in body) or b'"error":' in body
        fact.outcome = "error" if is_error else "whole"
        return True
    return False


def judge(fact: Fact, attempts: Sequence[Attempt], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with one request."""
    if len(entries) != 1:
        if entries:
            return [f"{fact.id} is entered {len(entries)} times"]
        if attempts:
            return [f"{fact.id} reached the upstream and is not entered"]
        return [f"{fact.id} was answered and is not entered"] if fact.outcome == "whole" else []
    entry = entries[0]
    rules = {"ok": _ok, "client_left": _client_left, "failed": _failed, "unknown": _unknown}
    wrong = rules[entry["status"]](fact, attempts, entry)
    if fact.outcome == "whole" and entry["status"] != "ok":
        wrong.append("its client had the last byte")
    if fact.outcome == "error" and entry["status"] != "failed":
        wrong.append("its client was told that it failed")
    if fact.entered_at and (late := lateness(fact, attempts)) > DUE_S + fact.lag_s:
        wrong.append(f"its entry was seen {late:.2f} s after its end")
    return [f"{fact.id} ({fact.model}, {fact.outcome}, {entry['status']}): {words}" for words in wrong]


def lateness(fact: Fact, attempts: Sequence[Attempt]) -> float:
    """Return how long after an aborted request its entry was seen; of a drained one, after the end of the drain."""
    end = fact.left_at
    if fact.model == "drain" and attempts:
        end = max(end, attempts[-1].ended_at)
    return fact.entered_at - end


def _ok(fact: Fact, attempts: Sequence[Attempt], entry: Mapping[str, Any]) -> list[str]:
    if fact.outcome == "error":
        return ["the client was told that it failed"]
    return _as_reported(fact, attempts, entry)


def _as_reported(fact: Fact, attempts: Sequence[Attempt], entry: Mapping[str, Any]) -> list[str]:
    """Hold an entry to what the upstream has reported; to the stated estimate if it never reports."""
    last = attempts[-1]
    tokens = (entry["prompt_tokens"], entry["completion_tokens"])
    wrong = [] if entry["cost_micros"] == cost_of(*tokens) else [f"costs {entry['cost_micros']} for {tokens}"]
    truth = (last.prompt_tokens, last.tokens)
    if last.fault == "mute":  # of a whole answer the text alone is counted, without what a template adds to it
        truth = (-(-len(fact.prompt.encode()) // TOKEN_BYTES), last.tokens)
    elif not last.reported:
        wrong.append("the upstream has not reported")
    if tokens != truth:
        wrong.append(f"{tokens} tokens, the upstream has {truth}")
    if entry["estimated"] != (last.fault == "mute"):
        wrong.append(f"estimated is {entry['estimated']}")
    return wrong


def _as_written(fact: Fact, attempts: Sequence[Attempt], entry: Mapping[str, Any]) -> list[str]:
    """Hold an entry to what was written and delivered, in the stated estimate, which is exact for these tokens."""
    written = max((one.written for one in attempts), default=0)
    tokens = (entry["prompt_tokens"], entry["completion_tokens"])
    wrong = []
    if tokens[0] != estimated_prompt(fact.prompt):
        wrong.append(f"{tokens[0]} prompt tokens, the estimate is {estimated_prompt(fact.prompt)}")
    if not fact.delivered <= tokens[1] <= written:
        wrong.append(f"{tokens[1]} completion tokens; {fact.delivered} delivered, {written} written")
    if not entry["estimated"]:
        wrong.append("it is not marked as estimated")
    return wrong


def _client_left(fact: Fact, attempts: Sequence[Attempt], entry: Mapping[str, Any]) -> list[str]:
    if fact.outcome != "left":
        return ["its client did not leave"]
    tokens = (entry["prompt_tokens"], entry["completion_tokens"])
    if not attempts or (tokens == (0, 0) and not any(one.written for one in attempts)):
        return [] if (*tokens, entry["cost_micros"]) == (0, 0, 0) or not attempts else ["it costs, with nothing made"]
    if fact.model == "drain" and attempts[-1].fault in {"none", "mute"}:
        return _as_reported(fact, attempts, entry)
    wrong = _as_written(fact, attempts, entry) if entry["estimated"] else _as_reported_tokens(attempts, entry)
    due = 0 if fact.model == "free" else cost_of(*tokens)
    if entry["cost_micros"] != due:
        wrong.append(f"costs {entry['cost_micros']}, due is {due}")
    return wrong


def _as_reported_tokens(attempts: Sequence[Attempt], entry: Mapping[str, Any]) -> list[str]:
    last = attempts[-1]
    tokens, truth = (entry["prompt_tokens"], entry["completion_tokens"]), (last.prompt_tokens, last.tokens)
    return [] if last.reported and tokens == truth else [f"{tokens} tokens as reported, the upstream has {truth}"]


def _failed(fact: Fact, attempts: Sequence[Attempt], entry: Mapping[str, Any]) -> list[str]:
    if fact.outcome not in {"error", "left", "cut"}:
        return [f"the client has {fact.outcome}"]
    if attempts and attempts[-1].fault not in {"refuse", "500", "break", "stall"}:
        return ["the upstream did not fail"]
    tokens = (entry["prompt_tokens"], entry["completion_tokens"])
    if tokens == (0, 0):
        wrong = [f"{fact.delivered} tokens were delivered"] if fact.delivered else []
    else:
        wrong = _as_written(fact, attempts, entry)
    due = cost_of(*tokens) if any(tokens) else 0
    return wrong if entry["cost_micros"] == due else [*wrong, f"costs {entry['cost_micros']}, due is {due}"]


def _unknown(fact: Fact, attempts: Sequence[Attempt], entry: Mapping[str, Any]) -> list[str]:
    wrong = [] if fact.killed else ["its server was not killed"]
    if not entry["estimated"]:
        wrong.append("it is not marked as estimated")
    written = max((one.written for one in attempts), default=0)
    if entry["cost_micros"] < cost_of(0, written):
        wrong.append(f"costs {entry['cost_micros']}, less than {written} written tokens")
    return wrong


def compare(
    facts: Sequence[Fact], attempts: Mapping[str, Sequence[Attempt]], entries: Sequence[Mapping[str, Any]], tally: Tally
) -> None:
    """Judge all requests, and count what they came to."""
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        by_id.setdefault(entry["request_id"], []).append(entry)
        tally.statuses[entry["status"]] = tally.statuses.get(entry["status"], 0) + 1
    known = {fact.id for fact in facts}
    tally.wrong += [f"{name} is entered, and nobody asked it" for name in by_id.keys() - known]
    tally.wrong += [f"{name} reached the upstream, and nobody asked it" for name in attempts.keys() - known]
    for fact in facts:
        tried = attempts.get(fact.id, ())
        tally.wrong += judge(fact, tried, by_id.get(fact.id, ()))
        tally.outcomes[fact.outcome] = tally.outcomes.get(fact.outcome, 0) + 1
        if fact.entered_at:
            tally.aborted += 1
            tally.latest_s = max(tally.latest_s, lateness(fact, tried))
    tally.entries = len(entries)
    tally.upstream_saw = len(attempts)
    tally.upstream_attempts = sum(map(len, attempts.values()))
    tally.cost_micros = sum(entry["cost_micros"] for entry in entries)


def truths(facts: Sequence[Fact], attempts: Mapping[str, Sequence[Attempt]]) -> list[dict[str, Any]]:
    """Return what the upstream says of the answers that were had whole, as `reconcile` reads it."""
    ends = {fact.id: attempts[fact.id][-1] for fact in facts if fact.outcome == "whole" and fact.id in attempts}
    return [
        {"id": name, "prompt_tokens": end.prompt_tokens, "completion_tokens": end.tokens}
        for name, end in ends.items()
        if end.reported
    ]


def entries_of(lines: str) -> list[dict[str, Any]]:
    """Return the entries of an export."""
    return [json.loads(line) for line in lines.splitlines()]

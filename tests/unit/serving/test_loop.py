"""The decision part of the loop: a pure function from where a turn stands to what it does next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from convene.messages import ToolCall
from convene.serving.base_agentic import Round
from convene.serving.ceilings import Ceilings
from convene.serving.loop import Answer, Ask, Call, HandOver, State, decide

if TYPE_CHECKING:
    from convene.events import FinishReason
    from convene.serving.loop import Decision

OURS = ToolCall("s1", "web_search", "{}")
ALSO_OURS = ToolCall("s2", "mcp__read", "{}")
THEIRS = ToolCall("c1", "get_weather", "{}")
CLIENT = frozenset({"get_weather"})


def said(*calls: ToolCall, finish: FinishReason = "stop") -> Round:
    return Round(text="hm", calls=calls, finish=finish)


def after(state: State, *, calls: int = 64, rounds: int = 64) -> Decision:
    return decide(state, Ceilings(calls=calls, rounds=rounds), CLIENT)


def test_a_turn_begins_by_asking_the_model() -> None:
    assert after(State()) == Ask()


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
def test_without_a_call_what_was_said_is_the_answer(finish: FinishReason) -> None:
    assert after(State(rounds=1, said=said(finish=finish))) == Answer(finish)


@pytest.mark.req("TOOLS-04")
def test_calls_of_client_functions_end_the_turn_with_them() -> None:
    assert after(State(rounds=1, said=said(THEIRS))) == HandOver((THEIRS,))


def test_calls_of_server_tools_run_and_then_the_model_is_asked_again() -> None:
    assert after(State(rounds=1, said=said(OURS, ALSO_OURS))) == Call((OURS, ALSO_OURS))
    assert after(State(rounds=1, calls=2)) == Ask()


def test_in_a_mixed_round_the_server_calls_run_first_and_then_the_client_gets_its_own() -> None:
    assert after(State(rounds=1, said=said(OURS, THEIRS, ALSO_OURS))) == Call((OURS, ALSO_OURS), (), (THEIRS,))
    assert after(State(rounds=1, calls=2, handing=(THEIRS,))) == HandOver((THEIRS,))


def test_a_name_that_nobody_offered_is_the_servers_to_answer_and_not_the_clients() -> None:
    invented = ToolCall("x", "no_such_tool", "{}")
    assert after(State(rounds=1, said=said(invented))) == Call((invented,))


def test_calls_beyond_the_ceiling_are_refused_and_the_next_round_is_the_last() -> None:
    asked = State(rounds=1, calls=1, said=said(OURS, ALSO_OURS))
    assert after(asked, calls=2) == Call((OURS,), (ALSO_OURS,))
    assert after(State(rounds=1, calls=2, refused=True), calls=2) == Ask("calls")


def test_a_turn_that_used_exactly_its_calls_may_answer_as_any_other() -> None:
    assert after(State(rounds=2, calls=2), calls=2) == Ask()
    assert after(State(rounds=3, calls=2, said=said()), calls=2) == Answer("stop")


def test_no_call_runs_above_the_ceiling() -> None:
    assert after(State(rounds=3, calls=2, said=said(OURS)), calls=2) == Call((), (OURS,))


def test_at_the_ceiling_of_rounds_the_next_round_is_the_last() -> None:
    assert after(State(rounds=2, calls=2), rounds=3) == Ask()
    assert after(State(rounds=3, calls=3), rounds=3) == Ask("rounds")


@pytest.mark.parametrize("closing", ["rounds", "calls"])
def test_whatever_the_last_round_says_ends_the_turn_as_cut_short(closing: Literal["rounds", "calls"]) -> None:
    assert after(State(rounds=4, said=said(), closing=closing)) == Answer("length", closing)
    assert after(State(rounds=4, said=said(OURS), closing=closing)) == Answer("length", closing)


def test_a_client_call_in_the_last_round_is_still_the_clients() -> None:
    assert after(State(rounds=4, said=said(THEIRS, OURS), closing="calls")) == HandOver((THEIRS,))


def test_a_model_that_calls_for_ever_is_stopped_one_round_after_its_ceiling() -> None:
    ceilings = Ceilings(calls=5, rounds=6)
    state, ran, asked = State(), 0, 0
    for _ in range(100):
        match decide(state, ceilings, CLIENT):
            case Ask(closing):
                asked += 1
                state = State(rounds=asked, calls=ran, said=said(OURS), closing=closing)
            case Call(run, refused, _):
                ran += len(run)
                state = State(rounds=asked, calls=ran, refused=bool(refused))
            case Answer(reason, closing):
                assert (reason, closing) == ("length", "calls")
                break
    else:
        pytest.fail("it never stopped")
    assert (ran, asked) == (5, 7)

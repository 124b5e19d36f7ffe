"""The loop of an agentic turn: asks, runs what is called, asks again (what to do next is decided in `loop.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.serving.ceilings import reach
from convene.serving.loop import Answer, Ask, Call, HandOver, State, decide
from convene.serving.speech import NativeSpeech, Speech
from convene.serving.tool_talk import ToolTalk

if TYPE_CHECKING:
    from convene.events import FinishReason
    from convene.serving.base_agentic import AgenticRun
    from convene.serving.judge import Judge
    from convene.serving.kept_calls import KeptCalls


class LoopDriver:
    """The driver of every turn that nobody plans."""

    def __init__(self, kept: KeptCalls, judge: Judge | None = None) -> None:
        """Take what is needed.

        Args:
            kept: keeps what the server has done for a client that comes back with results of its own calls.
            judge: judges what agents have answered; else nobody does.
        """
        self._kept = kept
        self._judge = judge

    async def drive(self, run: AgenticRun) -> FinishReason:
        """See `base_agentic.Driver`."""
        speech = self._speech(run)
        names = frozenset(tool.name for tool in speech.client) if isinstance(speech, NativeSpeech) else frozenset()
        state = State()
        while True:
            match decide(state, run.ceilings, names):
                case Ask(closing):
                    said = await speech.ask(closing=bool(closing))
                    state = State(rounds=run.spent.rounds, calls=run.spent.calls, said=said, closing=closing)
                case Call(calls, refused, client):
                    ran = await run.call(calls) if calls else []
                    if ran and self._judge is not None:
                        ran = await self._judge.weigh(run, ran)
                    if state.said is not None:
                        speech.tell(state.said, ran, refused, client)
                    state = State(rounds=run.spent.rounds, calls=run.spent.calls, handing=client, refused=bool(refused))
                case HandOver(calls):
                    if state.said is not None:
                        speech.tell(state.said, (), (), calls)
                    await self._kept.hand_over(run, calls)
                    return "tool_calls"
                case Answer(reason, closing):
                    if closing:
                        run.stop(reach(closing, run.ceilings))
                    return reason

    @staticmethod
    def _speech(run: AgenticRun) -> Speech:
        can = run.capabilities
        if can.tools or not run.tools:
            return NativeSpeech(run)
        if can.json_schema:
            return ToolTalk(run)
        run.notice(
            "server_tools_unavailable",
            f"The model '{run.model}' can neither call tools nor write constrained JSON; it answered without them.",
        )
        run.tools = {}
        return NativeSpeech(run)

"""An A2A agent that knows the calendar: weekdays, weeks, and the days between two dates. Made with the official SDK."""

import argparse
import re
from datetime import date

import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette

ABOUT = "Tells the weekday and the week of a date, and how many days lie between two dates."
USAGE = "Tell me one or two dates as 2026-12-24."


def answer(text: str) -> str:
    """Answer one question; one that is not understood is told what can be asked."""
    dates = []
    for written in re.findall(r"\b\d{4}-\d{2}-\d{2}\b", text):
        try:
            dates.append(date.fromisoformat(written))
        except ValueError:
            return f"{written} is no date. {USAGE}"
    if not dates:
        return USAGE
    said = [f"{day} is a {day:%A} in week {day.isocalendar().week}." for day in dates[:2]]
    if len(dates) > 1:
        said.append(f"There are {abs((dates[1] - dates[0]).days)} days between them.")
    return " ".join(said)


class Calendar(AgentExecutor):  # type: ignore[misc]  # checked where the SDK is not
    """Answers each message with one artifact."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Take a message and end its task."""
        if context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.add_artifact([new_text_part(answer(context.get_user_input()))])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """End a task that is not wanted any more."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def make_app(url: str) -> Starlette:
    """Return the agent as an application that is reached at `url`."""
    card = AgentCard(
        name="calendar",
        description=ABOUT,
        version="1.0.0",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        capabilities=AgentCapabilities(streaming=True),
        skills=[AgentSkill(id="dates", name="dates", description=ABOUT, tags=["calendar"], examples=["2026-12-24"])],
        supported_interfaces=[AgentInterface(url=f"{url}/a2a", protocol_binding="JSONRPC", protocol_version="1.0")],
    )
    door = DefaultRequestHandler(agent_executor=Calendar(), task_store=InMemoryTaskStore(), agent_card=card)
    return Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(door, "/a2a")])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=ABOUT)
    parser.add_argument("--port", type=int, default=8104)
    port = parser.parse_args().port
    uvicorn.run(make_app(f"http://127.0.0.1:{port}"), host="127.0.0.1", port=port, log_level="warning")

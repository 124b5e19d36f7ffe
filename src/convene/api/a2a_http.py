"""`/a2a/...`: the HTTP+JSON binding of A2A 1.0: what a path and a method ask for, handed to `a2a.py` (A2A-01).

    POST /a2a/message:send, /a2a/message:stream            GET /a2a/tasks, /a2a/tasks/ID
    POST /a2a/tasks/ID:cancel, /a2a/tasks/ID:subscribe     GET /a2a/extendedAgentCard

Of notifications by push nothing is offered, as the card says, and each of their paths says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.api import a2a_wire as codec
from convene.api.a2a import Asked
from convene.api.a2a_doors import HttpDoor
from convene.api.json_body import read_object
from convene.api.json_rpc import METHOD_NOT_FOUND, PARSE_ERROR, JsonObject, Request, RpcFault
from convene.api.query import Query
from convene.errors import BadRequest

if TYPE_CHECKING:
    from convene.api.a2a import A2aServer
    from convene.api.a2a_wire import Operation
    from convene.api.call import Call

VERSION: Final = "1.0"
NOTHING: Final = "There is nothing here for this method."
PUSH: Final = "/pushNotificationConfigs"
GETS: Final[dict[str, Operation]] = {"": "get", "subscribe": "subscribe"}
POSTS: Final[dict[str, Operation]] = {"cancel": "cancel", "subscribe": "subscribe"}


class A2aHttp:
    """The endpoints."""

    def __init__(self, server: A2aServer) -> None:
        self._server = server
        self._door = HttpDoor()

    async def send(self, call: Call) -> None:
        """Take a message, and answer with its task."""
        await self._ask(call, "send", takes_body=True)

    async def stream(self, call: Call) -> None:
        """Take a message, and answer with all that comes of it."""
        await self._ask(call, "stream", takes_body=True)

    async def list_tasks(self, call: Call) -> None:
        """List tasks."""
        await self._ask(call, "list", dict(Query.of(call).texts()))

    async def get(self, call: Call) -> None:
        """Show a task, or tell what comes of it."""
        await self._task(call, GETS)

    async def change(self, call: Call) -> None:
        """End a task, or tell what comes of it."""
        await self._task(call, POSTS)

    async def delete(self, call: Call) -> None:
        """Refuse: nothing here can be deleted."""
        await self._task(call, {})

    async def card(self, call: Call) -> None:
        """Refuse: there is no card but the public one."""
        await self._ask(call, "extended_card")

    async def _task(self, call: Call, operations: dict[str, Operation]) -> None:
        """Answer a request for a task, by what stands in its path: ID, ID:VERB, ID/pushNotificationConfigs/..."""
        path = call.params["task"]
        if PUSH in path:
            await self._ask(call, "push")
            return
        name, _, verb = path.partition(":")
        params: JsonObject = {"id": name}
        await self._ask(call, operations.get(verb), params | dict(Query.of(call).texts()) | params)

    async def _ask(
        self, call: Call, operation: Operation | None, params: JsonObject | None = None, *, takes_body: bool = False
    ) -> None:
        self._server.check(call)
        fault = _version_fault(call)
        if operation is None or fault is not None:
            await self._refuse(call, fault or RpcFault(METHOD_NOT_FOUND, NOTHING))
            return
        try:
            given = read_object(await call.body()) if takes_body else params or {}
        except BadRequest as wrong:
            await self._refuse(call, RpcFault(PARSE_ERROR, wrong.message))
            return
        request = Request(id=None, method=operation, params=given)
        await self._server.answer(call, Asked(request, VERSION, operation, self._door))

    async def _refuse(self, call: Call, fault: RpcFault) -> None:
        status, body = self._door.fault(fault)
        await call.reply(status, body, self._door.media_type)


def _version_fault(call: Call) -> RpcFault | None:
    try:
        codec.check_version(call.header(codec.VERSION_HEADER), VERSION)
    except RpcFault as fault:
        return fault
    return None

"""The simulation itself: time that jumps, faults from a seed, and nothing real."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import httpx2
import openai
import pytest

from bridge import CLOSE_TIMEOUT_S, AppBroken, Bridge, open_client
from convene.events import fold
from convene.http.base import ConnectFailed, Disconnected, HttpError, ProtocolBroken, Request, TimedOut, Timeouts
from convene.messages import Message
from convene.providers.base import Generation
from convene.providers.scripted import ScriptedChat
from convene.providers.scripted_scripts import echo
from simulation import (
    STARTED_AT,
    Answer,
    Endless,
    FakeClient,
    LeftOver,
    RealWait,
    Stalled,
    World,
    draw_answer,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bridge import Message as AsgiMessage
    from bridge import Receive, Send
    from convene.clock import Clock
    from convene.http.base import Client, Response

URL = "http://upstream.test/v1/chat/completions"
FRAMES = b"".join(b'data: {"word": %d}\n\n' % i for i in range(20)) + b"data: [DONE]\n\n"
ASK = Request("POST", URL, timeouts=Timeouts(first_byte_s=10, between_bytes_s=5, total_s=60))


async def read_all(client: FakeClient, request: Request = ASK) -> bytes:
    """Read an answer to its end or its fault, and close it either way."""
    response = await client.send(request)
    try:
        body = b""
        async with aclosing(response.chunks()) as pieces:
            async for piece in pieces:
                body += piece
        return body
    finally:
        response.close()


def answer_with(answer: Answer, request: Request = ASK) -> Callable[[World], Coroutine[object, object, bytes]]:
    async def scene(world: World) -> bytes:
        return await read_all(FakeClient(world, {URL: answer}), request)

    return scene


def test_a_day_passes_at_once_and_exactly() -> None:
    async def scene(world: World) -> tuple[float, float]:
        for _ in range(24):
            await asyncio.sleep(3600)
        return world.clock.monotonic(), world.clock.now()

    assert run(scene, 1) == (86400.0, STARTED_AT + 86400.0)


def test_timers_fire_in_the_order_of_their_time() -> None:
    async def scene(world: World) -> list[str]:
        async def wait(name: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            world.note(name)

        await asyncio.gather(wait("late", 3), wait("between", 2), wait("early", 0.001))
        return [what for _, what in world.trace]

    assert run(scene, 1) == ["early", "between", "late"]


def test_a_timeout_ends_a_wait_at_its_virtual_time() -> None:
    async def scene(world: World) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7.5):
                await asyncio.Event().wait()
        return world.clock.monotonic()

    assert run(scene, 1) == 7.5


def test_a_scene_in_which_nothing_can_happen_is_stalled_and_names_its_seed() -> None:
    async def scene(world: World) -> None:
        await asyncio.sleep(2)
        world.note("waiting")
        await asyncio.Event().wait()

    with pytest.raises(Stalled, match=r"2\.000 s") as caught:
        run(scene, 42)
    assert caught.value.__notes__ == ["simulation seed 42, at 2.000000 s"]


def test_a_scene_that_never_ends_is_ended() -> None:
    async def scene(_: World) -> None:
        for _turn in range(1001):
            await asyncio.sleep(0)

    with pytest.raises(Endless):
        run(scene, 1, turns_max=1000)


def test_a_task_left_behind_is_found_and_cancelled() -> None:
    ended: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            ended.append("cancelled")

    async def scene(_: World) -> None:
        task = asyncio.create_task(linger(), name="the forgotten one")
        await asyncio.sleep(0)
        assert not task.done()

    with pytest.raises(LeftOver, match="the forgotten one"):
        run(scene, 1)
    assert ended == ["cancelled"]


def test_a_response_left_open_is_found() -> None:
    async def scene(world: World) -> None:
        await FakeClient(world, {URL: Answer(body=b"x")}).send(ASK)

    with pytest.raises(LeftOver, match="open responses"):
        run(scene, 1)


def test_an_error_nobody_looked_at_is_raised() -> None:
    async def fail() -> None:
        raise LookupError("unseen")

    async def scene(_: World) -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        assert task.done()

    with pytest.raises(ExceptionGroup) as caught:
        run(scene, 1)
    assert caught.group_contains(LookupError, match="unseen")


def test_sockets_and_name_servers_are_refused() -> None:
    async def connect(_: World) -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    async def listen(_: World) -> None:
        await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)

    async def look_up(_: World) -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    for scene in (connect, listen, look_up):
        with pytest.raises(RealWait):
            run(scene, 1)


def test_another_thread_is_refused() -> None:
    async def scene(_: World) -> list[type[BaseException]]:
        loop = asyncio.get_running_loop()
        caught: list[type[BaseException]] = []

        def call_in() -> None:
            try:
                loop.call_soon_threadsafe(caught.append, ValueError)
            except RealWait as fault:
                caught.append(type(fault))

        thread = threading.Thread(target=call_in)
        thread.start()
        thread.join()
        return caught

    assert run(scene, 1)[0] is RealWait


def test_the_doubles_fit_the_seams_they_stand_for() -> None:
    async def scene(world: World) -> None:
        clock: Clock = world.clock
        client: Client = FakeClient(world, {URL: Answer(body=b"ok")})
        response: Response = await client.send(ASK)
        assert await response.read(2) == b"ok"
        response.close()
        response.close()
        assert clock.now() == STARTED_AT

    run(scene, 1)


def test_an_app_that_goes_on_after_its_cancellation_is_found_by_the_bridge() -> None:
    async def app(scope: AsgiMessage, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200})
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(100)

    async def scene(world: World) -> float:
        async with httpx2.AsyncClient(transport=Bridge(app), trust_env=False) as http:
            response = await http.send(http.build_request("GET", URL), stream=True)
            with pytest.raises(AppBroken, match="went on"):
                await response.aclose()
            await asyncio.sleep(100)
        return world.clock.monotonic()

    assert run(scene, 1) == CLOSE_TIMEOUT_S + 100


def test_work_for_a_thread_is_done_at_once() -> None:
    def fail() -> None:
        raise LookupError

    async def scene(world: World) -> tuple[int, float]:
        with pytest.raises(LookupError):
            await asyncio.to_thread(fail)
        return await asyncio.to_thread(lambda: 6 * 7), world.clock.monotonic()

    assert run(scene, 1) == (42, 0.0)


def test_ids_and_chance_come_from_the_seed() -> None:
    async def scene(world: World) -> tuple[str, bytes, float, float]:
        clock = world.clock
        return clock.new_id("req_"), clock.token(8), clock.fraction(), world.source("weather").random()

    first, again, other = run(scene, 7), run(scene, 7), run(scene, 8)
    assert first == again
    assert all(mine != theirs for mine, theirs in zip(first, other, strict=True))
    assert first[0].startswith("req_")
    assert len(first[0]) == len("req_") + 24
    assert len(first[1]) == 8
    assert 0 <= first[2] < 1


def test_an_answer_arrives_whole_in_pieces_over_time() -> None:
    async def scene(world: World) -> tuple[list[bytes], float]:
        answer = Answer(
            headers=(("X-Served-By", "memory"),), body=FRAMES, delay_s=(2, 2), gap_s=(0.5, 0.5), piece_bytes=40
        )
        response = await FakeClient(world, {URL: answer}).send(ASK)
        assert (response.status, response.headers["x-served-by"]) == (200, "memory")
        assert world.clock.monotonic() == 2
        pieces = [piece async for piece in response.chunks()]
        response.close()
        return pieces, world.clock.monotonic()

    pieces, ended_s = run(scene, 5)
    assert b"".join(pieces) == FRAMES
    assert max(map(len, pieces)) <= 40
    assert len(set(map(len, pieces))) > 1
    assert ended_s == pytest.approx(2 + 0.5 * len(pieces))


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Answer(fault="refuse"), ConnectFailed, "refused"),
        (Answer(fault="reset"), Disconnected, "without an answer"),
        (Answer(body=FRAMES, fault="reset", fault_at=100), Disconnected, "in mid-answer"),
        (Answer(body=FRAMES, fault="reset", fault_at=0), Disconnected, "in mid-answer"),
        (Answer(fault="stall"), TimedOut, "first_byte after 10 s"),
        (Answer(body=FRAMES, fault="stall", fault_at=100), TimedOut, "between_bytes after 5 s"),
        (Answer(delay_s=(11, 11)), TimedOut, "first_byte after 10 s"),
        (Answer(body=FRAMES, gap_s=(6, 6)), TimedOut, "between_bytes after 5 s"),
        (Answer(body=FRAMES, gap_s=(4, 4), piece_bytes=1), TimedOut, "total after 60 s"),
        (Answer(fault="garble"), ProtocolBroken, "does not speak HTTP"),
        (Answer(body=FRAMES, fault="garble", fault_at=3), ProtocolBroken, "does not speak HTTP"),
    ],
)
def test_each_fault_is_the_error_that_the_real_client_raises(
    answer: Answer, error: type[HttpError], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(answer_with(answer), 3)


def test_a_fault_at_byte_n_lets_exactly_n_bytes_through() -> None:
    async def scene(world: World) -> bytes:
        client = FakeClient(world, {URL: Answer(body=FRAMES, piece_bytes=9, fault="reset", fault_at=100)})
        response = await client.send(ASK)
        body = b""
        try:
            async for piece in response.chunks():
                body += piece
        except Disconnected:
            return body
        finally:
            response.close()
        pytest.fail("the fault did not strike")

    assert run(scene, 3) == FRAMES[:100]


def test_the_answers_of_a_list_come_in_turn_and_the_last_repeats() -> None:
    async def scene(world: World) -> list[int]:
        client = FakeClient(world, {URL: [Answer(status=503), Answer(status=429), Answer()]})
        statuses = []
        for _ in range(4):
            response = await client.send(ASK)
            statuses.append(response.status)
            response.close()
        return statuses

    assert run(scene, 1) == [503, 429, 200, 200]


def test_an_answer_may_depend_on_the_request() -> None:
    async def scene(world: World) -> bytes:
        client = FakeClient(world, {URL: lambda request: Answer(body=request.body[::-1])})
        response = await client.send(Request("POST", URL, body=b"abc"))
        body = await response.read(10)
        response.close()
        return body

    assert run(scene, 1) == b"cba"


def test_a_body_above_the_cap_and_an_unknown_host_are_errors() -> None:
    async def scene(world: World) -> None:
        client = FakeClient(world, {URL: Answer(body=FRAMES)})
        response = await client.send(ASK)
        with pytest.raises(ProtocolBroken):
            await response.read(10)
        response.close()
        with pytest.raises(ConnectFailed):
            await client.send(Request("GET", "http://nobody.test/"))

    run(scene, 1)


def test_a_cancelled_reader_drops_its_connection_at_that_moment() -> None:
    async def scene(world: World) -> list[tuple[float, str]]:
        client = FakeClient(world, {URL: Answer(body=FRAMES, gap_s=(1, 1), piece_bytes=1)})
        reader = asyncio.create_task(read_all(client))
        await asyncio.sleep(3.5)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return world.trace

    assert run(scene, 1)[-1] == (3.5, f"dropped after 3 bytes {URL}")


def test_a_closed_client_drops_what_is_open_and_sends_no_more() -> None:
    async def scene(world: World) -> None:
        client = FakeClient(world, {URL: Answer(body=FRAMES, gap_s=(1, 1), piece_bytes=1)})
        reader = asyncio.create_task(read_all(client))
        await asyncio.sleep(2.5)
        await client.aclose()
        with pytest.raises(Disconnected):
            await reader
        with pytest.raises(ConnectFailed):
            await client.send(ASK)

    run(scene, 1)


async def stormy(world: World) -> list[tuple[float, str]]:
    """Twenty readers of a stream in bad weather, some of whom leave early."""
    source = world.source("weather")
    answers = [draw_answer(source, Answer(body=FRAMES), fault_share=0.5) for _ in range(20)]
    client = FakeClient(world, {URL: answers})

    async def read(number: int, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                body = await read_all(client)
        except (HttpError, TimeoutError) as fault:
            world.note(f"reader {number}: {type(fault).__name__}")
        else:
            assert body == FRAMES
            world.note(f"reader {number}: whole")

    await asyncio.gather(*(read(number, source.choice((0.5, 20.0, 500.0))) for number in range(20)))
    return world.trace


def test_the_same_seed_gives_the_same_trace_and_another_seed_another_one() -> None:
    traces = [run(stormy, seed) for seed in range(12)]
    assert traces == [run(stormy, seed) for seed in range(12)]
    assert len({tuple(trace) for trace in traces}) == 12


def test_every_reader_ends_and_every_connection_is_dropped_or_given_back_in_any_weather() -> None:
    endings = set()
    for seed in range(12):
        trace = [what for _, what in run(stormy, seed)]
        readers = [what for what in trace if what.startswith("reader")]
        assert len(readers) == 20
        refused = sum(what.endswith("ConnectFailed") for what in readers)
        assert sum(what.startswith(("closed", "dropped")) for what in trace) == 20 - refused
        endings |= {what.rpartition(" ")[2] for what in readers}
    assert endings == {"whole", "TimeoutError", "ConnectFailed", "Disconnected", "ProtocolBroken", "TimedOut"}


def test_a_slow_model_keeps_its_pauses_in_virtual_time() -> None:
    async def scene(world: World) -> tuple[str, float]:
        model = ScriptedChat("slow", echo, world.clock, pause_s=0.05)
        asked = Generation(messages=(Message(role="user", content="word " * 7_200),))
        events = [event async for event in model.generate(asked)]
        return "".join(fold(events).choice(0).text), world.clock.monotonic()

    text, ended_s = run(scene, 1)
    assert text == "word " * 7_200
    assert ended_s == pytest.approx(360.0, abs=0.1)


def test_the_official_client_reads_a_stream_within_the_simulation() -> None:
    async def app(scope: AsgiMessage, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for word in (b"one", b"two"):
            await asyncio.sleep(30)
            frame = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % word
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def scene(world: World) -> list[tuple[float, str | None]]:
        async with open_client(app) as http:
            client = openai.AsyncOpenAI(http_client=http, base_url=f"{http.base_url}v1", api_key="k", max_retries=0)
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            )
            return [(world.clock.monotonic(), piece.choices[0].delta.content) async for piece in stream]

    assert run(scene, 1) == [(30.0, "one"), (60.0, "two")]

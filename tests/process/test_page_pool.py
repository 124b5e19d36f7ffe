"""Reading in processes: real children, pages that would stall or break the server, cancels, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from convene.errors import Failed
from convene.tools.page_pool import PageOrder, PagePool, PageText
from page_samples import ARTICLE, HARMFUL, PARAGRAPH, pdf
from process.http_client_peers import LOOPS, reached

if TYPE_CHECKING:
    from process.http_client_peers import Runner

PATIENT_S = 60.0


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runner:
    """Return what runs a test's coroutine."""
    runner: Runner = request.param
    return runner


def order(**fields: object) -> PageOrder:
    given = {"kind": "html", "charset": "", "url": "https://vell.example/", "start": 0, "chars": 50_000, **fields}
    return PageOrder(**given)  # type: ignore[arg-type]


def playing(script: str) -> tuple[str, ...]:
    """Return the command of a child that plays a Python script instead of reading pages."""
    return (sys.executable, "-c", f"import os, sys, time\n{script}")


HANGS = playing("sys.stdin.buffer.readline(); time.sleep(600)")


def test_pages_of_every_kind_are_read_by_the_same_process(run: Runner) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S)
        try:
            page = await pool.read(order(), ARTICLE.encode())
            assert page.title == "The Light of Vell"
            assert page.links[0] in page.text
            (child,) = pool._children
            assert "Lit in 1871" in (await pool.read(order(kind="pdf"), pdf(["Lit in 1871"]))).text
            plain = await pool.read(order(kind="text", charset="utf-8"), "grün\n\nx".encode())
            assert plain == PageText("", "grün\n\nx", 7)
            with pytest.raises(Failed, match="damaged"):
                await pool.read(order(kind="pdf"), b"x")
            assert pool._children == {child}
        finally:
            await pool.aclose()
        assert child.process.returncode == -signal.SIGKILL

    run(scene())


def test_a_large_body_and_a_large_answer_fit_through_the_pipes(run: Runner) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S)
        text = PARAGRAPH * 6000
        try:
            page = await pool.read(order(kind="text", chars=5_000_000), text.encode())
            assert page.total == len(text.strip())
        finally:
            await pool.aclose()

    run(scene())


def test_a_child_has_no_secret_of_its_parent_s_and_can_write_no_file(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hush")

    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S)
        try:
            await pool.read(order(), ARTICLE.encode())
            (child,) = pool._children
            with open(f"/proc/{child.process.pid}/environ", encoding="utf-8") as environment:  # noqa: ASYNC230, PTH123
                assert set(environment.read().split("\0")) == {"PYTHONUTF8=1", "LC_ALL=C.UTF-8", ""}
            with open(f"/proc/{child.process.pid}/limits", encoding="utf-8") as limits:  # noqa: ASYNC230, PTH123
                lines = {line[:26].strip(): line[26:].split()[:2] for line in limits}
            assert lines["Max file size"] == ["0", "0"]
            assert lines["Max address space"] == [str(2 << 30)] * 2
        finally:
            await pool.aclose()

    run(scene())


def test_a_page_that_takes_too_long_is_given_up_while_the_loop_goes_on(run: Runner) -> None:
    async def scene() -> None:
        bomb = b"<a " + b" ".join(b"a%d=1" % number for number in range(400_000)) + b">x"
        pool = PagePool(processes_max=1, read_s=0.5)
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.005)
                turns += 1

        ticking = asyncio.ensure_future(tick())
        try:
            reading = asyncio.ensure_future(pool.read(order(), bomb))
            await reached(lambda: bool(pool._children))
            (child,) = pool._children
            with pytest.raises(Failed, match=r"longer than 0\.5 s"):
                await reading
            assert turns >= 20, "the loop was never held up for long"
            await reached(lambda: child.process.returncode is not None)
        finally:
            ticking.cancel()
            await pool.aclose()

    run(scene())


@pytest.mark.parametrize("name", HARMFUL)
async def test_after_a_hostile_page_the_next_is_read(name: str) -> None:
    pool = PagePool(processes_max=1, read_s=PATIENT_S)
    try:
        with contextlib.suppress(Failed):
            await pool.read(order(), HARMFUL[name])
        assert (await pool.read(order(), ARTICLE.encode())).title == "The Light of Vell"
    finally:
        await pool.aclose()


@pytest.mark.parametrize(
    "script",
    [
        "sys.exit(3)",
        "sys.stdin.buffer.readline(); os.abort()",
        "sys.stdin.buffer.readline(); print('not json', flush=True); time.sleep(600)",
        "sys.stdin.buffer.readline(); print('[1]', flush=True); time.sleep(600)",
        "sys.stdin.buffer.readline()\nwhile True: sys.stdout.write('x' * 65536)",
    ],
)
def test_a_child_that_breaks_is_told_and_replaced(run: Runner, script: str) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S, command=playing(script))
        try:
            for _ in range(2):
                with pytest.raises(Failed, match="broke the program"):
                    await pool.read(order(), b"x")
            assert pool._idle == []
        finally:
            await pool.aclose()

    run(scene())


def test_a_child_that_neither_reads_nor_stops_writing_leaves_no_pipe_behind(run: Runner) -> None:
    async def scene() -> None:
        script = "sys.stdin.buffer.readline()\nwhile True: sys.stdout.write('x' * 65536)"
        pool = PagePool(processes_max=1, read_s=0.2, command=playing(script))
        open_before = len(list(Path("/proc/self/fd").iterdir()))  # noqa: ASYNC240 - a look, not a wait
        for _ in range(5):
            with pytest.raises(Failed):
                await pool.read(order(), b"x" * 1_000_000)
        await reached(lambda: len(list(Path("/proc/self/fd").iterdir())) <= open_before + 2)
        await pool.aclose()
        assert pool._ending == set()

    run(scene())


def test_a_program_that_cannot_be_started_is_a_fault_in_words(run: Runner) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S, command=("/no/such/program",))
        with pytest.raises(Failed, match="at the moment"):
            await pool.read(order(), b"x")
        await pool.aclose()

    run(scene())


def test_a_cancelled_reading_ends_at_once_and_kills_its_process(run: Runner) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S, command=HANGS)
        try:
            for _ in range(3):
                task = asyncio.ensure_future(pool.read(order(), b"x"))
                await reached(lambda: any(child.process.returncode is None for child in pool._children))
                children = list(pool._children)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                for child in children:
                    await child.process.wait()
            assert pool._idle == []
        finally:
            await pool.aclose()

    run(scene())


def test_no_more_processes_are_started_than_allowed_and_the_others_wait(run: Runner) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=2, read_s=PATIENT_S)
        try:
            pages = await asyncio.gather(*(pool.read(order(), ARTICLE.encode()) for _ in range(8)))
            assert {page.title for page in pages} == {"The Light of Vell"}
            assert len(pool._children) == 2
        finally:
            await pool.aclose()

    run(scene())


def test_an_idle_process_ends_by_itself_and_a_new_one_is_started(run: Runner) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S, idle_s=0.01)
        try:
            await pool.read(order(), ARTICLE.encode())
            (child,) = pool._children
            await reached(lambda: child.process.returncode is not None)
            assert (await pool.read(order(), ARTICLE.encode())).title
            assert child not in pool._children
        finally:
            await pool.aclose()

    run(scene())


def test_a_process_is_replaced_after_many_pages(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convene.tools.page_pool.PAGES_PER_CHILD", 2)

    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S)
        try:
            pids: list[int] = []
            for _ in range(4):
                await pool.read(order(kind="text"), b"x")
                pids += [child.process.pid for child in pool._children if child.process.pid not in pids]
            assert len(pids) == 2
        finally:
            await pool.aclose()

    run(scene())


def test_a_closed_pool_reads_no_more(run: Runner) -> None:
    async def scene() -> None:
        pool = PagePool(processes_max=1, read_s=PATIENT_S, command=HANGS)
        task = asyncio.ensure_future(pool.read(order(), b"x"))
        await reached(lambda: bool(pool._children))
        await pool.aclose()
        with pytest.raises(Failed):
            await task
        with pytest.raises(Failed, match="shutting down"):
            await pool.read(order(), b"x")

    run(scene())


async def test_a_child_ends_with_its_parent() -> None:
    code = (
        "import asyncio, os\nfrom convene.tools.page_pool import PageOrder, PagePool\n"
        "async def main():\n"
        "    pool = PagePool(processes_max=1, read_s=60)\n"
        "    await pool.read(PageOrder(kind='text', charset='', url='https://a.example/', start=0, chars=9), b'x')\n"
        "    print([child.process.pid for child in pool._children][0], flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    await parent.wait()

    def is_gone() -> bool:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123
                return stat.read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    await reached(is_gone)

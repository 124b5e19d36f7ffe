"""Agentic runs of a real server under kill -9, in every step and at the end of every step (goal D4).

    python tests/process/run_kill.py --kills 200
    python tests/process/run_kill.py --kills 40 --kills-per-run 3 --url postgresql://user@host/an-empty-database
    python tests/process/run_kill.py --kills 40 --workers 2

Each run has twenty steps: eight rounds of a model and twelve calls of a tool that changes something outside
(`run_double.py`). It is killed at a point, the server is started again on the same data, and the run must end as if
nothing had happened: no completed step repeated, an effect repeated at most once for each kill and always under the
same key, each token once in the books. With `--workers` the effects are an MCP server's, all workers are killed, and
their supervisor starts others, later each time. Prints one JSON line; exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from mcp_double import McpDouble
from process.books_soak import gone, runs
from process.run_double import ANSWER, CALLS, POINTS, RunDouble, completion_tokens, prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT_S: Final = 60.0
"""A bound for what ends soon unless something is broken."""
LOOK_S: Final = 0.02
LAST_WORDS_S: Final = 0.05
"""What the killed had sent is heard within this time, before anything is expected of the next server."""
DELAYS_S: Final = (0.0, 0.0005, 0.001, 0.003)
"""How long after the end of a step a kill comes."""
CONFIG: Final = """
port = {port}
workers = {workers}
[engine]
enabled = false
[limits]
lease_s = 2
[upstreams.double]
base_url = "{url}/v1"
[models.double]
upstream = "double"
tools = true
"""


MCP: Final = """
[mcp.outside]
url = "{url}"
labels = []
"""


class Report(msgspec.Struct):
    """What the kills came to."""

    kills: int = 0
    runs: int = 0
    repeated_effects: int = 0
    """Effects that were under way at a kill, and were done again under the same key; that is allowed."""
    repeated_rounds: int = 0
    resumed_ms_max: int = 0
    """From the server's first answer after a start until the run went on."""
    resumed_ms_p50: int = 0
    started_ms_max: int = 0
    """From the start of the process until its first answer."""
    estimated_entries: int = 0
    wrong: list[str] = []


class Server:
    """The server with the tool, killed and started again on one port and one data folder."""

    def __init__(self, folder: Path, double: str, database: str = "", *, mcp: str = "", workers: int = 1) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.key = ""
        self.started_s = 0.0
        self._words = ("-m", "convene", "serve") if mcp else (str(Path(__file__).with_name("run_server.py")), double)
        self._workers = workers
        self._folder = folder
        self._log = folder / "log"
        self._process: asyncio.subprocess.Process | None = None
        file = folder / "convene.toml"
        file.write_text(CONFIG.format(port=self.port, url=double, workers=workers) + (mcp and MCP.format(url=mcp)))
        known = {name: value for name, value in os.environ.items() if not name.startswith("CONVENE_")}
        self._environ = known | {"CONVENE_CONFIG": str(file), "CONVENE_DATA_DIR": str(folder / "data")}
        if database:
            self._environ["CONVENE_DATABASE_URL"] = database

    async def start(self) -> None:
        """Start it, or let the supervisor start others, and wait for its first answer."""
        began = time.monotonic()
        if self._process is None or self._process.returncode is not None:
            await self._spawn()
        async with asyncio.timeout(WAIT_S):
            while not await self._answers():
                assert self._process is not None
                assert self._process.returncode is None, self._log.read_text()[-4000:]
                await asyncio.sleep(LOOK_S)
        self.started_s = time.monotonic() - began
        if not self.key:
            self.key = self._log.read_text().partition("Authorization: Bearer ")[2].split("'")[0]

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self._words),
                stdout=log,
                stderr=log,
                env=self._environ,
                cwd=self._folder,
            )

    async def kill(self) -> None:
        """Kill -9: the server, or all its workers."""
        assert self._process is not None
        if self._workers == 1:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            return
        victims = serving(self._log)[-self._workers :]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        await gone(*victims)

    async def stop(self) -> None:
        """End it in order."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            async with asyncio.timeout(WAIT_S):
                await self._process.wait()

    async def get(self, path: str) -> Any:  # noqa: ANN401 -- JSON
        """Return the JSON of a GET. Raises `OSError` if the server does not answer with 200."""
        status, body = await self._ask(f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {self.key}\r\n\r\n".encode())
        if status != 200:
            raise OSError(status, body[:300].decode(errors="replace"))
        return json.loads(body)

    async def chat(self, run: str) -> None:
        """Ask for a run, streaming, and read until the server is gone or has answered."""
        body = json.dumps(
            {"model": "double", "stream": True, "messages": [{"role": "user", "content": f"Do all of it. run={run}"}]}
        ).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {self.key}\r\nx-session-id: {run}\r\n"
        with contextlib.suppress(OSError, IndexError):  # it dies, as it should
            await self._ask(
                f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            first, _, rest = request.partition(b"\r\n")
            writer.write(b"%b\r\nHost: 127.0.0.1\r\nConnection: close\r\n%b" % (first, rest))
            answer = await reader.read()
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    async def _answers(self) -> bool:
        if self._workers > 1 and len([pid for pid in serving(self._log) if runs(pid)]) < self._workers:
            return False
        try:
            status, _ = await self._ask(b"GET /livez HTTP/1.1\r\n\r\n")
        except (OSError, IndexError):
            return False
        return status == 200


def serving(file: Path) -> list[int]:
    """Return the process of each worker that has ever served, oldest first."""
    lines = file.read_text(errors="replace").splitlines()
    found = (json.loads(line)["message"] for line in lines if '"event":"convene.workers"' in line)
    return [int(words.split()[-1].rstrip(")")) for words in found if " serves (process " in words]


class Drill:
    """Runs that are killed, one after the other."""

    def __init__(self, server: Server, double: RunDouble, chance: random.Random) -> None:
        self.report = Report()
        self._server = server
        self._double = double
        self._chance = chance
        self._resumed_s: list[float] = []

    async def run(self, name: str, points: list[tuple[str, int, str]]) -> None:
        """Kill one run at each of these points in turn, and see that it ends as it should."""
        server, double = self._server, self._double
        double.stop_at(*points[0], self._chance.choice(DELAYS_S))
        asking = asyncio.create_task(server.chat(name))
        kills = quiet = 0
        for place, _ in enumerate(points):
            async with asyncio.timeout(WAIT_S):
                reached = asyncio.create_task(double.reached())
                while not reached.done() and (place == 0 or not await self._over(name)):
                    await asyncio.wait([reached], timeout=LOOK_S)
            if not reached.done():  # a repeat of a round that came before the point: it was never reached again
                reached.cancel()
                break
            await server.kill()
            kills += 1
            await asyncio.sleep(LAST_WORDS_S)
            if place + 1 < len(points):
                double.stop_at(*points[place + 1], self._chance.choice(DELAYS_S))
            before = double.arrivals
            await server.start()
            quiet += not await self._resumed(name, before)
        await asking
        self.report.kills += kills
        self.report.runs += 1
        await self._end(name, kills, quiet)

    async def _resumed(self, name: str, before: int) -> bool:
        """Take the time until the run goes on; False if it asks for nothing more: it may have been over at the kill."""
        began = time.monotonic()

        async def goes_on() -> bool:
            return self._double.arrivals > before or await self._over(name)

        await until(goes_on)
        self._resumed_s.append(time.monotonic() - began)
        self.report.started_ms_max = max(self.report.started_ms_max, round(self._server.started_s * 1000))
        took = sorted(self._resumed_s)
        self.report.resumed_ms_max = round(took[-1] * 1000)
        self.report.resumed_ms_p50 = round(took[len(took) // 2] * 1000)
        return self._double.arrivals > before

    async def _over(self, name: str) -> bool:
        runs = (await self._server.get(f"/v1/runs?session={name}"))["data"]
        return bool(runs) and runs[0]["status"] != "running"

    async def _end(self, name: str, kills: int, quiet: int) -> None:
        """See how a run ended; after `quiet` of the kills it had nothing more to ask, so may have been over."""
        await until(lambda: self._over(name))
        server, wrong = self._server, self.report.wrong
        (listed,) = (await server.get(f"/v1/runs?session={name}"))["data"]
        run = await server.get(f"/v1/runs/{listed['id']}")
        if run["status"] != "done" or run["response"]["choices"][0]["message"]["content"] != ANSWER:
            wrong.append(f"{name}: ended as {run['status']}: {run['error']}")
            return
        if [step["status"] for step in run["intermediate_steps"]] != ["done"] * 20:
            wrong.append(f"{name}: its steps ended as {[step['status'] for step in run['intermediate_steps']]}")
        if not kills - quiet <= run["resumes"] <= kills:
            wrong.append(f"{name}: was taken up {run['resumes']} times after {kills} kills")
        self._check_effects(name, kills)
        await self._check_books(name, run)

    def _check_effects(self, name: str, kills: int) -> None:
        seen, wrong = self._double.seen[name], self.report.wrong
        if set(seen.effects) != set(range(1, sum(CALLS) + 1)) or set(seen.rounds) != set(range(1, len(CALLS) + 1)):
            wrong.append(f"{name}: effects {dict(seen.effects)}, rounds {dict(seen.rounds)}")
        if any(len(keys) != 1 for keys in seen.keys.values()):
            wrong.append(f"{name}: an effect had several keys: {seen.keys}")
        if len({key for keys in seen.keys.values() for key in keys}) != len(seen.keys):
            wrong.append(f"{name}: two effects had one key")
        again = [number for number, times in seen.effects.items() if times > 1]
        if any(times > 1 + kills for times in (*seen.effects.values(), *seen.rounds.values())):
            wrong.append(f"{name}: repeated too often: {dict(seen.effects)} {dict(seen.rounds)}")
        # what had ended before the last step that was under way is never done again
        rounds_again = [number for number, times in seen.rounds.items() if times > 1]
        if len(rounds_again) > kills or len(again) > 2 * kills:
            wrong.append(f"{name}: more was repeated than was under way: rounds {rounds_again}, effects {again}")
        self.report.repeated_effects += len(again)
        self.report.repeated_rounds += len(rounds_again)

    async def _check_books(self, name: str, run: dict[str, Any]) -> None:
        """See that each token is there once: exact, but for what is reserved for a round that was under way."""
        wrong = self.report.wrong
        ids = [run["response_id"], *(f"{run['response_id']}-r{fence}" for fence in range(2, run["resumes"] + 2))]
        entries: list[dict[str, Any]] = []
        async with asyncio.timeout(WAIT_S):
            while len(entries) < len(ids):
                found = (await self._server.get(f"/v1/usage/requests?session={name}&limit=100"))["data"]
                entries = [entry for entry in found if entry["id"] in ids]
                if len(entries) < len(ids):
                    await asyncio.sleep(LOOK_S)
            extra = [entry["id"] for entry in found if entry["id"] not in ids]
        if extra:
            wrong.append(f"{name}: entries that nobody knows: {extra}")
        prompt, completion = (
            sum(entry[field] for entry in entries) for field in ("prompt_tokens", "completion_tokens")
        )
        rounds = range(1, len(CALLS) + 1)
        estimated = [entry for entry in entries if entry["estimated"]]
        self.report.estimated_entries += len(estimated)
        said_prompt, said_completion = sum(map(prompt_tokens, rounds)), sum(map(completion_tokens, rounds))
        if prompt != said_prompt or (completion != said_completion and not estimated) or completion < said_completion:
            wrong.append(
                f"{name}: the books have {prompt}+{completion} tokens, the model said {said_prompt}+{said_completion}: "
                f"{[(one['id'], one['prompt_tokens'], one['completion_tokens'], one['estimated']) for one in entries]}"
            )
        for used in (run["usage"], run["response"]["usage"]):
            if (used["prompt_tokens"], used["completion_tokens"]) != (said_prompt, said_completion):
                wrong.append(f"{name}: the run says that it used {used}")


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so, looking again and again."""
    async with asyncio.timeout(WAIT_S):
        while not await so():  # noqa: ASYNC110 -- what is waited for is in another process
            await asyncio.sleep(LOOK_S / 4)


def plan(kills: int, per_run: int, chance: random.Random) -> list[list[tuple[str, int, str]]]:
    """Return where each run is killed: every point once, then again; a run's kills in the order of steps."""
    points: list[tuple[str, int, str]] = []
    while len(points) < kills:
        points += chance.sample(POINTS, len(POINTS))
    groups = [points[start : start + per_run] for start in range(0, kills, per_run)]
    return [sorted(group, key=_place) for group in groups]


def _place(point: tuple[str, int, str]) -> tuple[int, int, int]:
    kind, number, moment = point
    number_of_round = (
        number if kind == "round" else next(at for at in range(1, len(CALLS) + 1) if sum(CALLS[:at]) >= number)
    )
    return number_of_round, kind == "effect", moment == "after"


async def drill(folder: Path, kills: int, per_run: int, seed: int, database: str = "", *, workers: int = 1) -> Report:
    """Kill runs so often and return what came of it. With several workers the effects are an MCP server's."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable as far as a race can be
    async with RunDouble("outside__effect" if workers > 1 else "effect") as double, McpDouble() as mcp:
        mcp.change(double.effect_tool(mcp))
        server = Server(folder, double.base_url, database, mcp=mcp.url if workers > 1 else "", workers=workers)
        await server.start()
        work = Drill(server, double, chance)
        try:
            for number, points in enumerate(plan(kills, per_run, chance)):
                await work.run(f"r{number}", points)
        finally:
            await server.stop()
        return work.report


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--kills-per-run", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", default="", help="Postgres; else SQLite in a folder of its own.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = drill(Path(folder), asked.kills, asked.kills_per_run, asked.seed, asked.url, workers=asked.workers)
        report = asyncio.run(work)
    sys.stdout.write(f"{msgspec.json.encode(report).decode()}\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

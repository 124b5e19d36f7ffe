"""The books of a real server against clients that leave, upstreams that fail and kill -9 (goals A4 and B3).

    python tests/process/books_soak.py --requests 50000 --kills 200 --seed 1
    python tests/process/books_soak.py --requests 5000 --kills 30 --workers 2

Starts `convene serve` on SQLite before an upstream that knows the truth (`truth_upstream.py`), under three models whose
upstreams differ in `on_disconnect`; lets many clients stream, ask whole and hang up at a random byte or moment; kills
the server (with workers: one of them) at random moments and starts it again on the same data. When the leases are over,
what clients got, what the upstream did, what the books say and what the counters say must be the same
(`books_soak_check.py`). Prints one JSON line; exit code 1 if anything is wrong. The seed fixes what clients choose, not
how the race goes.
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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from process.books_soak_check import MODELS, PRICE, Fact, Tally, compare, entries_of, take_answer, truths
from process.truth_upstream import TruthUpstream, prompt_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIENTS: Final = 24
OUTPUT_MAX: Final = 64
WAIT_S: Final = 120.0
"""A bound for what ends soon unless something is broken."""
ALL_EVERY: Final = 4
"""Of the kills with workers, every fourth is of the first process, and with it of all."""
LOOK_S: Final = 0.03
TICK_S: Final = 0.05
FAULTS: Final = ("refuse", "500", "break", "stall", "mute")
CONFIG: Final = """
port = {port}
workers = {workers}
[edge]
connections_per_address_max = 5000
[engine]
enabled = false
[limits]
lease_s = 2
[plans.owner]
budget_total = 1000000.0
concurrent_requests = 5000
"""
UPSTREAM: Final = """
[upstreams.{name}]
base_url = "{url}"
on_disconnect = "{name}"
between_tokens_s = 5.0
first_token_s = 5.0
[models.{name}]
upstream = "{name}"
output_tokens_max = {most}
[prices.{name}]
{price}
"""


class Server:
    """A `convene serve` that is killed and started again on one port and one data folder."""

    def __init__(self, folder: Path, upstream: str, workers: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.key = ""
        self.generation = 0
        """Grows before a kill, and again when the killed are gone. While odd, they may still take a connection."""
        self._kills = 0
        self._workers = workers
        self._log = folder / "log"
        self.truth = folder / "truth.jsonl"
        self._process: asyncio.subprocess.Process | None = None
        self._log_begins = 0
        """Where in the log the running server begins."""
        file = folder / "convene.toml"
        models = "".join(UPSTREAM.format(name=name, url=upstream, most=OUTPUT_MAX, price=PRICE) for name in MODELS)
        file.write_text(CONFIG.format(port=self.port, workers=workers) + models)
        known = {name: value for name, value in os.environ.items() if not name.startswith("CONVENE_")}
        self._environ = known | {"CONVENE_CONFIG": str(file), "CONVENE_DATA_DIR": str(folder / "data")}
        self._folder = folder

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        with self._log.open("ab") as log:
            self._log_begins = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "convene", "serve"), stdout=log, stderr=log, env=self._environ, cwd=self._folder
            )
        async with asyncio.timeout(WAIT_S):
            while not await self._is_ready():
                assert self._process.returncode is None, self._log.read_text()[-4000:]
                await asyncio.sleep(LOOK_S)
        if not self.key:
            self.key = (
                self._log.read_text().partition("Authorization: Bearer ")[2].split("'")[0].split('"')[0].split()[0]
            )

    async def kill(self, chance: random.Random) -> None:
        """Kill -9: the server, or one of its workers, which its parent replaces (later each time: so all, at times)."""
        assert self._process is not None
        self.generation += 1
        self._kills += 1
        before = self._serving()
        if self._workers == 1 or self._kills % ALL_EVERY == 0:
            self._process.kill()
            await self._process.wait()
            await gone(*before.values())  # workers end a moment after the first process
            self.generation += 1
            await self.start()
            return
        victim = before[chance.randrange(self._workers)]
        os.kill(victim, signal.SIGKILL)
        await gone(victim)
        self.generation += 1
        async with asyncio.timeout(WAIT_S):
            while self._serving() == before:  # noqa: ASYNC110 -- another process's log
                await asyncio.sleep(LOOK_S)

    async def end(self) -> None:
        """Kill it for good."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def get(self, path: str) -> tuple[int, Any]:
        """Return status and JSON of an answer; raises OSError and EOFError if there is none."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self.head("GET", path) + b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            content = await reader.read()
            return int(head[9:12]), json.loads(content) if b"json" in head else content
        finally:
            writer.close()

    def head(self, method: str, path: str) -> bytes:
        """Return the beginning of a request."""
        key = f"authorization: Bearer {self.key}\r\n" if self.key else ""
        return f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{key}".encode()

    async def run(self, *words: str) -> tuple[int, str]:
        """Run a verb on the same configuration; return its exit code and what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "convene", *words),
            stdout=asyncio.subprocess.PIPE,
            env=self._environ,
            cwd=self._folder,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    def _serving(self) -> dict[int, int]:
        """Return the process of each worker that serves, the newest."""
        found = {}
        with self._log.open("rb") as log:
            log.seek(self._log_begins)
            text = log.read().decode(errors="replace")
        for line in text[: text.rfind("\n") + 1].splitlines():
            if '"event":"convene.workers"' in line and " serves (process " in line:
                words = json.loads(line)["message"].split()
                found[int(words[1])] = int(words[-1].rstrip(")"))
        return found

    async def _is_ready(self) -> bool:
        if self._workers > 1 and len(self._serving()) < self._workers:
            return False
        with contextlib.suppress(OSError, EOFError):
            return (await self.get("/readyz"))[0] == 200
        return False


async def gone(*pids: int) -> None:
    """Wait until none of these processes runs; what is left of one until its parent looks does not."""
    async with asyncio.timeout(WAIT_S):
        while any(map(runs, pids)):  # noqa: ASYNC110 -- other processes
            await asyncio.sleep(LOOK_S / 10)


def runs(pid: int) -> bool:
    """Whether there is such a process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return False


class Soak:
    """One run."""

    def __init__(self, server: Server, upstream: TruthUpstream, requests: int, kills: int, seed: int) -> None:
        self._server = server
        self._upstream = upstream
        self._requests = requests
        self._seed = seed
        self._chance = random.Random(seed)  # noqa: S311 -- repeatable
        self._kill_at = sorted(self._chance.randrange(requests // 20, requests * 3 // 4) for _ in range(kills))
        self._numbers = iter(range(requests))
        self._begun = 0
        self._lag_s = 0.0
        self._looks: set[asyncio.Task[None]] = set()
        self.facts: list[Fact] = []
        self.tally = Tally(requests=requests)

    async def run(self) -> Tally:
        """Let the clients loose, wait for what is left, and compare."""
        began = time.monotonic()
        ticking = asyncio.get_running_loop().create_task(self._tick())
        try:
            await asyncio.gather(self._kill_all(), *(self._client() for _ in range(CLIENTS)))
            if self._looks:
                await asyncio.wait(self._looks)
            await self._settle()
            await self._compare()
        finally:
            ticking.cancel()
        self.tally.seconds = round(time.monotonic() - began, 1)
        return self.tally

    async def _tick(self) -> None:
        """Learn how long this program itself is kept waiting."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_S)
            self._lag_s = max(self._lag_s, time.monotonic() - before - TICK_S)

    async def _kill_all(self) -> None:
        for count in self._kill_at:
            while self._begun < count:  # noqa: ASYNC110 -- a look now and then will do
                await asyncio.sleep(LOOK_S)
            await asyncio.sleep(self._chance.random() * 0.05)
            await self._server.kill(self._chance)
            self.tally.kills += 1

    async def _client(self) -> None:
        for number in self._numbers:
            self._begun += 1
            chance = random.Random(self._seed * 1_000_003 + number)  # noqa: S311 -- repeatable
            name = f"r{self._seed}x{number}"
            tokens, fault = chance.randrange(1, OUTPUT_MAX), chance.choice(FAULTS) if chance.random() < 0.1 else "none"
            prompt = prompt_of(name, tokens, chance.choice([0, 1, 5, 20]), fault, chance.randrange(tokens))
            prompt += " word" * chance.randrange(40)
            fact = Fact(id=name, model=chance.choice(MODELS), stream=chance.random() < 0.75, prompt=prompt)
            self.facts.append(fact)
            await self._ask(fact, chance)

    async def _ask(self, fact: Fact, chance: random.Random) -> None:
        """Ask once; leave at a random byte, or at a random moment, or not at all."""
        reader, writer = await self._connect()
        generation, lag_s = self._server.generation, self._lag_s
        bytes_most = chance.randrange(12_000) if chance.random() < 0.3 else 1 << 30
        patience_s = chance.random() * 0.6 if chance.random() < 0.3 else WAIT_S
        body = {"model": fact.model, "stream": fact.stream, "messages": [{"role": "user", "content": fact.prompt}]}
        content = json.dumps(body | {"max_tokens": OUTPUT_MAX}).encode()
        head = self._server.head("POST", "/v1/chat/completions")
        head += f"x-request-id: {fact.id}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}".encode()
        received = bytearray()
        try:
            writer.write(head + b"\r\n\r\n" + content)
            async with asyncio.timeout(patience_s):
                while len(received) < bytes_most and (part := await reader.read(min(4096, bytes_most - len(received)))):
                    received += part
            left = len(received) >= bytes_most
        except TimeoutError:
            left = True
        except OSError:
            left = False
        fact.left_at = time.time()
        if chance.random() < 0.5:
            writer.transport.abort()
        writer.close()
        if take_answer(fact, bytes(received)):
            return
        fact.outcome = "left" if left else "cut"
        fact.killed = self._server.generation != generation or generation % 2 == 1
        if left and not fact.killed:
            look = asyncio.get_running_loop().create_task(self._look(fact, generation, lag_s))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    return await asyncio.open_connection("127.0.0.1", self._server.port)
                except OSError:
                    await asyncio.sleep(LOOK_S)

    async def _look(self, fact: Fact, generation: int, lag_s: float) -> None:
        """Look until the entry of one who left is there, or its server is killed, or it never asked the upstream."""
        until, pause_s = time.monotonic() + WAIT_S, LOOK_S
        while time.monotonic() < until:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)
            found = await self._find(fact.id)
            if self._server.generation != generation:
                fact.killed = True
                return
            if found:
                fact.entered_at, fact.lag_s = time.time(), max(0.0, self._lag_s - lag_s)
                return
            tried = self._upstream.attempts.get(fact.id)
            if tried is None and time.time() > fact.left_at + 5:
                return
        self.tally.wrong.append(f"{fact.id} is not entered")

    async def _find(self, name: str) -> bool:
        with contextlib.suppress(OSError, EOFError):
            return (await self._server.get(f"/v1/usage/requests/{name}"))[0] == 200
        return False

    async def _settle(self) -> None:
        """Wait until the upstream is at rest and the requests of killed servers are entered."""
        until = time.monotonic() + WAIT_S
        missing = [fact.id for fact in self.facts if fact.outcome in {"cut", "left"}]
        while missing and time.monotonic() < until:
            missing = [name for name in missing if name in self._upstream.attempts and not await self._find(name)]
            await asyncio.sleep(10 * LOOK_S)
        while self._upstream.under_way and time.monotonic() < until:  # noqa: ASYNC110 -- the same
            await asyncio.sleep(LOOK_S)
        # Those that were killed before they had asked the upstream are known to the books alone.
        while await self._open_intents() and time.monotonic() < until:  # noqa: ASYNC110 -- the same
            await asyncio.sleep(10 * LOOK_S)

    async def _open_intents(self) -> int:
        _, output = await self._server.run("reconcile", "--json")
        count: int = json.loads(output)["open_intents"]
        return count

    async def _compare(self) -> None:
        tally, server = self.tally, self._server
        known = truths(self.facts, self._upstream.attempts)
        server.truth.write_text("".join(json.dumps(one) + "\n" for one in known))
        code, output = await server.run("reconcile", "--json", "--upstream-truth", str(server.truth))
        report = json.loads(output)
        if code or report["open_intents"] or report["upstream"] != len(known):
            tally.wrong.append(f"reconcile: {output}")
        tally.reconciled = report["upstream"]
        _, lines = await server.run("export", "--format", "jsonl")
        compare(self.facts, self._upstream.attempts, entries_of(lines), tally)
        tally.counter_micros = await self._counter()
        total = (await server.get("/v1/usage"))[1]["cost"]["micros"]
        await server.end()
        await server.start()
        tally.counter_after_restart = await self._counter()
        said = {
            "the entries": tally.cost_micros,
            "the counter": tally.counter_micros,
            "the ledger's total": total,
            "the counter after a restart": tally.counter_after_restart,
        }
        if len(set(said.values())) > 1:
            tally.wrong.append(f"money differs: {said}")

    async def _counter(self) -> int:
        """Return what the counters say was spent; none may be under way."""
        levels = {level["name"]: level for level in (await self._server.get("/v1/limits"))[1]["data"]}
        [slots] = [level for level in levels.values() if level["kind"] == "slots"]
        if slots["used"]:
            self.tally.wrong.append(f"{slots['used']} requests are said to be under way")
        [budget] = [level for level in levels.values() if level["kind"] == "budget"]
        used: int = budget["used"]
        return used


async def soak(folder: Path, requests: int, kills: int, seed: int, workers: int = 1) -> Tally:
    """Run one soak in a folder of its own."""
    async with TruthUpstream() as upstream:
        server = Server(folder, upstream.base_url, workers)
        await server.start()
        try:
            return await Soak(server, upstream, requests, kills, seed).run()
        finally:
            await server.end()


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where server and data live; kept. Default: a temporary one")
    wanted = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = wanted.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        tally = asyncio.run(soak(folder, wanted.requests, wanted.kills, wanted.seed, wanted.workers))
    report: Mapping[str, object] = asdict(tally)
    sys.stdout.write(json.dumps(report) + "\n")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

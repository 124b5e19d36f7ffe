"""`make demo`: Convene and three agents on this machine, and one question that takes two of them.

    start Convene ─► start the agents ─► wait until they have joined ─► list them ─► ask, streamed ─► stop everything

Everything that is printed about agents and answers comes from the server's stream; nothing is prepared. With
`--upstream` another model answers than the embedded one. The exit code is 0 if two agents had a part in the answer.
"""

import argparse
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
AGENTS = ("units", "ferries", "recipes")
QUESTION = (
    "When does the next ferry leave Vellmar for Ostrand after 14:00? And how many kilometres are 12 nautical miles?"
)
WANTED = 2
"""Agents that the question takes."""
MODEL_S = 600.0
"""The weights of the embedded models are fetched at the first start, over whatever line there is."""
JOIN_S = 90.0
ANSWER_S = 300.0
STOP_S = 20.0
TOKENS_MAX = 200
"""Of the model's answer: the tiny one can go on without end."""
KEY_VARIABLE = "UPSTREAM_KEY"


class Trouble(Exception):
    """The demo cannot go on; the text says why and what to do."""


class Programs:
    """The programs that were started; each writes into a log of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], settings: dict[str, str]) -> None:
        """Start one, away from this terminal's ctrl-C: it is stopped by `stop`."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("CONVENE_", "PYTHON", "VIRTUAL_ENV"))
        }
        kept |= {key: value for key, value in os.environ.items() if key == "CONVENE_CACHE_DIR"}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=kept | settings, start_new_session=True
            )

    def log(self, name: str) -> str:
        """Return what one has written."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def check(self) -> None:
        """Raise `Trouble` if one has ended."""
        for name, program in self.running.items():
            if program.poll() is not None:
                tail = "\n".join(self.log(name).splitlines()[-15:])
                raise Trouble(f"{name} ended with code {program.returncode}. Its last words:\n{tail}")

    def stop(self) -> None:
        """Stop all, the server last, so that agents can say goodbye to it; whatever stays is killed."""
        for name in reversed(self.running):
            program = self.running[name]
            with contextlib.suppress(ProcessLookupError):
                program.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)  # with whatever it had started itself
            program.wait()


def say(text: str = "") -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(url: str, body: object = None, key: str = "") -> tuple[int, Any]:
    """Return the status and the JSON of an answer; 0 where nobody answers."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as fault:
        status, text = fault.code, fault.read()
    except OSError:
        return 0, None
    with contextlib.suppress(ValueError):
        return status, json.loads(text)
    return status, None


def wait(programs: Programs, what: str, look: Callable[[], str], longest_s: float) -> None:
    """Wait until `look` returns nothing; what it returns is shown when it changes. Raises `Trouble`."""
    until, shown = time.monotonic() + longest_s, ""
    while missing := look():
        programs.check()
        if missing != shown:
            say(f"  {missing}")
            shown = missing
        if time.monotonic() > until:
            raise Trouble(f"{what} took more than {longest_s:g} s: {missing}")
        time.sleep(0.1)


def look_for_uagents(python: str) -> None:
    """Raise `Trouble` if the agents could not run."""
    try:
        subprocess.run([python, "-c", "import uagents"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as fault:
        raise Trouble(f"{python} has no uagents; `make .venv-demo/.ready` sets one up that has.") from fault


def start_server(programs: Programs, options: argparse.Namespace) -> tuple[str, str]:
    """Start Convene and wait until its models can serve; return its address and a key."""
    port = free_port()
    config = f'host = "127.0.0.1"\nport = {port}\naccess_log = false\n[search]\nenabled = false\n'
    if options.upstream:
        key = f'api_key = "env:{KEY_VARIABLE}"\n' if os.environ.get(KEY_VARIABLE) else ""
        config += f'[upstreams.demo]\nbase_url = "{options.upstream}"\n{key}'
        config += f'[models.asi1]\nupstream = "demo"\nmodel = "{options.upstream_model}"\n'
    file = programs.folder / "convene.toml"
    file.write_text(config, "utf-8")
    settings = {"CONVENE_CONFIG": str(file), "CONVENE_DATA_DIR": str(programs.folder / "data")}
    programs.start("convene", [sys.executable, "-m", "convene", "serve"], settings)
    base = f"http://127.0.0.1:{port}"

    def look() -> str:
        _, answer = fetch(f"{base}/readyz?verbose")
        models = (answer or {}).get("models", {})
        missing = sorted({reason for reason in models.values() if reason != "ready"})
        return "; ".join(missing) if models else "starting"

    wait(programs, "the start of Convene", look, MODEL_S)
    key = programs.log("convene").partition("Authorization: Bearer ")[2].split("'")[0].split('"')[0].strip()
    if not key:
        raise Trouble("Convene printed no key.")
    return base, key


def start_agents(programs: Programs, python: str, base: str) -> dict[str, str]:
    """Start the agents and wait until the server knows them; return where each is."""
    ports = {name: free_port() for name in AGENTS}
    for name, port in ports.items():
        seed = secrets.token_hex(16)
        command = [python, str(HERE / f"{name}.py"), "--agentverse", base, "--port", str(port), "--seed", seed]
        programs.start(name, command, {})

    def missing() -> str:
        waiting = []
        for name, port in ports.items():
            _, about = fetch(f"http://127.0.0.1:{port}/agent_info")
            address = (about or {}).get("address", "")
            if not address or fetch(f"{base}/v1/almanac/agents/{address}")[0] != http.client.OK:
                waiting.append(name)
        return f"waiting for {', '.join(waiting)}" if waiting else ""

    wait(programs, "the start of the agents", missing, JOIN_S)
    return {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}


def list_agents(programs: Programs, agents: dict[str, str], base: str, key: str) -> None:
    """Have each agent tell the server its name, handle and README, then wait until searches find it."""
    for name, url in agents.items():
        asked = {"user_token": key, "agent_type": "custom", "endpoint": f"{url}/submit"}
        _, answer = fetch(f"{url}/connect", asked)
        if not (answer or {}).get("success"):
            raise Trouble(f"{name} could not be listed: {json.dumps(answer)}")

    def missing() -> str:
        unfound = []
        for name in agents:
            _, answer = fetch(f"{base}/v1/search/agents", {"search_text": name})
            if not any(hit.get("handle") == name for hit in (answer or {}).get("agents", ())):
                unfound.append(name)
        return f"not found yet: {', '.join(unfound)}" if unfound else ""

    wait(programs, "listing the agents", missing, JOIN_S)


def frames(base: str, key: str, question: str) -> Iterator[dict[str, Any]]:
    """Ask the question and yield the chunks of the answer as they come. Raises `Trouble`."""
    parts = urlsplit(base)
    messages = [{"role": "user", "content": question}]
    body = {"model": "asi1", "stream": True, "max_tokens": TOKENS_MAX, "messages": messages}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_S)
    with contextlib.closing(connection):
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise Trouble(
                    f"the server refused with {answer.status}: {answer.read(4000).decode('utf-8', 'replace')}"
                )
            for line in answer:
                data = line.strip().removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or data == b"[DONE]":
                    continue
                frame = json.loads(data)
                if frame.get("error"):
                    raise Trouble(f"the answer broke off: {frame['error'].get('message')}")
                yield frame
        except (OSError, http.client.HTTPException) as fault:
            raise Trouble(f"the connection to the server failed: {fault}") from fault


class Report:
    """What the stream has told, printed as it comes."""

    def __init__(self) -> None:
        self.text = ""
        self.steps: dict[str, dict[str, Any]] = {}
        self.executed: list[dict[str, Any]] = []
        self._line_open = False

    def take(self, frame: dict[str, Any]) -> None:
        """Take in one chunk."""
        for step in frame.get("intermediate_steps") or ():
            self._step(step)
        for choice in frame.get("choices") or ():
            piece = choice.get("delta", {}).get("content") or ""
            if piece:
                if not self.text:
                    say("\nThe model's answer:")
                sys.stdout.write(piece)
                sys.stdout.flush()
                self.text += piece
        self.executed = frame.get("executable_data") or self.executed

    def _step(self, step: dict[str, Any]) -> None:
        before = self.steps.get(step["id"], {})
        self.steps[step["id"]] = step
        if (before.get("status"), before.get("summary")) != (step.get("status"), step.get("summary")):
            told = step.get("summary") or ""
            say(f"  {step['id']:<4} {step['kind']:<6} {step['name']:<14} {step['status']:<8} {told}".rstrip())

    def answers(self) -> dict[str, str]:
        """Return what each agent has answered, by its handle."""
        return {
            item["agent"].get("handle") or item["agent"]["name"]: item["result"].get("answer", "")
            for item in self.executed
            if item["type"] == "agent_manifest" and item["status"] == "done"
        }

    def conclude(self, *, embedded: bool) -> bool:
        """Print what was found out by whom; return whether enough agents had a part in it."""
        say("\n\nWhat was done (executable_data of the answer):")
        for item in self.executed:
            told = json.dumps(item["args"], ensure_ascii=False)
            if item["type"] == "agent_manifest":
                say(f"  {item['tool_name']} {told}")
                say(f"    {item['agent']['name']} answered: {item['result'].get('answer')}")
            else:
                found = [agent["name"] for agent in (item["result"] or {}).get("agents", ())]
                say(f"  {item['tool_name']} {told}\n    found: {', '.join(found) or json.dumps(item['result'])}")
        answers = self.answers()
        if embedded:
            say("\nThe embedded model is tiny: its prose is often wrong. The agents' words above are theirs.")
        if len(answers) < WANTED:
            say(f"\nOnly {len(answers)} of {WANTED} agents answered: {', '.join(answers) or 'nobody'}.")
        return len(answers) >= WANTED


def demonstrate(options: argparse.Namespace, programs: Programs) -> bool:
    """Do it all; return whether it worked. Raises `Trouble`."""
    look_for_uagents(options.agents_python)
    say("Starting Convene (the first start fetches the embedded models, 180 MB) ...")
    base, key = start_server(programs, options)
    say(f"  {base} answers with {options.upstream_model or 'the embedded model'}")
    say(f"Starting the agents {', '.join(AGENTS)} ...")
    agents = start_agents(programs, options.agents_python, base)
    list_agents(programs, agents, base, key)
    say("  all have joined, and searches find them")
    report = Report()
    say(f"\nAsking: {options.question}")
    for frame in frames(base, key, options.question):
        report.take(frame)
    worked = report.conclude(embedded=not options.upstream)
    if options.report:
        told = {"text": report.text, "steps": list(report.steps.values()), "executable_data": report.executed}
        Path(options.report).write_text(json.dumps(told, indent=1), "utf-8")
    return worked


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Stop as ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="Convene and three agents, and one question that takes two of them.")
    parser.add_argument("--agents-python", default=sys.executable, help="a Python that has uagents")
    parser.add_argument(
        "--upstream", default="", help=f"base URL of a better model, with /v1; its key in {KEY_VARIABLE}"
    )
    parser.add_argument("--upstream-model", default="", help="what the upstream calls it")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--report", default="", help="file for what the answer's stream has told, as JSON")
    options = parser.parse_args()
    if bool(options.upstream) != bool(options.upstream_model):
        parser.error("--upstream and --upstream-model go together (make demo UPSTREAM=... UPSTREAM_MODEL=...)")
    options.agents_python = str(Path.cwd() / options.agents_python)  # they run in another folder
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)  # also where whoever started this lets it be ignored
    with tempfile.TemporaryDirectory(prefix="convene-demo-") as folder:
        programs = Programs(Path(folder))
        try:
            return 0 if demonstrate(options, programs) else 1
        except Trouble as trouble:
            say(f"\nThe demo cannot go on: {trouble}")
            return 1
        except KeyboardInterrupt:
            say("\nStopped.")
            return 130
        finally:
            programs.stop()


if __name__ == "__main__":
    sys.exit(main())

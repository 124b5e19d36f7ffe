"""What the benchmarks stand on: pinned processes, the yardstick (nginx), the canned upstream, a gateway, and wrk.

The gateway (or nginx) has core 0 for itself; load and upstream share core 1. Everything listens on loopback.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GATEWAY_CORE, LOAD_CORE = 0, 1
ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":'
    '{"role":"assistant","content":"Hello! I am a canned answer, always the same and about as long as a short reply '
    'of a real model would be."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":9,'
    '"completion_tokens":12,"total_tokens":21},"system_fingerprint":"fp_44709d6fcb"}'
)
BODY = (
    '{"model":"bench","messages":[{"role":"system","content":"You are a helpful assistant."},'
    '{"role":"user","content":"Hello, who are you and what can you do for me?"}],"temperature":0.7}'
)
HERE = Path(__file__).parent


def say(text: str) -> None:
    """Print at once, so that long work shows where it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def missing(tools: Sequence[str]) -> list[str]:
    """Return the tools that are not on PATH."""
    return [tool for tool in tools if shutil.which(tool, path=_path()) is None]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def pinned(
    command: Sequence[str], core: int, env: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command on one core; ended at the end."""
    output = log.open("wb") if log is not None else subprocess.DEVNULL
    process = subprocess.Popen(
        list(command),
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(os.environ) | {"PATH": _path()} | dict(env or {}),
        preexec_fn=lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)}),  # noqa: PLW1509 - no threads here
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_http(url: str, process: subprocess.Popen[bytes], timeout_s: float = 120.0) -> float:
    """Return the seconds until `url` answers 200. Raises `RuntimeError` if the process ends or time runs out."""
    began = time.perf_counter()
    while time.perf_counter() - began < timeout_s:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback
                if answer.status == 200:
                    return time.perf_counter() - began
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.01)
    raise RuntimeError(f"{url} did not answer within {timeout_s} s")


@contextlib.contextmanager
def nginx(config: str, core: int, port: int) -> Iterator[None]:
    """Run nginx with one worker on one core."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(
            f"worker_processes 1; daemon off; error_log {folder}/error.log; pid {folder}/pid;\n"
            "events { worker_connections 8192; }\n"
            f"http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};\n"
            f"fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n"
            f"keepalive_requests 1000000;\n{config}\n}}\n"
        )
        with pinned(["nginx", "-c", str(file), "-p", folder], core) as process:
            wait_http(f"http://127.0.0.1:{port}/health", process, 10)
            yield


def canned_config(port: int) -> str:
    """Return an nginx server that answers every chat with the same body."""
    return (
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location /health {{ return 200 ok; }}\n"
        f"location / {{ default_type application/json; return 200 '{ANSWER}'; }} }}"
    )


def proxy_config(port: int, upstream: int) -> str:
    """Return the yardstick: a plain proxy_pass with kept connections."""
    return (
        f"upstream canned {{ server 127.0.0.1:{upstream}; keepalive 256; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location /health {{ return 200 ok; }}\n"
        "location / { proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off;\n"
        "proxy_pass http://canned; } }"
    )


class Gateway:
    """A running Convene: its base URL, key and process."""

    def __init__(self, base: str, key: str, process: subprocess.Popen[bytes], ready_s: float) -> None:
        self.base = base
        self.key = key
        self.process = process
        self.ready_s = ready_s

    def cpu_s(self) -> float:
        """Return the processor seconds used so far, all threads, in user and kernel."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Return the resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


@contextlib.contextmanager
def gateway(
    config: str, core: int = GATEWAY_CORE, env: Mapping[str, str] | None = None, *, books: bool = True
) -> Iterator[Gateway]:
    """Run `convene serve` with this `convene.toml`; ready when `/readyz` is. Without `books`: no limits, no ledger."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "convene.toml", Path(folder) / "log"
        file.write_text(config)
        settings = {"CONVENE_CONFIG": str(file), "CONVENE_DATA_DIR": folder, "PORT": str(port)} | dict(env or {})
        command = [sys.executable, *(["-m", "convene", "serve"] if books else [str(HERE / "bare.py")])]
        with pinned(command, core, settings, log) as process:
            ready_s = wait_http(f"http://127.0.0.1:{port}/readyz", process)
            found = re.search(r"Bearer ([A-Za-z0-9_.-]{16,})", log.read_text())
            yield Gateway(f"http://127.0.0.1:{port}", found[1] if found else "", process, ready_s)


def upstream_config(port: int) -> str:
    """Return a configuration that serves one model from a local upstream, without engine and access log."""
    return (
        "access_log = false\n[engine]\nenabled = false\n"
        f'[upstreams.canned]\nbase_url = "http://127.0.0.1:{port}/v1"\n[models.bench]\nupstream = "canned"\n'
    )


def wrk(base: str, key: str, seconds: int, connections: int = 32) -> dict[str, float]:
    """Load an endpoint with wrk and return req_s, p50_ms, p99_ms and errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            "wrk.method='POST'\nwrk.headers['Content-Type']='application/json'\n"
            f"wrk.headers['Authorization']='Bearer {key}'\nwrk.body=[[{BODY}]]\n"
            "done=function(s,l,r)\nio.write(string.format('RESULT %f %f %f %d\\n', s.requests/(s.duration/1e6),"
            "l:percentile(50)/1000, l:percentile(99)/1000,"
            "s.errors.connect+s.errors.read+s.errors.write+s.errors.status+s.errors.timeout))\nend\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name]
        output = subprocess.run(
            ["taskset", "-c", str(LOAD_CORE % (os.cpu_count() or 1)), *command, f"{base}/v1/chat/completions"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    values = [float(value) for value in re.findall(r"RESULT (\S+) (\S+) (\S+) (\S+)", output)[0]]
    return dict(zip(("req_s", "p50_ms", "p99_ms", "errors"), values, strict=True))


def result(name: str, value: float, bar: float, *, unit: str, most: bool = False, **details: Any) -> bool:  # noqa: ANN401
    """Print one figure beside its bar; return whether it holds."""
    holds = value <= bar if most else value >= bar
    extra = "  ".join(f"{key}={text}" for key, text in details.items())
    sign = "<=" if most else ">="
    say(f"{'ok  ' if holds else 'MISS'} {name:<44} {value:>10.3f} {unit:<10} (bar {sign} {bar:g})  {extra}")
    return holds

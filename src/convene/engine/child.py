"""The child process: one model behind llama.cpp's own HTTP server on loopback. Run by path, never imported by Convene.

Its contract with `process.Engine`:

    stdin, first line   one JSON object, the order (see `process.build_order`), the API key in it: never argv
    stdout              one JSON line {"port", "pid", "import_s", "load_s"} once it serves
    stderr              llama.cpp's log; the reason of a failed start is only there
    stdin, end          the end: also when the parent was killed
    exit code           0 after the end of stdin, 1 if the server could not start, 3 if there is no engine to import

A process and not a thread, because a failed assertion inside the engine, a CPU without AVX2 and a stuck prompt all take
their process along. The import is light on purpose: a restart takes less than half a second.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAT_BATCH = 64
"""A cancelled prompt frees its slot after the batch under way, and the other slots get their turn then.

Measured with one thread on a busy machine: free after 0.3-0.9 s with 64, 1.2-2.0 s with 128, 1.8-3.6 s with 256 and, on
a quiet one, 17 s with the default 2048; prompts are read at 127, 146 and 141 tokens/s with 64, 128 and 256.
"""

EMBEDDING_BATCH, EMBEDDING_MICRO_BATCH = 2048, 512
"""An input must fit one micro-batch, or the server answers 500; the model's own limit is 512 tokens."""


EXIT_NO_ENGINE = 3


def main() -> int:
    """Serve what the order on stdin says until stdin ends."""
    # Ctrl-C reaches the whole terminal group, and systemd's SIGTERM the whole service; the parent, which lets its
    # streams finish, decides when its child may go.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    reply = _keep_stdout()
    order = json.loads(sys.stdin.buffer.readline())
    ended = threading.Event()
    settled = threading.Event()
    threading.Thread(target=_watch_stdin, args=(ended, settled), daemon=True).start()

    began = time.monotonic()
    try:
        import xllamacpp  # type: ignore[import-untyped]  # noqa: PLC0415 - after the watch on stdin: loading takes long
    except ImportError as error:
        settled.set()
        sys.stderr.write(f"no engine: {error}\n")
        return EXIT_NO_ENGINE

    imported = time.monotonic()
    try:
        server = xllamacpp.Server(build_params(xllamacpp.CommonParams(), order))
    except RuntimeError as error:
        settled.set()
        sys.stderr.write(f"start failed: {error}\n")
        return 1
    settled.set()
    loaded = time.monotonic()
    port = int(server.listening_address.rsplit(":", 1)[1])
    ready = {"port": port, "pid": os.getpid(), "import_s": imported - began, "load_s": loaded - imported}
    reply.write(json.dumps(ready) + "\n")
    reply.flush()
    ended.wait()
    # Not by letting go of the server: its destructor waits for its threads, and once, on a busy machine, one of them
    # went on accepting, so that the child outlived its parent for good. Streams are cut either way.
    os._exit(0)


def build_params(params: Any, order: Mapping[str, Any]) -> Any:  # noqa: ANN401 - xllamacpp ships no types
    """Fill llama.cpp's parameters; every line below differs from its default for a measured reason."""
    params.model.path = order["model"]
    params.model_alias = {order["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # Its defaults are no key and any origin: every web page the user visits could use the model.
    params.api_keys = [order["api_key"]]
    params.ui = False
    params.endpoint_slots = order["expose_slots"]
    params.cache_ram_mib = 0  # 8 GiB by default
    params.fit_params = False  # take these numbers as given
    params.kv_unified = False
    params.sse_ping_interval = 30
    params.verbosity = 1
    params.n_parallel = order["slots"]
    params.n_ctx = order["slots"] * order["context_per_slot"]
    params.cpuparams.n_threads = order["threads"]
    params.cpuparams_batch.n_threads = order["threads"]
    if order["mode"] == "embedding":
        params.embedding = True
        params.n_batch, params.n_ubatch = EMBEDDING_BATCH, EMBEDDING_MICRO_BATCH
    else:
        params.n_batch, params.n_ubatch = CHAT_BATCH, CHAT_BATCH
    if order["chat_template"]:
        params.chat_template = order["chat_template"]
    return params


def _keep_stdout() -> TextIO:
    """Take stdout for the one line of the contract; whatever else prints goes to the log."""
    kept = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return kept


def _watch_stdin(ended: threading.Event, settled: threading.Event) -> None:
    # Not sys.stdin: a thread inside its buffer at the end of a failed start would be a fatal error.
    while os.read(0, 4096):
        pass
    ended.set()
    if not settled.is_set():
        # Loading cannot be interrupted, and nobody is left to use what it loads. After a failure it is settled too:
        # the parent closes stdin when it sees the end of stdout, and the exit code must still be that of the failure.
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

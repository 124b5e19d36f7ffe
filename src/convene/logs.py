"""The log: JSON lines on standard error, with secrets taken out by shape and by value (OPS-17, reliability 6.4).

Modules log through `logging`; `app.py` installs this once in a real process. The access log has its own writer
(`api/access.py`) and passes nothing that could hold a secret. Prompts and answers are never logged.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHAPES = re.compile(
    r"convene_(?:[0-9A-Za-z]{8,}|link|session)_[0-9A-Za-z]+"
    r"|\$argon2id\$[^\s'\",]+"
    r"|(?i:bearer)\s+[^\s'\",]+"
    r"|\bsk[-_][0-9A-Za-z_-]{8,}"
    r"|\bhf_[0-9A-Za-z]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
STARS = "***"
SECRET_LENGTH_MIN = 6
"""Shorter configured values are not searched for: they would star ordinary words."""
STDERR: Final = 2
TALKATIVE: Final = ("ddgs", "primp")
"""Packages whose warnings may have in them what callers asked."""
_encode = msgspec.json.Encoder().encode


class JsonLines(logging.Formatter):
    """One JSON object a record: ts (Unix seconds), level, event (the logger), message, exception."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets`: every loaded secret value; wherever one appears, stars do instead."""
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if len(secret) >= SECRET_LENGTH_MIN)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.name,
            "message": self.redact(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self.redact(self.formatException(record.exc_info))
        return _encode(line).decode()

    def redact(self, text: str) -> str:
        """Return `text` with every secret starred, and what UTF-8 cannot write (a stray surrogate) as `?`."""
        text = text.encode("utf-8", "replace").decode()
        for secret in self._secrets:
            text = text.replace(secret, STARS)
        return _SHAPES.sub(STARS, text)


class Output(logging.Handler):
    """Standard error, shared with other processes: lines of one never begin inside a line of another.

    A write of more than a pipe takes at once (4,096 bytes on Linux) may be cut, so each is done under a lock that all
    these processes hold open. The kernel lets go of it when its holder dies.
    """

    def __init__(self, lock: int, target: int = STDERR) -> None:
        """`lock`: a descriptor of one file, the same in all of the processes. `target`: where lines go."""
        super().__init__()
        self._lock_file: Final = lock
        self._target: Final = target
        self._threads: Final = threading.Lock()

    def write(self, lines: bytes) -> None:
        """Write whole lines."""
        with self._threads:  # the file's lock belongs to the process, so it does not part threads
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
            try:
                rest = memoryview(lines)
                while rest:
                    rest = rest[os.write(self._target, rest) :]
            finally:
                fcntl.lockf(self._lock_file, fcntl.LOCK_UN)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of the log."""
        try:
            self.write(self.format(record).encode() + b"\n")
        except Exception:  # noqa: BLE001 - logging's own rule: what cannot be logged must not stop who logs
            self.handleError(record)


def may_be_written(record: logging.LogRecord) -> bool:
    """Whether a record may be written: ours, and what other packages warn of.

    The library that searches (0019) tells each address it asks, with the words that were searched for, at level info.
    """
    if record.name.partition(".")[0] == "convene":
        return True
    return record.levelno >= (logging.ERROR if record.name.startswith(TALKATIVE) else logging.WARNING)


def install(level: str, secrets: Iterable[str], output: Output | None = None) -> None:
    """Send everything at or above `level` to standard error as JSON lines; replaces what was installed before."""
    handler = output if output is not None else logging.StreamHandler()
    handler.setFormatter(JsonLines(secrets))
    handler.addFilter(may_be_written)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

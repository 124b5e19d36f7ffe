"""The log: JSON lines on standard error, with secrets taken out by shape and by value (OPS-17, reliability 6.4).

Modules log through `logging`; `app.py` installs this once in a real process. The access log has its own writer
(`api/access.py`) and passes nothing that could hold a secret. Prompts and answers are never logged.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

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


def install(level: str, secrets: Iterable[str]) -> None:
    """Send everything at or above `level` to standard error as JSON lines; replaces what was installed before."""
    output = logging.StreamHandler()
    output.setFormatter(JsonLines(secrets))
    logging.basicConfig(level=level.upper(), handlers=[output], force=True)

"""The settings on their way from a supervisor to its workers: all of them, secrets included, over a pipe.

A worker does not read the sources again: a file that has changed since would give it other settings than its brothers
have. Nothing else may encode a `Secret`, which refuses it by itself (OPS-23).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from convene.config import Config
from convene.config_values import Secret


def seal(config: Config) -> bytes:
    """Return the settings as JSON. The secrets are in it: write it to a worker's pipe and nowhere else."""
    return msgspec.json.encode(config, enc_hook=_reveal)


def unseal(sealed: bytes) -> Config:
    """Return the settings that were sealed."""
    return msgspec.json.decode(sealed, type=Config, dec_hook=_restore)


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a setting of type {type(value).__name__}")


def _restore(wanted: type, value: object) -> object:
    if wanted is Secret:
        return Secret(str(value))
    if wanted is Path:
        return Path(str(value))
    raise NotImplementedError(f"a setting of type {wanted.__name__}")

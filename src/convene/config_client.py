"""Which server `convene chat` and its kin ask, and with which key, by the names that users have (OPS-24). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.config_sources import read_dotenv
from convene.config_values import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_OURS: Final = "CONVENE_API_KEY"
_KEY_NAMES: Final = (_OURS, "ASI1_API_KEY", "ASI_ONE_API_KEY", "ASI_API_KEY", "ASIONE_API_KEY", "ASI_LLM_KEY")
_URL_NAMES: Final = ("CONVENE_BASE_URL", "ASI1_BASE_URL", "ASI_ONE_BASE_URL", "ASI_BASE_URL")


class ClientSettings(msgspec.Struct, frozen=True):
    """Where clients go."""

    url: str
    """Empty: nothing was said."""
    key: Secret
    model: str
    """Empty: nothing was said."""
    no_color: bool
    """NO_COLOR is set, to whatever (OPS-26)."""


def client_settings(environ: Mapping[str, str], cwd: Path) -> ClientSettings:
    """Return the server and key that the environment or `.env` name for clients.

    The OpenAI names come last. A key under a foreign name is taken only if a base URL is named too, or if it is one
    of ours by its prefix: else a key meant for another host would be sent to whatever listens on this machine.
    """
    env = read_dotenv(cwd / ".env") | dict(environ)
    url = next((env[name] for name in (*_URL_NAMES, "OPENAI_BASE_URL") if env.get(name)), "")
    key = ""
    for name in (*_KEY_NAMES, "OPENAI_API_KEY"):
        text = env.get(name, "")
        if not key and (url or name == _OURS or text.startswith("convene_")):
            key = text
    return ClientSettings(url, Secret(key), env.get("CONVENE_MODEL", ""), bool(env.get("NO_COLOR")))

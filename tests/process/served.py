"""A real server with a scripted model, for tests that talk to it from outside: started, killed -9, started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, Self

import httpx2

from servers import free_port

if TYPE_CHECKING:
    from pathlib import Path

WAIT_S: Final = 60.0
"""No test takes it; it turns one that hangs into one that fails."""
LOOK_S: Final = 0.05
CONFIG: Final = """
port = {port}
workers = {workers}
[engine]
enabled = false
[scripted]
enabled = true
file = "{script}"
[search]
enabled = false
"""


class ScriptedServer:
    """`convene serve` on a port and a folder of its own. All its starts write one log."""

    def __init__(self, folder: Path, script: dict[str, Any], settings: str = "", workers: int = 1) -> None:
        """`script` is what its models say, `settings` further tables of its configuration."""
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = ""
        """The one that it prints at its first start."""
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        file, config = folder / "script.json", folder / "convene.toml"
        file.write_text(json.dumps(script))
        config.write_text(CONFIG.format(port=self.port, workers=workers, script=file) + settings)
        known = {name: value for name, value in os.environ.items() if not name.startswith("CONVENE_")}
        self.environ = known | {"CONVENE_CONFIG": str(config), "CONVENE_DATA_DIR": str(folder / "data")}

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "convene", "serve"), stdout=log, stderr=log, env=self.environ, cwd=self._folder
            )
        async with asyncio.timeout(WAIT_S):
            while not self.is_ready():
                assert self._process.returncode is None, self.log
                await asyncio.sleep(LOOK_S)
        self.key = self.key or self.log.partition("Authorization: Bearer ")[2].split("'")[0]

    def is_ready(self) -> bool:
        """Whether it can be used; a test may wait for more than this."""
        return self.answers("/livez")

    def answers(self, path: str) -> bool:
        """Whether it says 200 there."""
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(self.url + path).status_code == 200
        return False

    async def kill(self) -> None:
        """Kill -9; nothing if it was never started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self._folder / "log").read_text()

    @property
    def auth(self) -> dict[str, str]:
        """The header that proves who asks."""
        return {"Authorization": f"Bearer {self.key}"}

    async def post(self, body: dict[str, Any], session: str = "") -> Any:  # noqa: ANN401 -- a reply as JSON
        """Return the answer to a chat."""
        headers = self.auth | ({"x-session-id": session} if session else {})
        async with httpx2.AsyncClient(timeout=90) as client:
            answer = await client.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


def words(reply: Any) -> str:  # noqa: ANN401 -- a reply as JSON
    """Return the text of an answer."""
    return str(reply["choices"][0]["message"]["content"])

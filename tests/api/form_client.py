"""A browser as far as the form needs one: one cookie, the token of the last page, what a browser says of itself."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    import httpx2

    from api.conftest import Served

PASSWORD: Final = "correct horse battery"
TYPE: Final = "application/x-www-form-urlencoded"


class Browser:
    """One browser with its cookie."""

    def __init__(self, served: Served, host: str = "convene.test") -> None:
        self.served = served
        self.host = host
        self.cookie = ""
        self.page = ""
        self.headers: dict[str, str] = {"sec-fetch-site": "same-origin"}

    @property
    def token(self) -> str:
        """The token in the last page."""
        found = re.search(r'name="token" value="([0-9a-f]{64})"', self.page)
        return found[1] if found else ""

    @property
    def said(self) -> str:
        """What the last page tells."""
        found = re.search(r'role="status">(.*?)</p>', self.page)
        return html.unescape(found[1]) if found else ""

    async def get(self, path: str) -> httpx2.Response:
        """Open a page."""
        return self._read(await self.served.http.get(path, headers=self._headers()))

    async def post(self, path: str, *, token: str | None = None, **fields: str) -> httpx2.Response:
        """Send a form with the token of the last page, and follow where it leads."""
        body = urlencode({"token": self.token if token is None else token} | fields)
        answer = await self.served.http.post(
            path, content=body, headers=self._headers() | self.headers | {"content-type": TYPE}
        )
        self._read(answer)
        if answer.status_code == 303:
            await self.get(answer.headers["location"])
        return answer

    def _headers(self) -> dict[str, str]:
        return {"host": self.host} | ({"cookie": self.cookie} if self.cookie else {})

    def _read(self, answer: httpx2.Response) -> httpx2.Response:
        for value in answer.headers.get_list("set-cookie"):
            self.cookie = "" if "Max-Age=0" in value else value.partition(";")[0]
        self.page = answer.text
        return answer


async def signed_up(served: Served, link: str, name: str = "Ada", host: str = "convene.test") -> Browser:
    """Return a browser that has signed up by a link and logged in."""
    browser = Browser(served, host)
    await browser.get("/signup?link=" + link.rpartition("=")[2])
    email = f"{name.lower()}@x.org"
    await browser.post("/signup", link=link.rpartition("=")[2], name=name, email=email, password=PASSWORD)
    calm(served)
    await browser.post("/account/login", email=email, password=PASSWORD)
    calm(served)
    return browser


def calm(served: Served) -> None:
    """Let the throttle forget: tests do not wait for it."""
    served.app.accounts.doors._addresses._due.clear()
    served.app.accounts.doors._emails._due.clear()

"""One request to an upstream: sent to one of its hosts, and again where that is safe. The I/O under each dialect class.

Sent again only before the first event of the answer, at most `retries` times, within the upstream's retry budget, and
only where nothing can have been generated for us: no connection, 502, 503, 504, a close without a byte, an answer
without content; after 429 only at another host (reliability 4, D1). Not here: what is sent and what it means.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import msgspec

import convene
from convene.errors import Unavailable
from convene.http import base as http
from convene.providers.openai_codec import PLAIN, Dialect
from convene.providers.openai_faults import Blamed, Verdict, judge_status, judge_transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.clock import Clock
    from convene.providers.hosts import Hosts, Pick

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

BACK_OFF_S = 0.05
BACK_OFF_MAX_S = 1.0
ERROR_BYTES_MAX = 64 * 1024


class OpenAISettings(msgspec.Struct, frozen=True, kw_only=True):
    """One model at one OpenAI-compatible upstream. Neither its key nor its headers show in its `repr`.

    `model` is the name there; `headers` go along with every request; `retries` counts further tries after the first;
    `body_bytes_max` caps a whole reply; `fresh` asks for a new connection each time.
    """

    upstream: str
    model: str
    api_key: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    timeouts: http.Timeouts = http.Timeouts()
    retries: int = 2
    dialect: Dialect = PLAIN
    body_bytes_max: int = 32 * 1024 * 1024
    fresh: bool = False

    def __repr__(self) -> str:
        return f"OpenAISettings(upstream={self.upstream!r}, model={self.model!r})"


class Exchange:
    """Sends one model's requests to one path below the base URLs of its upstream's hosts."""

    def __init__(self, client: http.Client, hosts: Hosts, path: str, settings: OpenAISettings, clock: Clock) -> None:
        self.hosts = hosts
        self._client = client
        self._settings = settings
        self._clock = clock
        own = (
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("user-agent", f"convene/{convene.__version__}"),
        )
        key = (("authorization", f"Bearer {settings.api_key}"),) if settings.api_key else ()
        given = {name.lower() for name, _ in settings.headers}
        self._headers = tuple(pair for pair in own + key if pair[0] not in given) + settings.headers
        self._urls = tuple(url + path for url in hosts.base_urls)
        self._blamed = tuple(
            Blamed(settings.upstream, settings.model, url, settings.api_key) for url in hosts.base_urls
        )

    def ready(self) -> str | None:
        """Return None if a host may be asked now, else why not."""
        wait_s = self.hosts.wait_s()
        if wait_s is None:
            return None
        return f"every host of upstream '{self._settings.upstream}' has failed; the next is tried in {wait_s:.1f} s"

    def blame(self, pick: Pick) -> Blamed:
        """Return whom a fault at this host is about."""
        return self._blamed[pick.number]

    def open(
        self, body: bytes, begin: Callable[[http.Response, Blamed, A], Awaitable[T | Verdict]], asked: A
    ) -> Awaitable[tuple[Pick, http.Response, T]]:
        """Send until an answer has begun; return whose it is, the response, and what its reader made of the beginning.

        The caller then tells `hosts` that it has begun or how it ended, and closes the response.

        Args:
            body: the JSON request.
            begin: reads the response as far as needed to say that the answer is one; returns what it made of it, or
                the verdict that it is none.
            asked: what `begin` needs to know of the request.

        Raises:
            ConveneError: the last fault, once no further try is allowed.
        """
        return self._send(body, begin, asked, None, _opened)

    def ask(
        self,
        body: bytes,
        begin: Callable[[http.Response, Blamed, A], Awaitable[T | Verdict]],
        asked: A,
        glance: Callable[[bytes, Blamed, A], T | None] | None = None,
    ) -> Awaitable[T]:
        """Send as `open` does, for a reader that takes the whole answer; return what it made of it.

        Args:
            body: the JSON request.
            begin: as of `open`.
            asked: as of `open`.
            glance: reads an answer that has come whole with its head, as nearly all small ones do, without a wait;
                None leaves it to `begin`.

        Raises:
            ConveneError: as `open`.
        """
        return self._send(body, begin, asked, glance, self._ended)

    async def _send(
        self,
        body: bytes,
        begin: Callable[[http.Response, Blamed, A], Awaitable[T | Verdict]],
        asked: A,
        glance: Callable[[bytes, Blamed, A], T | None] | None,
        give: Callable[[Pick, http.Response, T], R],
    ) -> R:
        """Do what `open` and `ask` say; `give` makes of an answer that has begun what they return."""
        hosts, settings = self.hosts, self._settings
        hosts.budget.earn()
        pick = hosts.choose()
        if pick is None:
            raise self._unavailable()
        tried: list[int] = []
        while True:
            response: http.Response | None = None
            try:
                number, fresh = pick.number, settings.fresh or len(tried) > 0
                request = http.Request("POST", self._urls[number], self._headers, body, settings.timeouts, fresh)
                response = await self._client.send(request)
                blamed = self._blamed[number]
                if 200 <= response.status < 300:  # noqa: PLR2004 - the statuses of success
                    whole = None if glance is None else response.peek()
                    seen = None if whole is None or glance is None else glance(whole, blamed, asked)
                    found = await begin(response, blamed, asked) if seen is None else seen
                else:
                    found = await self._refusal(response, blamed)
            except http.HttpError as error:
                found = judge_transport(error, self.blame(pick), begun=False)
            except BaseException:
                # broad and re-raised: whoever ends this try, above all a cancellation, ends the upstream's work with it
                if response is not None:
                    response.close()
                hosts.gave_up(pick)
                raise
            if isinstance(found, Verdict):
                pick = await self._again(found, pick, response, tried)
            else:
                return give(pick, response, found)  # type: ignore[arg-type]  # only a verdict comes without a response

    def _ended(self, pick: Pick, response: http.Response, found: T) -> T:
        self.hosts.succeeded(pick)
        response.close()
        return found

    async def _again(self, verdict: Verdict, pick: Pick, response: http.Response | None, tried: list[int]) -> Pick:
        """Book a try that failed, and return the host for the next one after its wait. Raises the fault if none is."""
        if verdict.blame:
            self.hosts.failed(pick)
        elif response is None:
            self.hosts.gave_up(pick)
        else:
            self.hosts.succeeded(pick)
        if response is not None:
            response.close()
        tried.append(pick.number)
        again = self._choose_next(verdict, tried)
        if again is None:
            raise verdict.fault
        await asyncio.sleep(min(BACK_OFF_MAX_S, BACK_OFF_S * 2.0 ** len(tried)) * self._clock.fraction())
        return again

    def _choose_next(self, outcome: Verdict, tried: list[int]) -> Pick | None:
        if outcome.next == "end" or len(tried) > self._settings.retries:
            return None
        pick = self.hosts.choose_other(tried) if outcome.next == "elsewhere" else self.hosts.choose_again(tried)
        return pick if pick is not None and self.hosts.budget.spend() else None

    async def _refusal(self, response: http.Response, blamed: Blamed) -> Verdict:
        try:
            words = await response.read(ERROR_BYTES_MAX)
        except http.HttpError:
            words = b""  # the status alone says enough
        return judge_status(response.status, response.headers, words, blamed, self._clock.now())

    def _unavailable(self) -> Unavailable:
        wait_s = self.hosts.wait_s()
        return Unavailable(
            f"The upstream '{self._settings.upstream}' has failed several times and is being left alone; try again.",
            detail=f"{self._settings.upstream}: all breakers are open",
            retry_after_s=wait_s,
        )


def _opened(pick: Pick, response: http.Response, found: T) -> tuple[Pick, http.Response, T]:
    return pick, response, found

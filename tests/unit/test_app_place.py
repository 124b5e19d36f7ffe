"""Where others reach this server: by its settings, and by the port that the system has chosen."""

from __future__ import annotations

import asyncio

import pytest

from convene.app_place import Place, own_address
from convene.config import Config


@pytest.mark.parametrize(
    ("host", "public_url", "address"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:4711"),
        ("0.0.0.0", "", "http://127.0.0.1:4711"),  # noqa: S104 -- compared, not bound
        ("::1", "", "http://[::1]:4711"),
        ("::", "", "http://127.0.0.1:4711"),
        ("10.1.2.3", "https://convene.test/", "https://convene.test"),
    ],
)
def test_links_name_the_address_that_others_reach(host: str, public_url: str, address: str) -> None:
    assert own_address(Config(host=host, public_url=public_url), 4711) == address


async def test_a_port_that_the_system_chooses_is_waited_for() -> None:
    place = Place(Config(port=0))
    waiting = asyncio.create_task(place.known())
    await asyncio.sleep(0)
    assert not waiting.done()
    place.listen_at(4711)
    await waiting
    assert place.url == "http://127.0.0.1:4711"


@pytest.mark.parametrize("config", [Config(port=80), Config(port=0, public_url="https://convene.test/")])
async def test_what_the_settings_say_is_known_at_once(config: Config) -> None:
    place = Place(config)
    await place.known()
    place.listen_at(4711)
    assert place.url == (config.public_url.rstrip("/") or "http://127.0.0.1:4711")

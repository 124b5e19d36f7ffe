"""People for the tests of accounts over HTTP: made by the admin API, each with a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

    from api.conftest import Served


def bearer(key: str) -> dict[str, str]:
    """Return the header that proves who asks."""
    return {"Authorization": f"Bearer {key}"}


async def ask(
    served: Served, method: str, path: str, key: str = "", body: object = None, **headers: str
) -> httpx2.Response:
    """Send a request with a key (the admin's unless another is given) and a JSON body."""
    sent = bearer(key or served.key) | {name.replace("_", "-"): value for name, value in headers.items()}
    return await served.http.request(method, path, json=body, headers=sent)


async def made(served: Served, path: str, body: object, key: str = "") -> dict[str, Any]:
    """Post something that must succeed, and return the answer."""
    answer = await ask(served, "POST", path, key, body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


class Someone:
    """A user with a key."""

    def __init__(self, user: dict[str, Any], key: dict[str, Any]) -> None:
        self.id: str = user["id"]
        self.link: str = user["link"]
        self.key: str = key["key"]
        self.key_id: str = key["id"]


async def someone(served: Served, name: str, **fields: object) -> Someone:
    """Make a user and a key of its own."""
    user = await made(served, "/v1/admin/users", {"email": f"{name}@x.org", "name": name} | fields)
    key = await made(served, "/v1/admin/keys", {"name": f"{name}'s", "user_id": user["id"]})
    return Someone(user, key)

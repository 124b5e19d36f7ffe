"""The rows of the route table for keys, users, teams and invitations. `table.py` puts them among the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.api import shapes_accounts as shapes
from convene.api.accounts_wire import PAGED
from convene.api.routes import Route

if TYPE_CHECKING:
    from convene.api.query import Parameter
    from convene.api.routes import Endpoint
    from convene.api.table import Endpoints


def account_routes(to: Endpoints) -> tuple[Route, ...]:
    """Return the rows. All may be called with a browser session instead of a key."""
    return (*_own(to), *_admins(to))


def _own(to: Endpoints) -> tuple[Route, ...]:
    return (
        _row("GET", "/v1/me", to.show_me, "Who is calling", gives=shapes.Me),
        _row("GET", "/v1/keys", to.list_keys, "List your keys", gives=shapes.ApiKeyList, query=PAGED),
        _row(
            "POST",
            "/v1/keys",
            to.create_key,
            "Make a key of yours; the answer shows it, once",
            takes=shapes.KeyBody,
            gives=shapes.ApiKey,
        ),
        _refusing(  # a key that is revoked stays so
            _row(
                "POST",
                "/v1/keys/{key}/rotate",
                to.rotate_key,
                "Give a key another secret; the answer shows it, once",
                gives=shapes.ApiKey,
            )
        ),
        _row(
            "PATCH",
            "/v1/keys/{key}",
            to.change_key,
            "Rename a key or tighten its limits; an admin may change more",
            takes=shapes.KeyChangeBody,
            gives=shapes.ApiKey,
        ),
        _row("DELETE", "/v1/keys/{key}", to.revoke_key, "Revoke a key", gives=shapes.Deleted),
    )


def _admins(to: Endpoints) -> tuple[Route, ...]:
    users, teams, links = "/v1/admin/users", "/v1/admin/teams", "/v1/admin/invitations"
    user, team = f"{users}/{{user}}", f"{teams}/{{team}}"
    body, gives = shapes.UserBody, shapes.Account
    rows = (
        _row("GET", users, to.list_users, "List users", gives=shapes.AccountList, query=PAGED),
        _row("POST", users, to.add_user, "Make a user; the answer has the link for its password", body, gives),
        _row("PATCH", user, to.change_user, "Change a user", shapes.UserChangeBody, gives),
        # the last admin stays one
        _refusing(_row("DELETE", user, to.disable_user, "Disable a user and its keys", gives=shapes.Deleted)),
        _row("POST", f"{user}/link", to.reset_link, "Make a link for a new password", gives=shapes.Invitation),
        _row("GET", teams, to.list_teams, "List teams", gives=shapes.TeamList, query=PAGED),
        _row("POST", teams, to.add_team, "Make a team", shapes.TeamBody, shapes.TeamReply),
        _row("PATCH", team, to.change_team, "Change a team", shapes.TeamChangeBody, shapes.TeamReply),
        _row("GET", f"{team}/members", to.list_members, "List a team's members", gives=shapes.MemberList),
        _row("POST", f"{team}/members", to.put_member, "Add or change a member", shapes.MemberBody, shapes.MemberReply),
        _row("DELETE", f"{team}/members/{{user}}", to.remove_member, "End a membership", gives=shapes.Deleted),
        _row("GET", links, to.list_links, "List unused links", gives=shapes.InvitationList, query=PAGED),
        _row("POST", links, to.invite, "Make a one-time link", shapes.InvitationBody, shapes.Invitation),
        _row("DELETE", f"{links}/{{invitation}}", to.withdraw_link, "Void a link", gives=shapes.Deleted),
        _row("GET", "/v1/admin/keys", to.list_all_keys, "List all keys", gives=shapes.ApiKeyList, query=PAGED),
        _row("POST", "/v1/admin/keys", to.issue_key, "Make a key for anybody", shapes.AdminKeyBody, shapes.ApiKey),
    )
    return tuple(msgspec.structs.replace(row, tag="Administration", scope="admin") for row in rows)


NAMING: Final = (shapes.KeyBody, shapes.AdminKeyBody, shapes.InvitationBody)
"""Bodies that name a user or a team."""


def _row(
    method: str,
    path: str,
    endpoint: Endpoint,
    summary: str,
    takes: type | None = None,
    gives: type | None = None,
    query: tuple[Parameter, ...] = (),
) -> Route:
    return Route(
        method=method,
        path=path,
        endpoint=endpoint,
        summary=summary,
        takes=takes,
        gives=gives,
        query=query,
        tag="Keys",
        browser=True,
        names=takes in NAMING,
    )


def _refusing(route: Route) -> Route:
    return msgspec.structs.replace(route, refuses=True)

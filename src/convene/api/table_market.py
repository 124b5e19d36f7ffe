"""The rows of the route table for the marketplace: paths that agents' libraries know, outside the API description.

They begin at the root of host and port (REG-17). Searches have rows of their own. `app_market.py` fills `MarketPages`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.api.agentverse import AgentversePages
from convene.api.almanac import AlmanacPages
from convene.api.askers import in_their_words
from convene.api.assets import AssetPages
from convene.api.inspect import inspect
from convene.api.mailbox import MailPages, ProxyPages
from convene.api.routes import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.api.routes import Endpoint

    Row = tuple[str, str, Endpoint, str]


class MarketPages(msgspec.Struct, frozen=True, kw_only=True):
    """What answers."""

    almanac: AlmanacPages
    agentverse: AgentversePages
    mail: MailPages
    proxy: ProxyPages
    assets: AssetPages


def market_routes(to: MarketPages) -> tuple[Route, ...]:
    """Return the rows. All are open: who asks is found out by the endpoints, each in its own way."""
    return tuple(
        Route(
            method=method,
            path=path,
            endpoint=in_their_words(endpoint),
            summary=summary,
            open=True,
            tag="Agents",
            described=False,
        )
        for method, path, endpoint, summary in (*_almanac(to), *_agentverse(to), *_mail(to), *_assets(to), *_old(to))
    )


def _almanac(to: MarketPages) -> Iterator[Row]:
    page, base = to.almanac, "/v1/almanac"
    yield "POST", f"{base}/agents", page.register, "Register an agent by what it has signed"
    yield "POST", f"{base}/agents/batch", page.register_batch, "Register several"
    yield "POST", f"{base}/agents/{{address}}/status", page.set_status, "Say whether an agent is active"
    yield "GET", f"{base}/agents/{{name}}", page.resolve, "Say where an agent is"
    yield "POST", f"{base}/search", page.search, "List the agents that speak a protocol"
    yield "GET", f"{base}/recent", page.recent, "List the agents that have registered last"
    yield "GET", f"{base}/domains/{{name}}", page.domain, "Say which agent has a name"
    yield "GET", f"{base}/handles/{{name}}", page.domain, "The same"
    yield "POST", f"{base}/manifests", page.publish, "Publish a protocol"
    yield "GET", f"{base}/manifests/protocols/{{digest}}", page.manifest, "Show a protocol"
    yield "GET", f"{base}/manifests/digests", page.digests, "List the protocols"
    yield "GET", "/v2/almanac/resolve/{name}", page.resolve, "Say where the agent of an address or a handle is"
    yield "GET", "/v2/almanac/manifest/{digest}", page.manifest, "Show a protocol"


def _agentverse(to: MarketPages) -> Iterator[Row]:
    page = to.agentverse
    yield "GET", "/v2/identity/{address}/challenge", page.challenge, "Get a text to sign with an agent's key"
    yield "POST", "/v2/identity", page.prove, "Prove that an agent is yours"
    yield "POST", "/v2/agents", page.save, "List an agent, or change its listing"
    yield "POST", "/v2/agents/batch", page.save_batch, "List several agents"
    yield "POST", "/v2/agents/interactions", page.interaction, "Tell of a message between agents"
    yield "GET", "/v2/agents", page.page, "List your agents"
    yield "GET", "/v2/agents/{address}", page.show, "Show your agent"
    yield "PUT", "/v2/agents/{address}", page.put, "Change your agent's listing"
    yield "DELETE", "/v2/agents/{address}", page.delete, "Take your agent's listing away"
    yield "POST", "/v1/events", page.events, "Tell of what an agent does; nothing of it is kept"
    yield "GET", "/inspect", inspect, "Connect an agent of your own machine"


def _mail(to: MarketPages) -> Iterator[Row]:
    mail, proxy = to.mail, to.proxy
    yield "POST", "/v2/agents/mailbox/submit", mail.submit, "Leave an envelope for a mailbox agent"
    yield "GET", "/v2/agents/mailbox/submit", mail.probe, "Say whether envelopes are taken"
    yield "GET", "/v2/agents/{address}/mailbox", mail.waiting, "Fetch what waits for your agent"
    yield "DELETE", "/v2/agents/{address}/mailbox/{uuid}", mail.take, "Delete an envelope that was handled"
    yield "POST", "/v2/agents/proxy/submit", proxy.submit, "Hand an envelope to an agent behind this server"
    yield "GET", "/v2/agents/proxy/submit", proxy.probe, "Say whether envelopes are handed on"


def _assets(to: MarketPages) -> Iterator[Row]:
    page, base = to.assets, "/v1/storage/assets"
    yield "POST", base, page.keep, "Leave a file for an agent"
    yield "GET", f"{base}/{{asset}}/contents", page.show, "Fetch a file"
    yield "PUT", f"{base}/{{asset}}/contents", page.change, "Write a file anew"
    yield "PUT", f"{base}/{{asset}}/permissions", page.permit, "Say who may read a file"


def _old(to: MarketPages) -> Iterator[Row]:
    """Return what uagents up to 0.22 and uagents-core up to 0.3 ask (LIST-17)."""
    page, mail, proxy = to.agentverse, to.mail, to.proxy
    yield "POST", "/v1/auth/challenge", page.old_challenge, "Get a text to sign with an agent's key"
    yield "POST", "/v1/auth/prove", page.old_prove, "Get a token for the mailbox"
    yield "POST", "/v1/agents", page.old_register, "List an agent"
    yield "PUT", "/v1/agents/{address}", page.put, "Change an agent's listing"
    yield "DELETE", "/v1/agents/{address}", page.delete, "Take an agent's listing away"
    yield "GET", "/v1/mailbox", mail.old_waiting, "Fetch what waits for an agent"
    yield "DELETE", "/v1/mailbox/{uuid}", mail.old_take, "Delete an envelope that was handled"
    yield "POST", "/v1/submit", mail.submit, "Leave an envelope for a mailbox agent"
    yield "GET", "/v1/submit", mail.probe, "Say whether envelopes are taken"
    yield "POST", "/v1/proxy/submit", proxy.submit, "Hand an envelope to an agent behind this server"
    yield "GET", "/v1/proxy/submit", proxy.probe, "Say whether envelopes are handed on"

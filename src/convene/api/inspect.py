"""`/inspect/`: a page on which an owner connects an agent that runs on the same machine as the browser (LIST-16).

An agent prints a link to it at its start. It takes `/connect` from its own machine alone, so the owner's browser has to
send it: the page's script posts the key to the agent, and the agent then asks this server for its listing or mailbox.
Chromium 156 lets no page of a plain HTTP address of another machine do that, so such a page shows the command instead.
The script is a constant whose hash the content security policy names, and it can reach this machine only.
"""

from __future__ import annotations

import base64
import hashlib
import html
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from convene.api.origins import is_loopback_host
from convene.api.query import Query
from convene.errors import BadRequest

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.api.problems import Header

STYLE: Final = (
    ":root{color-scheme:light dark}*{box-sizing:border-box}[hidden]{display:none!important}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}"
    "label{display:block;margin:.8rem 0}input,select{display:block;width:100%;padding:.4rem;font:inherit}"
    "button{padding:.5rem 1rem;font:inherit}code{word-break:break-all}"
    "pre{white-space:pre-wrap;word-break:break-all}"
    "#said{border-left:4px solid #888;padding:.3rem .8rem;min-height:1.5em}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}"
)
SCRIPT: Final = """
"use strict";
const form = document.querySelector("form");
const said = document.getElementById("said");
const say = (text) => { said.textContent = text; };
const agent = form.dataset.uri;
const kind = form.elements.agent_type;
const showEndpoint = () => { form.elements.endpoint.parentElement.hidden = kind.value === "mailbox"; };
kind.addEventListener("change", showEndpoint);
showEndpoint();
const post = async (path, body) => {
  const answer = await fetch(agent + path, {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body), credentials: "omit",
  });
  const told = await answer.json().catch(() => ({}));
  return told.success ? "" : (told.detail || told.error || "The agent answered " + answer.status + ".");
};
const command = document.getElementById("command");
const run = async (path, body, done) => {
  say("Asking the agent ...");
  command.hidden = true;
  try {
    say((await post(path, body)) || done);
  } catch (fault) {
    say(window.isSecureContext
      ? "The agent cannot be reached at " + agent + ". Does it run on this machine?"
      : "Browsers may let no page that came over plain HTTP reach your machine. On the agent's machine, run:");
    const sent = JSON.stringify({...body, user_token: "YOUR_KEY"}).replaceAll("'", "'\\''");
    command.textContent = "curl " + agent + path + " -H 'content-type: application/json' -d '" + sent + "'";
    command.hidden = window.isSecureContext;
  }
};
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const body = {user_token: form.elements.key.value.trim(), agent_type: kind.value};
  const endpoint = form.elements.endpoint.value.trim();
  if (kind.value !== "mailbox" && endpoint) { body.endpoint = endpoint; }
  run("/connect", body, "Connected.");
});
document.getElementById("disconnect").addEventListener("click", () => {
  if (!form.elements.key.reportValidity()) { return; }
  run("/disconnect", {user_token: form.elements.key.value.trim()}, "Disconnected.");
});
"""


def _hash_of(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


GUARDED: Final[tuple[Header, ...]] = (
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_hash_of(STYLE)}'; script-src 'sha256-{_hash_of(SCRIPT)}'; "
        "connect-src http://127.0.0.1:* http://localhost:*; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Connect an agent - Convene</title><style>{style}</style>
<h1>Connect an agent</h1>
<p>The agent at <code>{uri}</code>{address} gets a listing on this server, and a mailbox if it asks for one.</p>
<form data-uri="{uri}">
<label>Your API key <input name="key" type="password" autocomplete="off" required></label>
<label>How it is reached <select name="agent_type"><option value="mailbox">mailbox: it fetches its messages</option>
<option value="proxy">proxy: this server hands them on</option>
<option value="custom">custom: at its own address</option>
</select></label>
<label>Its own address <input name="endpoint" type="url" placeholder="http://127.0.0.1:8001/submit"></label>
<button>Connect</button> <button type="button" id="disconnect">Disconnect</button>
</form>
<p id="said" role="status"></p>
<pre id="command" hidden></pre>
<p>The key goes from this page to the agent on your machine, and from there to this server.</p>
<script>{script}</script></html>
"""


async def inspect(call: Call) -> None:
    """Show the page."""
    query = Query.of(call)
    uri, address = (query.text("uri") or "").rstrip("/"), query.text("address") or ""
    if not _is_local(uri):
        raise BadRequest(
            "Open the link that your agent prints: its 'uri' names a port of your own machine, http://127.0.0.1:PORT.",
            param="uri",
        )
    named = f" (<code>{html.escape(address)}</code>)" if address else ""
    page = _PAGE.format(style=STYLE, uri=html.escape(uri, quote=True), address=named, script=SCRIPT)
    await call.reply(200, page.encode(), b"text/html; charset=utf-8", list(GUARDED))


def _is_local(uri: str) -> bool:
    """Whether it is `http://HOST:PORT` of this machine, and nothing more."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    plain = parts.scheme == "http" and not (parts.path or parts.query or parts.fragment) and "@" not in parts.netloc
    return plain and port is not None and is_loopback_host(parts.netloc.lower())

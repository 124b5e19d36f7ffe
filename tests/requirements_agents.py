"""The rows of the requirement manifest for the page `agents`: agents, registry, Agent Chat Protocol, A2A, MCP.

Only the table is here; its form and the lookup are in requirements.py.
"""

from __future__ import annotations

from typing import Final

ROWS: Final = """\
[agents §1]
AGENT-01 proved ACP, A2A and MCP agents come from one search and are called by one interface yielding progress, text,
    resource, needs_input, payment, error and end.
AGENT-02 proved `Agent(agentverse="http://host:port", ...)` is all that makes an unmodified uagents agent join.
AGENT-03 proved Agents with an own endpoint, mailbox and proxy agents, a Bureau, uagents 0.22.10, an A2A agent by
    `agentverse-sdk` and a web app by `register_chat_agent` register, are found and called, and answer.
AGENT-04 proved `uagents-core` suffices for calling ACP agents: no `uagents.Agent` runs in the server.
AGENT-05 proved The server is an agent too, with an identity that resolves to its inbox, since ACP answers are separate
    POSTs to the caller's endpoint.
[agents §2]
ID-01 proved Keys are secp256k1; an address is 65 characters of bech32, prefix `agent`, over the compressed public key
    of 33 bytes.
ID-02 proved `Identity.from_seed(seed, index=0)` has the private key sha256(sha256("agent" + byte(index)) +
    sha256(seed)), and `Identity.generate()` one for once.
ID-03 proved The 64 bytes (r, s), in bech32 with prefix `sig`, are a signature.
ID-04 proved `sign(data)` applies sha256 and `sign_digest(digest)` does not; a failed `Identity.verify_digest(address,
    digest, sig)` raises `ecdsa.BadSignatureError`, which each check catches.
ID-05 proved Behind a `user1...` address there is no key, so it signs nothing.
ID-06 proved `[prefix://][name/]address` is understood with prefix `agent` (default), `test-agent` or none.
ID-07 proved A stable secret seed gives the server the same identity after each restart.
ID-08 5 Signing (0.53 ms) and verifying (1.87 ms; half with `gmpy2`) do not happen on a loop where latency is
    critical.
[agents §3]
ENVL-01 proved What is signed is sha256 over sender, target, session text, schema_digest, payload (as base64 text)
    and, if there, `expires` and `nonce` as big-endian u64; `version` and `protocol_digest` are unsigned and not
    believed.
ENVL-02 proved An envelope's `session` is a version 4 UUID, so `x-session-id` is mapped to a stored one and never handed
    on.
ENVL-03 proved A `schema_digest` is "model:" + sha256 of the pydantic-v1 schema, titles and docstrings included, and is
    therefore taken from the library's class (`Model.build_schema_digest`).
ENVL-04 5 `expires` is 30 s ahead; asynchronous receivers pay no heed to it, synchronous ones stop then; `nonce` goes
    unused.
ENVL-05 proved An agent that gets an envelope twice acts twice.
ENVL-06 proved Our inbox drops a repeat of the same (sender, session, msg_id).
ENVL-07 proved The server caps message bodies, for agents take 2 MB and more.
ENVL-08 proved Of a protocol with roles both digests are known, each by `ProtocolSpecification.manifest(role)`.
ENVL-09 proved The Almanac answers with bare hex protocols, while registrations and search hits have `proto:`.
[agents §4]
REG-01 proved `POST /v1/almanac/agents` checks the signature, saves the record and says 200 `{}` in well below 1 s.
REG-02 5 After 10 tries (pauses of 0.064*2^n s, 33 s in all) an agent rests for an hour, hence the registry is up
    before its agents.
REG-03 proved Registered agents are still known after the registry restarts.
REG-04 proved A record lives at least 2 h, by default 48 h, against a refresh each 3600 s.
REG-05 proved `POST /v1/almanac/agents/batch` with `{"attestations":[...]}` registers every entry.
REG-06 proved `POST /v1/almanac/agents/{a}/status` checks the signature and is 200 for addresses unknown so far.
REG-07 proved Once `is_active:false` was posted, search no longer shows the agent as active.
REG-08 proved `POST /v1/almanac/manifests` checks the digest (`ProtocolSpecification.compute_digest`) and is 200.
REG-09 proved The manifests of chat, payment, subscription and MCP are there from the start, so search can name these
    protocols.
REG-10 proved Signed is sha256 of the body minus `signature`, as compact JSON with sorted keys;
    `AgentRegistrationAttestation.model_validate(body).verify()` checks all of it.
REG-11 proved If instead the object as received, hashed likewise, fits the signature, it passes as well (newer fields).
REG-12 proved A registration stamped earlier than the stored one is turned away.
REG-13 proved `agent_address` may stand for `agent_identifier`.
REG-14 proved The Almanac learns address, endpoints, protocols and `geolocation`; name, README, description, avatar and
    handle arrive with a listing only.
REG-15 5 `GET http://agent/agent_info` tells address, endpoints, protocols, metadata, agent_type, prefix and port, not
    the name.
REG-16 proved `GET /v2/agents/{a}` and `POST /v1/events` follow LIST-09 and LIST-14.
REG-17 proved Agentverse routes begin at the root of host and port.
REG-18 proved A path with two leading slashes is served as with one.
REG-19 proved The docs say that a Bureau wants `agentverse=` on each `Agent` and on the `Bureau`.
REG-20 proved The docs show `AgentverseConfig(base_url="127.0.0.1:8899", http_prefix="http")` for uagents-core and
    `http://handle:seed@127.0.0.1:8899/Name` for agentverse-sdk.
REG-21 proved With no ledger in reach agents warn twice (0.02 s) and register through the API.
REG-22 5 With a ledger, `DefaultRegistrationPolicy` also goes to the contract;
    `AlmanacApiRegistrationPolicy(almanac_api=url+"/v1/almanac")` keeps to the API.
[agents §5]
LIST-01 proved A user is known by `Authorization: Bearer <API key>`, with `x-team` if wanted.
LIST-02 proved An agent proves itself by `Authorization: Agent attr:<b64>:<sig>`: 81 bytes of 33-byte public key, u64
    from
    and u64 to (big-endian) and 32-byte nonce, signed by `Identity.sign`.
LIST-03 proved Our own check of an attestation wants length 81, from - 300 s <= now <= to, a valid signature, and the
    address of that key.
LIST-04 proved With a key: `GET /v2/identity/{a}/challenge` gives `{"challenge"}`, `POST /v2/identity
    {"address","challenge","challenge_response"}` gives `{"address"}`, `POST /v2/agents` gives `{"success": true}`,
    each under Bearer and with status 200.
LIST-05 proved `identity.sign(challenge.encode())` is the `challenge_response`, tested by `verify_digest(address,
    sha256(challenge), response)`; no challenge counts twice.
LIST-06 proved Core asks `GET /v2/agents/{a}` first and takes the challenge on 404 only; `/connect` does not ask.
LIST-07 proved `POST /v2/agents` takes address, name, handle, url, agent_type, profile (description, readme, avatar_url,
    banner_url, starter_prompts), endpoints, protocols and metadata from the proven owner or the agent.
LIST-08 proved `POST /v2/agents` merges, also within `profile`, and does without `name`.
LIST-09 proved `GET /v2/agents/{a}` under that address's attestation is 200 with optional `name`, `handle`, `profile`,
    and
    in an open registry even for an unlisted agent.
LIST-10 proved Failures there are JSON `{"detail": "text"}`, fit to be shown.
LIST-11 proved Allowed are name 1 to 32, handle 40, description 300, readme 80,000, address 66, url, avatar_url and
    banner_url 4000 characters; `agent_type` is free.
LIST-12 proved `register_chat_agent` names the proxy as endpoint and the real address as `url`, then posts the status.
LIST-13 proved `DELETE /v2/agents/{a}`, `PUT /v2/agents/{a}`, `GET /v2/agents?limit=30&offset=0`, `POST
    /v2/agents/batch`
    and `POST /v2/agents/interactions {"target","session_id","source"}` are served.
LIST-14 proved `POST /v1/events` is 2xx in every case.
LIST-15 proved Of events, which may hold host names and tracebacks, next to nothing is kept.
LIST-16 proved At `/inspect/?uri=http://127.0.0.1:<port>&address=...` the owner's browser can post to the agent's
    `/connect`.
LIST-17 proved The routes of old versions (`/v1/auth/challenge`, `/v1/auth/prove`, `/v1/agents`, `/v1/mailbox`,
    `/v1/submit`, `/v1/proxy/submit`) are a choice; old agents with an endpoint of their own get by with the Almanac.
[agents §6]
RES-01 proved `GET /v1/almanac/agents/{a}[?prefix=agent]` is a record with status, type, address, prefix, domain_name,
    endpoints (url, weight), metadata, protocols as bare hex and expiry, or 404.
RES-02 proved No record has a null `expiry`.
RES-03 proved No `weight` is 0 or less.
RES-04 5 Resolving is quick at any time, as senders do it for each message (5 s, 2 tries).
RES-05 proved The server's own address resolves too, and for ever.
RES-06 proved Names resolve by `GET /v1/almanac/domains/{name}`
    (`{"name","status":"Registered","expiry","assigned_agents":[{"address","weight"}]}`) and `GET
    /v2/almanac/resolve/{address|handle|domain}`.
RES-07 proved `POST /v1/almanac/search {"text":"<hex>"}` gives records with `address` and `status`.
RES-08 proved `/recent`, `/handles...`, `/manifests/protocols/{hex}`, `/manifests/digests/` and
    `/v2/almanac/manifest/...`
    may exist.
MBOX-01 proved `{base}/v2/agents/mailbox/submit` keeps the envelope and says 200 `{}`.
MBOX-02 proved `GET /v2/agents/{a}/mailbox`, for that agent alone, lists
    `{"uuid","envelope","received_at","expires_at"}`
    with version 4 uuids; without a mailbox it is 404.
MBOX-03 proved `DELETE /v2/agents/{a}/mailbox/{uuid}` takes an envelope away.
MBOX-04 proved Polling each 1.0 s, the agents' habit, works from the start.
PROXY-01 proved `{base}/v2/agents/proxy/submit` hands body and `x-uagents-connection` to the listing's `url` untouched
    and
    brings the answer back.
PROXY-02 proved Only allow-listed networks can be such a URL's target.
PROBE-01 proved `HEAD` of a submit path says `x-uagents-status: ready|not-ready|indeterminate`.
STORE-01 proved `POST /v1/storage/assets/ {name, mime_type, contents, lifetime_hours 1 to 24}` is 201 `{"asset_id"}`;
    `GET|PUT /v1/storage/assets/{id}/contents/` and permissions per agent exist.
STORE-02 proved `agent-storage://<host>/v1/storage/<uuid>` and `agent-storage://<host>/<uuid>`, with or without an inner
    `https://`, can be read.
STORE-03 5 `ExternalStorage` gets `storage_url=config.storage_api`, or core 0.4.12 raises AttributeError.
HOST-01 proved Nothing is served under `/v1/hosting/agents` and `/v2/hosting/...`; agents run in processes of their own.
[agents §7]
SEARCH-01 proved `POST /v1/search/agents` asks for no key.
SEARCH-02 proved Any of these may be left out: `search_text`; `filters{state, category, agent_type, protocol_digest[],
    has_location, has_readme, n_interactions, tags[]}`; `sort` relevancy|created-at|last-modified|interactions;
    `direction` (desc); `cutoff` none|permissive|balanced|strict; `exact_match` (false); `semantic_search` (false);
    `rerank` (true); `offset` (0); `limit` (30, at most 50); `exclude_geo_agents` (true); `source`; `search_id`.
SEARCH-03 proved The result is `{"agents":[...],"offset","limit","num_hits","total","search_id"}`.
SEARCH-04 proved A hit has `address, prefix, name, description, readme, protocols[{name,version,digest}], avatar_href,
    banner_href, total_interactions, recent_interactions, rating, status, unresponsive, type, featured, category,
    system_wide_tags[], geo_location, handle, domain, metadata, last_updated, created_at, recent_success_rate,
    recent_eval_success_rate, owner, recent_verified_interactions, recent_success_verified_interactions`.
SEARCH-05 proved All `metadata` values of a hit are made `str`, `[str]` or `{str: str}`.
SEARCH-06 proved `search_text: "address:agent1..."` with `exact_match` yields that one agent.
SEARCH-07 proved `POST .../agents/geo` (`geo_filter{latitude,longitude,radius}`, `include_geo_in_relevancy`), `GET
    .../agents/{a}` and `POST .../agents/click {"address","search_id","page_index","contract"?}` are served.
SEARCH-08 proved `/v1/search` and `/v1/search/geo` do the same under older names.
SEARCH-09 5 Tags, keywords, `/v1/search/analytics/insights/{a}` and SEO evaluation are a choice.
SEARCH-10 proved The hosted service is asked `{"search_text": q, "semantic_search": true, "filters":
    {"state":["active"],"protocol_digest":["proto:30a8..."]}, "cutoff":"balanced", "limit": 10, "source": "<own
    id>"}`.
SEARCH-11 proved Whether an agent lives is judged by our records (registration, good answer, status), not by HEAD alone.
[agents §8]
PICK-01 5 A question becomes several search queries, each noted as good or failed:
    `{"queries":[...],"type":"asi1|pick_only"}`.
PICK-02 proved From all hits the model picks one agent and says why:
    `{"address","id","type","user_query","queries","queries_matched","reasoning","contract"?}`.
PICK-03 5 A call goes `started, message_dispatched, response_received, success, failed`, with
    `{"address","seconds","timed_out"}` for its time.
PICK-04 proved A model says yes or no to whether the answer is what the README promised:
    `{"address","success","interaction_id","request","response","explanation","reasoning","from_verifier"}`.
PICK-05 5 People's feedback is `{"address","positive","response"}` and leaves the score alone.
PICK-06 proved Rank depends on chat protocol, README quality, own handle, being active, interactions, verification, and
    success rate weighted by count.
PICK-07 proved Inactive agents are found only if asked for by name; `@handle` or `@agent1...` in a question goes
    straight to the agent.
PICK-08 proved An owner sees impressions, picks and selection rate; verified interactions are what counts.
[agents §9]
ACP-01 proved To `ChatMessage{timestamp (UTC), msg_id (uuid4), content[]}` the reply is `ChatAcknowledgement{timestamp,
    acknowledged_msg_id, metadata?}`, and the protocol asks no more.
ACP-02 proved Content is `text{text}`, `resource{resource_id, resource}` (one `{uri, metadata{str:str}}` or a list, main
    one first), `metadata{metadata{str:str}}`, `start-session`, `end-session`, `start-stream{stream_id}` or
    `end-stream{stream_id}`, and nothing else.
ACP-03 proved An answer is known by its envelope's session only.
ACP-04 proved No ChatMessage that reaches the server stays unacknowledged.
ACP-05 proved Agents should acknowledge, work, answer, close with `end-session`, and publish the manifest.
ACP-06 proved A user's conversation with an agent keeps one envelope session for all its turns.
ACP-07 proved `StartSessionContent` before the first turn is an option of each agent.
ACP-08 proved Cards are `metadata` with `card_protocol_version: "1"`, `requires_card_interaction: "true"`, `card_kind`
    (carousel, detail, form, review, custom), `card_payload`, optional `card_id`, `is_terminal`,
    `preferred_drawer_width_px`.
ACP-09 proved The reply to a card echoes `card_id`, has `text`, `selection` (JSON) or `cancelled`, and no `card_kind`.
ACP-10 proved The user gets both kinds of picture: markdown in the text, and resources.
ACP-11 proved With no buyer set up, RequestPayment is answered by `RejectPayment` and the user learns of it.
ACP-12 proved After `ErrorMessage{error}` the call has failed on the agent's side.
ACP-13 5 `StructuredOutputPrompt{prompt, output_schema}` may come in and is answered by
    `StructuredOutputResponse{output}`.
ACP-14 proved Agents that speak MCPProtocol (ListTools, ListToolsResponse, CallTool, CallToolResponse) can serve as
    exact tools.
ACP-15 proved The inbox reports a schema digest it does not know and still says 200.
CALL-01 proved Calls go over our own asynchronous HTTP; core's blocking functions, if used, run in a thread.
CALL-02 proved The message class follows from `schema_digest`.
CALL-03 proved The inbox (POST, HEAD) verifies, queues and replies in milliseconds.
CALL-04 proved A server that cannot be reached registers as a mailbox, polls and deletes.
CALL-05 proved An agent's refusal is a 400 with `{"error"}` (content type, JSON, schema, signature, foreign target)
    and is understood as such.
CALL-06 proved After a network error no message is repeated blindly.
END-01 proved `EndSessionContent` is a certain end; most agents send none.
END-02 proved An open stream keeps the answer open until `end-stream`.
END-03 proved Else a quiet time after the last ChatMessage (2 s by default) is the end, within the total limit.
END-04 proved Afterwards the session still listens, and what comes late is offered to the next turn.
END-05 proved A mere progress phrase ("Agent is working on your request...") does not count as answer.
END-06 proved A late answer under another session is matched by who sent it.
SYNC-01 proved Chat never goes by `x-uagents-connection: sync`.
SYNC-02 5 Sync serves request/response protocols alone, each call under a fresh identity.
SYNC-03 5 A sync reply has no signature and is trusted no more than its transport.
SYNC-04 proved Queueing in the agent, which works on one message at a time, is reckoned with.
[agents §10]
TRAP-01 proved Messages come from the library's classes only, for a malformed body makes an agent deaf; health is
    tested by really talking.
TRAP-02 proved The sender is never `user1...`.
TRAP-03 proved Before the first call our identity stands, unexpired, in the registry that the agent asks.
TRAP-04 proved The inbox never keeps an agent waiting, since agents send to all their partners one after another.
TRAP-05 5 In tests `uagents.asgi.HOST = "127.0.0.1"`.
TRAP-06 5 `uagents_core.logger` is tamed before any `uagents_core.utils.*` import, so no `uagents_core.log` appears
    and logging stays ours.
TRAP-07 5 Python is 3.13 at most, for the sake of `pydantic.v1`.
TRAP-08 5 Test agents have a virtual environment to themselves.
TRAP-09 5 `agentverse-client` is for tests and nothing else.
TRAP-10 5 `agentverse-sdk[a2a]` wants `a2a-sdk[http-server]` beside it and starlette < 1.
[agents §11]
A2A-01 proved The card at `GET {base}/.well-known/agent-card.json` is how an agent is found: name, description, skills,
    `capabilities.streaming`, `supportedInterfaces[{url, protocolBinding, protocolVersion}]`.
A2A-02 proved The index entry is the card: name, description, and the skills for a README.
A2A-03 proved A call is `create_client(...)` and `send_message(SendMessageRequest(message=Message(...)))`, iterated.
A2A-04 proved `task`, `status_update`, `artifact_update` (with append) and `message` are the events.
A2A-05 proved COMPLETED, FAILED, CANCELED and REJECTED are final; INPUT_REQUIRED and AUTH_REQUIRED wait for the user
    under the same task_id.
A2A-06 proved `get_task`, `cancel_task` and `subscribe` serve long work; `AuthInterceptor` carries credentials.
A2A-07 proved Both a streamed answer (task, working, artifacts, completed) and a single `task` with all parts are
    understood.
A2A-08 proved Wire 1.0 (`SendMessage`, `SendStreamingMessage`, `A2A-Version: 1.0`, `{"text":...}`,
    `TASK_STATE_COMPLETED`) and wire 0.3 (`message/send`, `{"kind":"text",...}`, `completed`) are told apart.
A2A-09 proved Agents of 0.3 alone are called as well, and our A2A server has `enable_v0_3_compat=True`.
[agents §12]
MCP-01 proved An MCP server is used by `Client("http://host/mcp", read_timeout_seconds=20)`, `list_tools()` and
    `call_tool(name, args)`, or over stdio.
MCP-02 proved 2026-07-28 (`mode="auto"`) and 2025-11-25 (`mode="legacy"`) are both spoken.
MCP-03 proved One call has one complete result: `content[]`, `structured_content`, `is_error`.
MCP-04 proved The index entry is name, instructions and list of tools.
MCP-05 proved Our MCP server is an `MCPServer("name")` with `@s.tool()`, run as streamable HTTP or ASGI app.
MCP-06 5 The code uses the names of 2.x (`mcp.server.mcpserver.MCPServer`, `streamable_http_client`, snake_case).
MCP-07 5 `https://mcp.agentverse.ai/sse` and `https://mcp-lite.agentverse.ai/mcp` can be configured like any agent.
[agents §13]
HOSTED-01 proved With `https://agentverse.ai` search and resolving are the same.
HOSTED-02 proved Answers from there reach a public HTTPS inbox registered by attestation, or a mailbox.
HOSTED-03 proved Time limits allow for hosted agents: 5 to 15 s as a rule, 30 to 60 s advised, 60 to 90 s for pictures.
HOSTED-04 proved The server announces itself each hour, with one identity for the hosted registry and another for its
    own.
HOSTED-05 proved There are no more than about 60 to 120 calls a minute.
HOSTED-06 proved Agents that have this server as LLM (`ChatAgent` by `ASI1_BASE_URL`, `MCPServerAdapter` by
    `asi1_base_url`) are served, tool result round included.
[agents §14]
REG-23 proved The unmodified packages work with every row of the smallest registry's table.
REG-24 proved `av --av http://host:port agent <address> --all` and `av ... resolve <address>` report "Chat protocol
    supported", "Readme present", "reachable".
LIB-01 5 `uagents-core`, `a2a-sdk` and `mcp` install side by side without conflict.
"""

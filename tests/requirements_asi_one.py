"""The rows of the requirement manifest for the page `asi-one`: the ASI:One-compatible API.

Only the table is here; its form and the lookup are in requirements.py.
"""

from __future__ import annotations

from typing import Final

ROWS: Final = """\
[asi-one §1]
API-01 proved `POST /v1/chat/completions` is the central operation and speaks JSON in both directions.
API-02 proved Pointing an existing OpenAI client library at this base URL is all it takes: the format is that of Chat
    Completions.
API-03 5 Agentic models, which reach marketplace agents, are called through that same endpoint.
API-04 proved Text-to-image lives at `POST /v1/image/generate` (singular), beside OpenAI's own image path.
API-05 proved `GET /v1/models` and `GET /v1/models/{id}` reply in OpenAI's form, because clients test health and keys
    with them.
API-06 proved `POST /v1/audio/speech` (`model` `tts-1`, `input` of at most 4096 characters, `voice`, `speed`) and `POST
    /v1/audio/transcriptions` (multipart `file`, `model=whisper-1`, `language`, `response_format=json`, read as
    `text`) either work or fail with an OpenAI error.
API-07 proved An OpenAPI description of the server is published by the server.
DOCS-01 proved The docs offer `/llms.txt` and `/llms-full.txt` at the root, an index at any page URL + `/llms.txt`, and
    each page's source at its URL + `.md`.
DOCS-02 proved There are pages on OpenAI compatibility, every parameter, a quickstart, agentic models and the
    marketplace, tool calling, and choosing a model.
DOCS-03 proved The shape of requests and responses is shown with the Python and the JavaScript SDK.
[asi-one §2]
HDR-01 proved The key arrives in the required header `Authorization`, after the word `Bearer`.
HDR-02 proved Upper and lower case make no difference in the scheme word, so `bearer` is fine.
HDR-03 proved A request body is declared as `Content-Type: application/json`.
HDR-04 proved `x-session-id` is an optional string of the client's choice that ties agentic requests into one session.
HDR-05 3 `X-Delegated-For` (optional) says for which end user a management key acts; other keys' use of it has no
    effect.
HDR-06 proved The response form does not follow `Accept`: `application/json` may come with `stream: true`.
HDR-07 proved Headers nobody knows, such as `ASI-Organization` or `ASI-Version`, do no harm.
[asi-one §3]
CHAT-01 proved The chat so far is the required list of objects `messages`.
CHAT-02 proved The required string `model` is the name of a model, for instance `asi1`.
CHAT-03 proved A role is `system`, `user`, `assistant` or (tool results) `tool`; `content` may be a string or a list of
    parts.
CHAT-04 proved `temperature` is an optional number from 0 to 2, by default 1.0.
CHAT-05 proved The optional integer `max_tokens` bounds the length of the response; its default belongs to the model.
CHAT-06 proved `max_tokens: 0` is read as not given.
CHAT-07 proved Reasoning that the client does not see is counted among the completion tokens.
CHAT-08 proved The optional boolean `stream`, false by default, turns the one reply into a stream.
CHAT-09 proved `top_p` (optional number) is OpenAI's nucleus sampling.
CHAT-10 proved `frequency_penalty` is optional and lies between -2.0 and 2.0.
CHAT-11 proved `presence_penalty` is optional and lies between -2.0 and 2.0.
CHAT-12 proved The client's own functions come in the optional list of objects `tools`.
CHAT-13 5 The parameters of tool calling are also taken when marketplace agents are in play.
CHAT-14 proved `tool_choice` is `auto` (default), `required`, `none` or `{"type":"function","function":{"name":...}}`.
CHAT-15 proved At most one call is made in a turn with `parallel_tool_calls: false`; otherwise several may be.
CHAT-16 proved Structured output is requested by the optional object `response_format`.
CHAT-17 proved The optional boolean `web_search`, off by default, lets this one request search the live web.
CHAT-18 proved `web_search` is a top-level body field for every model (`extra_body` in Python, a plain property in
    JavaScript) and never a model name.
CHAT-19 5 A request with the optional string `agent_address` is taken.
CHAT-20 proved A request with the optional boolean `planner_mode` (default false) is taken.
CHAT-21 proved A request with the optional boolean `study_mode` (default false) is taken.
CHAT-22 4 `planner_mode: true` makes the turn plan and execute over several agents; `study_mode: true` makes it teach
    like a tutor.
CHAT-23 proved `model`, `messages`, `temperature`, `max_tokens`, `top_p`, `frequency_penalty`, `presence_penalty` and
    `stream` mean precisely what they mean at OpenAI.
CHAT-24 proved No unknown field leads to a rejection, and neither do `stop`, `n`, `seed`, `stream_options`, `fun_mode`,
    `enable_thinking`, `thinking_budget`, `parallel_tool_calls` without `tools`, or `tool_choice: "required"` with
    empty `tools`.
CHAT-25 proved `logprobs`, `top_logprobs`, `n`, `best_of`, `logit_bias`, `suffix` and `echo` have their effect or none,
    but no error.
CHAT-26 proved In user content, `{"type":"text","text":...}` and `{"type":"image_url","image_url":{"url":...}}` parts
    are taken, the picture as web URL or `data:<mime>;base64,...`.
CHAT-27 proved `image_url` as a plain string works too.
CHAT-28 proved An image part for a model without sight is a 400 that says so.
CHAT-29 proved `messages` wrapped in one list too many (`[[...]]`) is unwrapped.
CHAT-30 proved The assistant message of a reply, with its extras and nulls, can be sent back untouched.
[asi-one §4]
CHAT-31 proved Each entry of the list `choices` has `index`, `finish_reason` and one message object.
CHAT-32 proved A message object consists of `role`, `content` and, where there are any, `tool_calls`.
CHAT-33 proved A choice has `message` in a whole reply and `delta` in a stream, never both.
CHAT-34 proved The answer is found at `choices[0].message.content`.
CHAT-35 proved The reply's `id` is a string.
CHAT-36 proved The reply's `model` repeats the name that was asked for.
CHAT-37 proved `usage` gives `prompt_tokens`, `completion_tokens` and `total_tokens`.
CHAT-38 proved The manifests of agents and the tool calls of a turn are the list of objects `executable_data`.
CHAT-39 proved What a reasoning of several steps did is traced in `intermediate_steps`.
CHAT-40 proved The model's reasoning is in `thought`.
CHAT-41 proved `metadata` is an object.
CHAT-42 proved Entries of server-run `tool_calls` have the reference's `id`, `tool_name`, `args`, `result`.
CHAT-43 proved After a plain question the agentic fields are there and empty.
CHAT-44 proved There is one documented inner form for items of `executable_data` and of `intermediate_steps`, which is
    Convene's.
CHAT-45 proved Every item of `executable_data` has a `tool_name`.
CHAT-46 proved The role of a reply is `assistant`.
CHAT-47 proved A whole reply has `object` `chat.completion`, and `created` counts Unix seconds.
CHAT-48 proved Unless there are tool calls, `content` is a string, if need be `""`, and not null.
CHAT-49 proved Without calls the key `tool_calls` is missing rather than empty.
CHAT-50 2 `usage` has room for `completion_tokens_details.reasoning_tokens`, `prompt_tokens_details.cached_tokens` and
    `prompt_cache_miss_tokens`.
[asi-one §5]
STREAM-01 proved A stream is `text/event-stream`: per event one line `data: <json>` (space included) and an empty line,
    and `data: [DONE]` at the end.
STREAM-02 proved No event lacks the list `choices`, though it can be empty.
STREAM-03 proved `delta.content`, where present, is a string and not null.
STREAM-04 proved Streamed reasoning arrives as `delta.reasoning_content`.
STREAM-05 2 On request of an option, reasoning also arrives as top-level `thought` strings on events whose content is
    empty.
STREAM-06 4 The last event that has choices carries the final `executable_data`; the first may carry `[]`.
STREAM-07 proved A call of a client function is streamed in OpenAI's deltas: `index`, `id`, `function.name`, and
    `function.arguments` in pieces.
STREAM-08 proved The text of an agentic turn streams like any other, and a deferred turn streams the deferred sentence
    alone (DEFER-02).
STREAM-09 proved With `stream_options.include_usage` a last event carries `usage`.
STREAM-10 4 SSE comments keep the connection busy for as long as an agent works.
STREAM-11 proved There is content, reasoning or a tool call in every stream that succeeds.
STREAM-12 proved What goes wrong in mid-stream ends it with an event of `choices: []` and an `error` object, not with
    `finish_reason: "stop"`.
[asi-one §6]
ERR-01 proved A bad request, such as one with invalid parameters, gets 400.
ERR-02 proved What is not there, be it a path or a model, gets 404.
ERR-03 proved A fault inside the server gets 500.
ERR-04 proved A missing or wrong key gets 401.
ERR-05 proved Going over a rate limit gets 429.
ERR-06 2 Where parameters are valid and still cannot be processed, 422 is allowed.
ERR-07 proved A refusal by plan or permission gets 403, an oversized body 413, and 503 says that no model is ready.
ERR-08 proved An error body holds an `error` object of `message`, `type`, `param` and a string `code`, and once more
    `message` at the top level.
ERR-09 proved `error.message` may be shown to an end user as it is.
ERR-10 proved The key `error` does not occur in a 200 reply, not even as null.
LIMIT-01 proved Both requests and tokens are rate-limited at the endpoint.
LIMIT-02 proved `Retry-After` on a 429 gives the seconds to wait.
LIMIT-03 proved `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` report the state, and a bare
    `x-ratelimit-reset`, if any, is in seconds.
LIMIT-04 proved The operator sets limits for a key or for a plan.
LIMIT-05 proved The limit on images depends on the plan and is separate; the docs recommend exponential back-off with
    jitter.
LIMIT-06 proved Passing faults are 429, 500, 502 or 503; lasting ones are 400, 401, 403 or 404.
[asi-one §7]
MODEL-01 2 A request names an ASI:One model, and the docs say which suits which use.
MODEL-02 proved Every current and every former model name works, as an alias that can be configured.
MODEL-03 proved The guide's advice: `asi1-mini` if latency is critical, `asi1-ultra` for long agentic or research work,
    else `asi1`.
MODEL-04 2 One key and one API serve all models, each with streaming, OpenAI SDKs, tool calling and Responses.
MODEL-05 proved The context and output limits in `/v1/models` are those of the engine in use.
MODEL-06 proved `asi1-preview`, `asi1-turbo`, `asi1-pro`, `asi1-large` and `asi1-thinking` are unknown names.
MODEL-07 5 An agent's address or handle given as `model` is a 404, except where the operator allows it.
MODEL-08 proved For each model the operator can cap the tool calls of one turn.
KEY-01 proved A user can get an account and make a key.
KEY-02 proved A key has a name, appears in full only once, and is revoked by deletion.
KEY-03 2 Any opaque text can be a key, `sk_` + 64 hex digits and `sk-...` included.
KEY-04 proved Keys can be tied to plans whose limits differ.
USAGE-01 proved No request goes by without its usage being recorded.
USAGE-02 proved The operator can read recorded usage through an endpoint.
[asi-one §8]
AGENTIC-01 proved An agentic model can look for agents in the marketplace and let them contribute to the reply.
AGENTIC-02 proved Plain language and `x-session-id` suffice: no tools to define, no agents to list.
AGENTIC-03 proved Whether agents help is the model's decision, and `asi1` may decide so by default.
AGENTIC-04 5 A turn passes through objectives, a marketplace query (vectors and filters), ranking by fitness, cost and
    safety, an ordered plan with argument schemas, and execution that watches and adapts the plan.
AGENTIC-05 proved Agents are asked by the Agent Chat Protocol; what they answer in time goes into the reply (a picture
    as URL), what comes late is deferred.
AGENTIC-06 proved An agent is waited for 60 s by default, and up to 240 s from when it has begun to reply.
AGENTIC-07 proved A whole agentic reply, deferred or not, comes well before 90 s, and a stream is never silent for 90 s.
AGENTIC-08 proved `@agent1q...`, `@handle` or "the agent at address agent1q..." in the text reaches that agent directly.
AGENTIC-09 proved A leading `@agent1q...` may stay on text passed on to an agent.
AGENTIC-10 5 Search for agents, what ranks them and the feedback on success are those of the agents page.
AGENTIC-11 proved Agents that took part are listed in `executable_data`, what happened in `intermediate_steps`.
AGENTIC-12 5 An agent can use this API as its own LLM; protocol messages do not occur in chat completions.
DEFER-01 proved With a session id, a late agent leads to a 200 at once while the work continues in the background.
DEFER-02 proved The whole content of a deferred reply is `I've sent the message`, with an ASCII apostrophe, no full
    stop, and nothing around it.
DEFER-03 proved Each poll before the work is done gets that same sentence and no other text.
DEFER-04 proved A poll is a whole (not streamed) request ending in the user text `Any update?`, and neither it nor its
    answer enters the history.
DEFER-05 proved The API key and `x-session-id` alone find the outstanding work.
DEFER-06 proved Polling starts nothing anew, asks no model, and is answered far below 90 s.
DEFER-07 proved The result goes to the first poll after the end and, for a while, to each identical one.
DEFER-08 proved If the agent fails, the poll gets a 200 whose text explains it: no HTTP error, no waiting sentence.
DEFER-09 proved With no work outstanding, `Any update?` is a message like any other.
DEFER-10 proved A streamed first turn can be deferred, and polls can be streamed.
DEFER-11 proved Outstanding work survives both the client's 2 minutes (at least 240 s) and a restart of the server.
SESSION-01 proved Requests with the same `x-session-id`, which may be any random string, share a lasting session.
SESSION-02 proved The context and what agents did are kept in the session.
SESSION-03 proved Text that the client resends is not added to what the session already holds.
SESSION-04 proved A session id counts only within its API key and proves nothing: equal ids of different keys never
    meet.
SESSION-05 proved A request without the header is never deferred; the agent is awaited or left out.
SESSION-06 proved How long a session lives and how big it grows is configurable.
SESSION-07 proved The docs advise one UUID per conversation, a stored mapping (Redis or database), and for LangChain a
    default header.
[asi-one §9]
TOOLS-01 proved An application can give the model its own functions by tool calling.
TOOLS-02 proved The form of a tool is `{type:"function", function:{name, description, parameters, strict?}}`, with a
    JSON Schema and a name in underscores or camelCase without spaces.
TOOLS-03 2 `strict: true` has its effect, and the docs pair it with `additionalProperties: false`, all of `properties`
    in `required` and `["string","null"]` for optional ones.
TOOLS-04 proved A turn that calls ends in `finish_reason: "tool_calls"`, its `tool_calls` in OpenAI's form with
    `arguments` as JSON text.
TOOLS-05 proved Text and calls can stand in one assistant message.
TOOLS-06 proved The follow-up has the assistant message unchanged, then for each call one `tool` message with its id and
    JSON text, which may report an error (`{"error":"Tool execution failed: ...","status":"failed"}`).
TOOLS-07 proved User, assistant with calls, tool results: another order is an error.
TOOLS-08 proved The follow-up is answered with text although it has no `tools`.
TOOLS-09 2 When calls are parallel, strict mode may be relaxed for them.
TOOLS-10 proved Calls that the server itself ran (`{id, tool_name, args, result}`) are not left to the client; DEC-01
    says where they appear.
TOOLS-11 proved Given tools, `tool_choice: "required"` produces a call each time, through 15 rounds with a forced
    `finish` tool.
TOOLS-12 proved `content` is free of raw markup such as `<tool_call>...</tool_call>` or `<arg_value>`.
[asi-one §10]
STRUCT-01 proved For `response_format: {"type":"json_schema","json_schema":{"name":...,"strict":true,"schema":{...}}}`
    the `message.content` is JSON text that the schema accepts.
STRUCT-02 proved A schema may nest objects and arrays and use `minItems`, `minimum`, `enum`, `anyOf` with null and
    `additionalProperties: false`.
STRUCT-03 2 The docs advise strict schemas, `additionalProperties: false`, required and described properties, asking
    for JSON in the system prompt, and validating on one's own.
STRUCT-04 2 LangChain's `with_structured_output` succeeds from Python and JavaScript, by strict `json_schema` or by
    function calling.
STRUCT-05 proved `{"type":"json_object"}` is answered by JSON with no code fence around it.
STRUCT-06 proved A cut-off is told by `finish_reason: "length"`; a schema keyword out of reach is a 400 with its name.
[asi-one §11]
IMAGE-01 proved A text becomes a picture through the API.
IMAGE-02 proved `prompt` is a required string; `size` is `1024x1024` and `model` `asi1-mini` unless given.
IMAGE-03 proved 1024x1024, 1792x1024 and 1024x1792 are sizes.
IMAGE-04 proved So are 256x256, 512x512, 1024x1536, 1536x1024 and `auto`.
IMAGE-05 proved An empty size is `auto`, and any size not listed (2048x512, say) is a 400.
IMAGE-06 proved A request may also have the field `n`.
IMAGE-07 proved The reply has `status`, `message`, `created` in milliseconds, and `images[].url` as a data URL.
IMAGE-08 proved The same reply has `data[].b64_json`, and can have `id` and `revised_prompt`.
IMAGE-09 proved `image_url` or `url` at the top level is there only when the picture is in it.
IMAGE-10 proved A failure is 400, 401, 404 or 500, with type `invalid_request_error` and a string `code`.
IMAGE-11 proved Whoever wants several pictures sends several requests at once.
IMAGE-12 proved A picture wanted in a chat can come from an agent, as a URL in the text.
[asi-one §12]
RESP-01 7 All three current models answer at `POST /v1/responses`.
RESP-02 7 Codex works with `base_url = <server>/v1`, `wire_api = "responses"`, a key from an auth command, `web_search
    = "disabled"` and `model_context_window` 196000 for `asi1-ultra`.
RESP-03 7 The request Codex sends is taken: streaming, an `input` list, `instructions`, flat function tools,
    `tool_choice`, `parallel_tool_calls`, `reasoning`, `store: false`, `include`, `prompt_cache_key`.
RESP-04 7 The typed events lead up to `response.completed` with its `usage`.
RESP-05 7 A hosted tool type other than `function` has no effect or gets a clear 400.
RESP-06 7 OpenAI's specification rules the rest, and what is missing (`previous_response_id`, `store`, retrieval,
    deletion) fails with a clear word.
[asi-one §13]
SDK-01 2 The documented Python program runs once `openai` is installed.
SDK-02 2 The documented JavaScript program runs with the npm package `openai`.
SDK-03 2 `choices[0].message.content`, `model`, `usage`, `executable_data`, `intermediate_steps` and `thought` can be
    read with either SDK.
[asi-one §14]
ENV-01 5 `ASI1_BASE_URL` (the base with `/v1`) leads uAgents' ChatAgent here.
ENV-02 5 uAgents takes its key from `ASI1_API_KEY`.
ENV-03 proved `ASI_ONE_API_KEY` is the key's name in the docs' samples and most code.
ENV-04 2 LlamaIndex and LangChain take the key from `ASI_API_KEY`.
ENV-05 2 `ASIONE_API_KEY` and `ASI_LLM_KEY` are further names of the key in public code.
ENV-06 proved `ASI_ONE_BASE_URL` is another name of the base URL.
ENV-07 2 `LLM_API_ENDPOINT`, `LLM_API_KEY` and `LLM_MODEL` steer the structured-data sample.
ENV-08 5 The uAgents MCP adapter has the constructor argument `asi1_base_url`.
ENV-09 5 The A2A outbound adapter's `base_url` is the full `.../chat/completions` URL.
ENV-10 2 An editor extension has the setting `asiAssistant.baseUrl`.
ENV-11 5 Setting the name of any row to this server changes nothing else for that row's client.
[asi-one §15]
CLIENT-01 proved OpenAI SDKs send `web_search` as extra body or property and `x-session-id`, and read content, `usage`
    and the extras as attributes.
CLIENT-02 5 The official agentic script works: only `data: ` lines up to `[DONE]`, events without `choices` skipped,
    content always a string, then its polling.
CLIENT-03 proved The official tool samples work, which loop over `message.get("tool_calls", [])` and echo the message
    verbatim.
CLIENT-04 proved uAgents' ChatAgent through LiteLLM (`openai/<model>`) works: `tool_choice:"required"`,
    `parallel_tool_calls:false`, temperature 0.0, max_tokens 1024, whole, then a follow-up with tool messages and no
    `tools`.
CLIENT-05 proved The uAgents MCP adapter works: `tool_choice:"required"`, temperature 0.7, max_tokens 1024, follow-up
    without tools; it looks for `choices`, not at the status.
CLIENT-06 proved The A2A outbound adapter, posting plain chat for `asi1-mini` to the full URL, works.
CLIENT-07 2 `llama-index-llms-asi`, which drops chunks with empty content, works.
CLIENT-08 2 LangChain's `ChatOpenAI`, strict about `tool_calls`, works with the session as a default header.
CLIENT-09 2 `langchain-asi` works: it sends `n`, stop and tools, wants no `error` key in a 200, and keeps `thought`.
CLIENT-10 2 The Fetch Coder extension works: stream with `include_usage`, tools, `web_search:true`; it reads
    `delta.reasoning_content`, tool deltas and `cached_tokens`.
CLIENT-11 proved The `asi1_chat.py` skill works: `usage` is an object in whole replies and a 400 has a nested
    `error.message`.
CLIENT-12 proved Clients that send top_p, penalties and `web_search:false` and call `.strip()` on the content work.
CLIENT-13 5 A client with a 30 s limit gets an account action (create a Google Sheet) done in a single call.
CLIENT-14 proved A client that sends pictures as data-URL parts works.
CLIENT-15 5 An agentic client finds `executable_data` as a list whose items have `tool_name`.
COMPAT-01 proved A whole reply always has an object as `usage`.
COMPAT-02 proved By default no `tool_calls` item consists of `{id,tool_name,args,result}` alone.
COMPAT-03 2 With LiteLLM the server is `openai/<model>`.
[asi-one §16]
DEC-01 proved Client calls are pure OpenAI; server-run tools are in `executable_data` and an own field, and in
    `tool_calls`
    only without request `tools`, as dual-shaped objects with finish_reason `stop`; a switch gives the bare shape.
DEC-02 proved Streams have `delta`, whole replies `message`.
DEC-03 4 `x-session-id` stays optional, serves session and traces, and is no ground for refusal.
DEC-04 5 `agent_address` is noted as the caller's metadata; it routes only by the operator's leave, or if the message
    itself says `@agent1...`.
DEC-05 proved All model names are aliases, the requested one is echoed, and published limits are real.
DEC-06 2 The old remark that only `asi1-mini` exists has no effect.
DEC-07 proved `created` is in seconds for chat and Responses, in milliseconds around images.
DEC-08 proved An id is any unique string.
DEC-09 2 Reasoning is `delta.reasoning_content` in a stream and `message.reasoning_content` plus top-level `thought:
    [...]` in a whole reply, with streamed `thought` as an option.
DEC-10 proved One error body unites the flat and the nested form, with a string `code`.
DEC-11 2 The statuses of failure are 400, 401, 403, 404, 413, (422), 429 + `Retry-After`, 500 and 503; an error never
    comes as 200.
DEC-12 3 Rate-limit headers have OpenAI's names, plus `retry-after`.
DEC-13 proved An image reply holds `images[0].url` and `data[0].b64_json`, of which the operator may drop one.
DEC-14 proved One extra level around `messages` is taken off; more is a 400 with the path.
DEC-15 proved `max_tokens` 0 is unset and a negative one is a 400.
DEC-16 proved Temperature and its like are optional.
DEC-17 2 Every model takes tools.
DEC-18 proved `web_search` is taken everywhere; where no search is set up the answer comes nonetheless and `metadata`
    tells it.
DEC-19 7 The Responses API is as RESP-01 to RESP-06 have it.
DEC-20 proved Tool traffic uses `tool_calls` and role `tool`, not `tool_use` or `tool_result`.
DEC-21 proved A finish_reason `tool_calls` without calls, or fences around a json_object, do not occur.
"""

"""The rows of the requirement manifest for the page `openai-conventions`: OpenAI's wire shapes and server habits.

Only the table is here; its form and the lookup are in requirements.py.
"""

from __future__ import annotations

from typing import Final

ROWS: Final = """\
[openai-conventions §1.2]
OAI-01 proved A body key nobody knows (`ignore_eos`, `top_k`, anything from `extra_body`) passes, has no effect, and
    leaves one debug log line.
OAI-02 proved Known are audio, frequency_penalty, function_call, functions, logit_bias, logprobs, max_completion_tokens,
    max_tokens, messages, metadata, modalities, model, moderation, n, parallel_tool_calls, prediction,
    presence_penalty, prompt_cache_key, prompt_cache_options, prompt_cache_retention, reasoning_effort,
    response_format, safety_identifier, seed, service_tier, stop, store, stream, stream_options, temperature,
    tool_choice, tools, top_logprobs, top_p, user, verbosity, web_search_options.
OAI-03 proved A body holding all of them at mild values (`max_tokens: 0`, `stream_options` with `stream: false`,
    `function_call:"none"`, `logit_bias: {"foo": 0}`, `seed: -9007199254740991` ...) is answered whole and streamed.
OAI-04 proved `stop`, `n`, `seed`, `logprobs`, `logit_bias` or another modality, when it would change the answer, takes
    effect or is a 400 `unsupported_parameter` that names it; null, `n: 1`, zero biases, cache and tier hints always
    pass.
OAI-05 proved Of the two limits `max_completion_tokens` beats `max_tokens`; 0 and null are no limit.
OAI-06 proved Asking for more tokens than the window has left is cut down, not refused.
OAI-07 proved The roles are `system`, its equal `developer`, `user`, `assistant`, `tool` and old `function`.
OAI-08 proved An assistant's `content` can be null, `""`, absent or a list, calls or no calls.
OAI-09 proved User content may have `text`, `image_url`, `input_audio` and `file` parts, and a tool message may be a
    list as well.
OAI-10 proved Every message may have a `name`.
OAI-11 proved `refusal`, `annotations`, `reasoning`, `reasoning_content` and nulls that come back in assistant messages
    pass, used or not.
OAI-12 proved `tool_choice` knows none, auto, required, `{type:"function",function:{name}}`,
    `{type:"allowed_tools",...}` and `{type:"custom",...}`.
OAI-13 proved Required or named `tool_choice` beside missing or empty `tools` is treated as none and leaves a warning
    (header or log).
OAI-14 proved A tool may lack `parameters`, have empty `properties` or `description: null`, and `strict` in any state.
OAI-15 proved One call of the named function and no other follows from a named `tool_choice` with `parallel_tool_calls:
    false`.
OAI-16 proved `response_format` (text, json_object, json_schema `{name, schema, strict?}`) is enforced while decoding;
    schemas may use `$schema`, `$defs`, `$ref`, `title`, `anyOf`, type arrays, enums, and "" within enums.
OAI-17 proved There is no code fence around JSON output; a schema out of reach is a 400 with `param: "response_format"`.
OAI-18 proved `stop` (a string, or as many as 4) ends the output and is not in it.
OAI-19 proved A larger `n` yields choices 0 to n-1, streamed or not.
OAI-20 proved With `seed` the reply has `system_fingerprint`; `logit_bias` is given as a map.
OAI-21 proved `logprobs` with `top_logprobs` from 0 to 20 lists token, logprob and bytes, and its tokens joined are the
    text.
OAI-22 proved `reasoning_effort` may be none, minimal, low, medium, high, xhigh or max, and `verbosity` passes.
OAI-23 proved `service_tier` may be auto, default, flex, scale, priority or fast; the reply says which it was.
OAI-24 proved `web_search_options`, empty or with `user_location` and `search_context_size` low|medium|high, means the
    same as `web_search: true`.
OAI-25 proved `store` and `metadata` pass without storage; the paths of stored completions (list, GET, POST, DELETE
    `/chat/completions/{id}`, `/messages`) work or give the usual error.
OAI-26 proved At the chat path, a body with `input` instead of `messages` is understood as Responses and answered as
    chat.
OAI-27 proved Only `stream`, never `Accept`, decides between stream and whole.
OAI-28 proved A valid request survives a missing or strange content type, gzip, and `Expect: 100-continue`.
OAI-29 proved The 413 for an oversized body states the limit.
OAI-30 proved A wrong type or an absent key is a 400 and never a 500; a `model` that is no string is not repeated.
OAI-31 proved `/v1` may be left out and slashes may be doubled on any path.
OAI-32 proved GET or HEAD of `/` and `/v1` is a 200 that points to the docs.
OAI-33 4 The little title requests of chat interfaces go a fast way and start no agent.
OAI-34 4 `X-Session-Id` can be any string of up to 256 characters and counts within its API key.
OAI-35 proved If the client goes away, generation and agent work stop, and what was used is counted.
OAI-40 proved A whole reply has `id, object, created, model, choices[{index, message{role, content, refusal},
    finish_reason, logprobs}]`, where `refusal` and `logprobs` are always there, if only as null.
OAI-41 proved `finish_reason` is stop, length, tool_calls, content_filter or function_call, and "stop" is not said for
    "length".
OAI-42 proved The three totals of `usage` are there after tool calls and cancelled streams too, and reasoning is in
    `completion_tokens_details.reasoning_tokens`.
OAI-43 proved A cut-off is `length`, a filter is `content_filter`, and a refusal stands in `refusal`.
OAI-44 proved Citations are `message.annotations: [{type:"url_citation",
    url_citation:{url,title,start_index,end_index}}]`, or a delta of `annotations`; the indexes fit the final text.
OAI-45 proved The text itself shows citations as numbered links.
OAI-46 proved Both `reasoning_content` and `reasoning` carry reasoning, whole and streamed.
OAI-47 2 The reply of a reasoning model does contain its reasoning; in Responses as an item.
OAI-48 proved No `<think>` is left in `content`.
OAI-49 proved The docs mention that LangChain shows reasoning through Responses alone.
OAI-50 proved `model` in the reply is the requested name, and the docs say so.
OAI-60 proved `GET /v1/models` is a quick `{"object":"list","data":[{id,object:"model",created,owned_by}]}`, to which
    keys such as `name` may be added.
OAI-61 proved `GET /v1/models/{id}` copes with `/` and `:` in ids; an unknown one is 404 `model_not_found`.
OAI-62 proved Names that programs have built in (`gpt-6-astra`, `text-embedding-3-small`, `gpt-4.1-mini-2025-04-14-FC`)
    can be made aliases.
OAI-63 proved Embeddings are floats or base64 of little-endian float32; `dimensions` and token arrays as input are fine.
[openai-conventions §1.3]
SSE-01 proved A stream has `content-type: text/event-stream; charset=utf-8`, `cache-control: no-cache`,
    `x-accel-buffering: no`, and is not compressed.
SSE-02 proved One write per event, no event over two writes.
SSE-03 proved An event is a single `data: ` line, space included, followed by an empty one.
SSE-04 proved `id, object, created, model` and the array `choices` are in all chunks; `id` and `created` do not change.
SSE-05 proved `role: "assistant"` is in the first delta.
SSE-06 proved A `delta` is an object every time.
SSE-07 proved No tool delta is without its integer `index`.
SSE-08 proved `id`, `type` and `name` of a call come once; later deltas do not have the keys, not even as null.
SSE-09 proved `arguments` come as pieces of a string.
SSE-10 proved `finish_reason: "tool_calls"` ends a turn that calls the client's tools.
SSE-11 proved Where `finish_reason` is, content is not.
SSE-12 proved Under `include_usage` the last chunk before `[DONE]` has the usage and `choices: []`; the others say
    `usage: null`.
SSE-13 proved Not asked, no usage chunk comes; `continuous_usage_stats` passes.
SSE-14 proved `data: [DONE]` is the end of a good stream, in which at least one choice occurred.
SSE-15 proved After the first byte an error is `data: {"error":{...}}` and then the end.
SSE-16 proved A stream that fails says so before it closes.
SSE-17 4 During agent or tool work an SSE comment is sent each 10 to 15 s, and no made-up content.
SSE-18 4 Progress is a comment or an extra key on a valid chunk, and not a named JSON event.
SSE-19 proved `include_obfuscation` passes and changes nothing.
[openai-conventions §1.4]
ERRSHAPE-01 proved `{"error":{"message","type","param","code"}}` is the form of an error; none of the four is missing,
    the last two may be null.
ERRSHAPE-02 proved Validation, 404, 405 (with `Allow`), 413, 415 and 500 have it as well; a framework's
    `{"detail":[...]}`, text or HTML is never seen.
ERRSHAPE-03 proved The status for bad input is 400 rather than 422.
ERRSHAPE-04 proved `type` is one of invalid_request_error, authentication_error, permission_error, not_found_error,
    rate_limit_error, insufficient_quota, server_error.
ERRSHAPE-05 proved `code` is in OpenAI's vocabulary: model_not_found, invalid_api_key, context_length_exceeded,
    rate_limit_exceeded, insufficient_quota, missing_required_parameter, unsupported_parameter,
    previous_response_not_found, unknown_url.
ERRSHAPE-06 proved The field at fault is in `param`.
ERRSHAPE-07 proved The docs translate our types into Open Responses' server_error, invalid_request, not_found,
    model_error, too_many_requests.
ERRSHAPE-08 proved The SDK raises the class meant: 400 BadRequest, 401 Authentication, 403 PermissionDenied, 404
    NotFound, 409 Conflict, 422 UnprocessableEntity, 429 RateLimit, from 500 InternalServer, otherwise APIStatusError.
[openai-conventions §1.5]
OSDK-01 proved Statuses respect the SDK's habit: 3 tries (0.5 s, doubling to 8 s) on connection errors, 408, 409, 429
    and from 500, none again on 400, 401, 403, 404, 422, 425.
OSDK-02 proved A limit is a 429 whose `retry-after` is true and small.
OSDK-03 proved When a quota is used up, `x-should-retry: false` is sent.
OSDK-04 proved A fault that stays is never 409 or 5xx.
OSDK-05 proved `retry-after-ms` and `retry-after` do not disagree.
OSDK-06 proved `Idempotency-Key` is an addition of ours; `x-stainless-retry-count` separates first tries from repeats.
OSDK-07 proved All answers, errors and streams included, have `x-request-id`; a sane one from the client is kept, and
    logs, traces and error text show it.
OSDK-08 2 `openai-processing-ms` and `openai-version: 2020-10-01` may be sent.
OSDK-09 proved Successes too carry `x-ratelimit-limit/remaining/reset-requests` and `-tokens`, with resets as durations
    (`60ms`, `6m0s`).
OSDK-10 proved `OpenAI-Organization`, `OpenAI-Project`, `x-stainless-*` and strange headers pass, up to 64 KiB of
    headers.
OSDK-11 proved `X-OpenWebUI-User-*` headers pass and give no rights.
OSDK-12 4 Within 60 s of a long run, bytes have been sent.
OSDK-13 proved A CORS preflight admits authorization, content-type, x-session-id and echoed x-stainless-*; x-request-id
    and x-ratelimit-* are exposed.
OSDK-14 2 openai 2 and 3 (Python), 6 and 7 (Node), zod 3 and 4: everything holds for each.
[openai-conventions §1.6]
ORESP-01 7 Events run `created`, (`queued`,) `in_progress`, for each item `output_item.added`, `content_part.added`,
    `output_text.delta` repeated, `output_text.done`, `content_part.done`, `output_item.done`, and one terminal event.
ORESP-02 7 What is added starts empty: `[]` or `""`.
ORESP-03 7 Each part and item is closed by a `.done`, the item's with the item in full.
ORESP-04 7 A function call streams by `function_call_arguments.delta` and a `.done` that has the `name`.
ORESP-05 7 Reasoning streams by `content_part.added` and `reasoning_text.delta/.done`, or by
    `reasoning_summary_part.added`, `reasoning_summary_text.delta/.done`, `reasoning_summary_part.done`.
ORESP-06 7 Hosted tools show as `web_search_call.in_progress/searching/completed`, `mcp_call.*`, `mcp_list_tools.*`,
    `file_search_call.*`, `code_interpreter_call*`, `image_generation_call.*`, `shell_call*`,
    `custom_tool_call_input.*`, `output_text.annotation.added`, `refusal.*`.
ORESP-07 7 `type` and a `sequence_number` from 0 upward are in each event.
ORESP-08 7 `event:` repeats `type`, `id:` is absent, and `data: [DONE]` ends the stream.
ORESP-09 7 One event of `completed`, `incomplete`, `failed` is the last, with the final response and its `usage`.
ORESP-10 7 A cut-off is `incomplete`, and the docs warn that the Python wrapper raises on it.
ORESP-11 7 First `{type:"error", sequence_number, code, message, param, error:{type,code,message,param}}`, then
    `failed`.
ORESP-12 7 No event type of our own is sent to a caller who did not ask for it.
ORESP-13 7 Work of agents is an item with normal added and done events: `mcp_call`, `web_search_call`, or one under
    our slug like `convene:agent_call`.
ORESP-20 7 None of these keys is missing from a response object: id, object, created_at, completed_at, status,
    incomplete_details, model, previous_response_id, instructions, output, error, tools, tool_choice, truncation,
    parallel_tool_calls, text, top_p, presence_penalty, frequency_penalty, top_logprobs, temperature, reasoning,
    usage, max_output_tokens, max_tool_calls, store, background, service_tier, metadata, safety_identifier,
    prompt_cache_key.
ORESP-21 7 Further it has `usage.input_tokens_details.cache_write_tokens`, `output_text.annotations`, and `logprobs:
    []` on text delta and done.
ORESP-22 7 `previous_response_id` brings back earlier input and output; if unknown, 400 `previous_response_not_found`.
ORESP-23 7 `store: false` does not prevent the answer.
ORESP-24 7 Nothing outside `allowed_tools` is called.
ORESP-25 7 Under `truncation: "disabled"` too long an input fails and is not cut.
ORESP-26 7 `/responses` has POST, GET (`include`, `stream`, `starting_after`, `include_obfuscation`), DELETE,
    `/cancel`, `/input_items` (`limit`, `order`, `after`, `include`), `/input_tokens`, `/compact`; conversations and
    their items are resources apart.
ORESP-27 7 A GET with `stream` and `starting_after` picks a stream up behind that sequence number.
ORESP-28 7 An input item with `role` and no `type` is a message.
ORESP-29 7 Tool types not run here (`namespace`, `custom`, `tool_search`, `web_search`) are passed over or on; only a
    `tool_choice` that forces one is a 400.
ORESP-30 7 `include: ["reasoning.encrypted_content"]`, `prompt_cache_key` and `client_metadata` pass;
    `encrypted_content` can be null.
ORESP-31 7 `developer` and `user` messages before the rest, beside `instructions`, and tools with `description: null`
    or `strict: false`, pass.
ORESP-32 7 `function_call` and `function_call_output` items make the round trip, with resent history or
    `previous_response_id`.
ORESP-33 7 `input_text`, `input_image` and `input_file` are input.
ORESP-34 7 `phase: commentary|final_answer` on assistant messages passes, also as input.
ORESP-35 7 WebSocket may be spoken at that path, authorised by the upgrade: `{"type":"response.create",...}`, one
    response at a time, memory of the connection for `store: false`, a failed continuation forgets the id, errors
    `{type:"error",status,error:{code,message,param}}`, and `websocket_connection_limit_reached` after 60 minutes.
[openai-conventions §1.7]
OPS-01 proved No key is needed for `/health`, `/livez` and `/readyz`, and no model is called.
OPS-02 proved `/readyz` fails while a model loads and is 503 in shutdown; `?verbose` gives reasons.
OPS-03 proved After SIGTERM new work is refused, streams are finished, and within 30 s it is over.
OPS-10 proved `GET /metrics` is Prometheus text: all names under `convene_`, base units, `_total`, `_seconds`, no label
    per user.
OPS-11 proved There are requests_total{route,model,status}, requests_in_flight, queue_depth,
    time_to_first_token_seconds, inter_token_seconds, request_duration_seconds, tokens_total{kind},
    tool_calls_total{tool,status}, agent_calls_total and build_info.
OPS-12 proved The docs match them with `vllm:` num_requests_running, num_requests_waiting, kv_cache_usage_perc,
    prompt_tokens_total, generation_tokens_total, time_to_first_token_seconds, e2e_request_latency_seconds,
    request_success_total{finished_reason}.
OPS-13 7 OpenTelemetry must be switched on; spans are called `{operation} {model}` (`chat asi1`), `invoke_agent
    {name}`, `execute_tool {name}`.
OPS-14 7 Span attributes, after gen_ai.: operation.name, provider.name, request.model,
    response.model/id/finish_reasons, usage.input_tokens/output_tokens, conversation.id, tool.name, tool.call.id,
    agent.name/id.
OPS-15 7 Metric names, after gen_ai.: server.request.duration, server.time_to_first_token,
    server.time_per_output_token, client.operation.duration, client.token.usage, client.time_to_first_chunk,
    invoke_agent.duration/inference_calls/tool_calls, execute_tool.duration.
OPS-16 7 Only by opt-in is message content exported; W3C `traceparent` comes in and goes on;
    `OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental` works.
OPS-17 proved A log line is JSON with ts, level, event, request_id, trace_id, key id (not the key), model, status,
    ttft_ms, duration_ms, tokens; prompts only by opt-in, kept for a set time.
OPS-20 proved `/docs`, `/openapi.json` and `/llms.txt` (H1, blockquote, H2 lists of links) are there, pages also under
    `.md`.
OPS-21 proved Settings to copy are in the docs for OpenAI SDKs, LangChain, AI SDK, Codex (`wire_api = "responses"`),
    OpenCode (`@ai-sdk/openai-compatible`) and Open WebUI.
OPS-22 proved One TOML or YAML file configures all, each key has an environment variable under one prefix, flag beats
    env beats file beats default, and `.env` is read.
OPS-23 proved A secret can be given as a file (`*_FILE`), and commands that show configuration mask it.
OPS-24 proved `ASI_ONE_API_KEY`, `ASI_API_KEY`, `ASI1_API_KEY`, `ASI_LLM_KEY`, `ASI_ONE_BASE_URL`, `ASI_BASE_URL`,
    `OPENAI_API_KEY` and `OPENAI_BASE_URL` are understood.
OPS-25 2 The CLI has serve, models list/pull/rm, keys create/list/revoke, chat, doctor, migrate, config, bench,
    version, completion.
OPS-26 proved Stdout is for data and stderr for talk; lists know `--json`; `--no-color` and `NO_COLOR` act; progress
    bars need a TTY; exit codes are 0/1/2; the tool prints its shell completion; `help <verb>` works.
OPS-27 proved A model download continues where it stopped, verifies sums and disk space, can be forbidden (offline), and
    reports JSON lines `{status,digest,total,completed}`.
OPS-28 proved It can run offline, and it phones nobody.
OPS-30 7 Packages: `pip install`, a small multi-arch non-root image with HEALTHCHECK, a compose file with named
    volume, a Helm chart (probes, secret, PDB), a systemd unit (Type=notify, DynamicUser, StateDirectory, hardening).
OPS-31 proved One SQLite file is the store unless a URL names Postgres.
OPS-32 proved `migrate` (or a Kubernetes Job before rollout) and the start, under a lock, bring the schema up to date,
    with a version check, a backup and a way back.
OPS-33 3 Keys expire, rotate, have limits and spending caps, are shown once and stored as hashes.
OPS-34 7 The console covers the life of keys, live requests, tokens by key and day, errors with request ids, a
    request's call tree, a playground, config, and download progress.
"""

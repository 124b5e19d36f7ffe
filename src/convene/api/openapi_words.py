"""What fields, tags, headers and statuses mean, in words, once: for the API description and every page made from it.

Only where the name alone does not say it. A key is `Shape.field`. Data only; `openapi.py` reads it, and a test fails
for a key that names no field, or a field of a request without words.
"""

from __future__ import annotations

from typing import Final

ABOUT: Final = (
    "OpenAI's chat completions, embeddings and models, with the fields that ASI:One adds. Requests may hold fields "
    "that are not described here: they are passed to upstreams that may know them, and never refused. Every /v1 path "
    "also works without /v1."
)

TAGS: Final = (
    ("Chat", "Chat completions."),
    ("Embeddings", "Texts to vectors."),
    ("Models", "What is deployed, with its real limits."),
    ("Usage", "What was used, what is left. A key sees its own; an admin's key sees all."),
    ("Health", "Probes for those who run the server; open, and never a call of a model."),
)

FIELDS: Final = {
    "ChatBody.model": "A model or alias of `GET /v1/models`; the reply repeats this name.",
    "ChatBody.messages": "The conversation so far, oldest first.",
    "ChatBody.temperature": "Randomness. Unset: the model's own default, shown in `GET /v1/models`.",
    "ChatBody.top_p": "Choose among the likeliest tokens that together have this probability.",
    "ChatBody.n": "How many answers to give.",
    "ChatBody.stream": "Answer in server-sent events.",
    "ChatBody.stream_options": "Options of a stream.",
    "ChatBody.stop": "Texts at which the answer ends; they are not part of it.",
    "ChatBody.max_tokens": (
        "Most tokens to write, reasoning included. 0 is unset; above the model's limit, that limit counts."
    ),
    "ChatBody.max_completion_tokens": "The newer name of `max_tokens`; wins if both are sent.",
    "ChatBody.presence_penalty": "Above 0: fewer tokens that have occurred at all.",
    "ChatBody.frequency_penalty": "Above 0: fewer tokens the more often they have occurred.",
    "ChatBody.logit_bias": "Token id to bias; ids are those of the model that answers.",
    "ChatBody.logprobs": "Also give the log probability of each token.",
    "ChatBody.top_logprobs": "And of so many rivals at each place; needs `logprobs`.",
    "ChatBody.seed": "The same seed with the same request gives the same answer as far as the model can.",
    "ChatBody.user": "Your name for the end user; passed on.",
    "ChatBody.tools": "Functions the model may ask you to call. Types other than `function` are left out.",
    "ChatBody.tool_choice": (
        "`auto`, `none`, `required` (or `any`), one function by name, or `allowed_tools`. About your functions only."
    ),
    "ChatBody.parallel_tool_calls": "False: at most one call an answer.",
    "ChatBody.functions": "The deprecated form of `tools`; the reply then has `function_call`.",
    "ChatBody.function_call": "The deprecated form of `tool_choice`.",
    "ChatBody.response_format": "`text`, `json_object` or `json_schema`.",
    "ChatBody.reasoning_effort": "none, minimal, low, medium, high, xhigh or max; for models that reason.",
    "ChatBody.verbosity": "low, medium or high; for models that know it.",
    "ChatBody.metadata": "Your own labels; accepted, not kept.",
    "ChatBody.store": "Accepted; completions are not kept.",
    "ChatBody.modalities": "Passed on; audio only where the model can speak.",
    "ChatBody.audio": "Voice and format of spoken answers; passed on.",
    "ChatBody.prediction": "Text that is expected in the answer; passed on.",
    "ChatBody.service_tier": "Passed on; the reply then names `default`.",
    "ChatBody.moderation": "Passed on.",
    "ChatBody.prompt_cache_key": "Passed on.",
    "ChatBody.prompt_cache_options": "Passed on.",
    "ChatBody.prompt_cache_retention": "Passed on.",
    "ChatBody.safety_identifier": "Passed on.",
    "ChatBody.web_search_options": "OpenAI's way to ask for web search; see `web_search`.",
    "ChatBody.web_search": "ASI:One: search the web for this answer. Accepted; this version has no search yet.",
    "ChatBody.agent_address": "ASI:One: the address of the calling agent. Accepted, not acted on.",
    "ChatBody.planner_mode": "ASI:One: plan over several agents. Accepted; this version has no agents yet.",
    "ChatBody.study_mode": "ASI:One: answer as a tutor. Accepted, not acted on yet.",
    "ChatBody.server_tools": "False: no tools of the server's own in this answer. This version has none yet.",
    "StreamOptions.include_usage": "Give token counts in a last chunk without choices.",
    "StreamOptions.include_obfuscation": "Accepted, without effect.",
    "StreamOptions.continuous_usage_stats": "Accepted, without effect.",
    "WireMessage.role": "system, developer (the same), user, assistant, tool, or the deprecated function.",
    "WireMessage.content": "Text, or a list of parts. May be null for an assistant message with calls.",
    "WireMessage.name": "Your name for who speaks.",
    "WireMessage.tool_calls": "In an assistant message: the calls it made, as they were received.",
    "WireMessage.tool_call_id": "In a tool message: the id of the call it answers.",
    "WireMessage.function_call": "The deprecated form of `tool_calls`.",
    "WireMessage.reasoning_content": "Reasoning of an earlier answer; may be sent back.",
    "WireMessage.reasoning": "The same under its other name.",
    "WireMessage.refusal": "The refusal of an earlier answer.",
    "WirePart.type": "text, image_url, input_audio or file.",
    "WirePart.text": "For `text`.",
    "WirePart.image_url": "For `image_url`: an object, or the address alone.",
    "WirePart.input_audio": "For `input_audio`: data and format.",
    "WirePart.file": "For `file`.",
    "WirePart.refusal": "For the `refusal` parts that clients echo.",
    "ImageUrl.url": "A `data:image/...;base64,` or web address.",
    "ImageUrl.detail": "auto, low or high; passed on.",
    "WireToolCall.id": "As received.",
    "WireToolCall.type": "`function`.",
    "WireToolCall.function": "Name and arguments.",
    "WireToolCall.custom": "Not supported.",
    "WireFunctionCall.name": "The function's name.",
    "WireFunctionCall.arguments": "JSON text; an object is accepted too.",
    "WireTool.type": "`function`; other types are left out.",
    "WireTool.function": "The function.",
    "WireFunction.name": "Without spaces.",
    "WireFunction.description": "What it does and when to use it: the model chooses by this.",
    "WireFunction.parameters": "A JSON Schema of the arguments; none: it takes no arguments.",
    "WireFunction.strict": "The arguments must follow the schema.",
    "WireResponseFormat.type": "text, json_object or json_schema.",
    "WireResponseFormat.json_schema": "For `json_schema`.",
    "JsonSchemaFormat.name": "Your name for the form.",
    "JsonSchemaFormat.description": "What the answer is for.",
    "JsonSchemaFormat.schema": "The JSON Schema the answer must follow.",
    "JsonSchemaFormat.strict": "Passed on; the embedded engine is strict either way.",
    "EmbeddingBody.model": "An embedding model of `GET /v1/models`.",
    "EmbeddingBody.input": "A text, a list of texts, token ids, or a list of lists of token ids.",
    "EmbeddingBody.encoding_format": "float (default), or base64 of little-endian float32.",
    "EmbeddingBody.dimensions": "Shorten the vectors to so many numbers.",
    "EmbeddingBody.user": "Your name for the end user.",
    "ChatReply.id": "Begins with `chatcmpl-`.",
    "ChatReply.created": "Unix seconds.",
    "ChatReply.model": "As it was asked for.",
    "ChatReply.system_fingerprint": "Changes when what answers changes.",
    "ChatReply.executable_data": "ASI:One: tools and agents that the server itself used.",
    "ChatReply.intermediate_steps": "ASI:One: the steps of an agentic turn.",
    "ChatReply.thought": "ASI:One: the reasoning, one text a choice.",
    "ChatReply.conversation_id": "ASI:One: null.",
    "ReplyMessage.content": "Null only beside calls without text.",
    "ReplyMessage.reasoning_content": "What a reasoning model thought; left out when there is none.",
    "ReplyMessage.reasoning": "The same text under its other name.",
    "ReplyMessage.tool_calls": "Calls for you to execute; left out when there are none.",
    "ReplyMessage.annotations": "Sources of the answer; left out when there are none.",
    "ReplyFunction.arguments": "JSON text.",
    "ReplyMetadata.model": "The model as it was asked for.",
    "ReplyMetadata.upstream": "The configured upstream that answered, or `embedded`.",
    "ReplyMetadata.notices": "What you should know about how the answer came about; absent when there is nothing.",
    "ReplyUsage.completion_tokens": "Reasoning included.",
    "PromptDetails.cached_tokens": "Prompt tokens that were remembered.",
    "Model.created": "Unix seconds.",
    "Model.alias_of": "The model this name leads to.",
    "Model.context_window": "Tokens; null: the upstream does not say.",
    "Model.max_output_tokens": "Tokens; null: the upstream does not say.",
    "Model.default_temperature": "Used when a request names none; null: the upstream's own.",
    "Model.dimensions": "Length of its vectors.",
    "ErrorDetail.param": "The offending field of the request.",
    "ErrorDetail.code": "What went wrong, for programs.",
    "ErrorReply.message": "The same message again.",
    "ChatChunk.usage": "Null in every chunk and an object in the last, if it was asked for; else left out.",
    "ChatChunk.executable_data": "Empty on the first chunk, whole on the last with a finish reason.",
    "ChatChunk.intermediate_steps": "Only the steps that changed.",
    "ChatChunk.thought": "On the last chunk with a finish reason.",
    "ChatChunk.metadata": "On the last chunk with a finish reason.",
    "StreamFault.choices": "Empty.",
    "Status.models": "Each model: `ready`, or why not.",
}

HEADERS: Final = (
    ("x-request-id", "The request's id, yours if you sent a sane one; it is in the log."),
    ("retry-after", "Seconds after which another try makes sense."),
    ("allow", "The methods that this path knows."),
)

SESSION_HEADER: Final = "Any text that names a session of agentic turns. Accepted; this version keeps none yet."

IDEMPOTENCY_HEADER: Final = (
    "Any text of your own, new for each request: the request and its repeats under this key run once and get the same "
    "bytes, with `idempotent-replayed: true` from the second on."
)

STATUSES: Final = (
    (400, "The request cannot be understood or asks for what the model cannot do; `param` names the field."),
    (401, "No key, or not a valid one."),
    (403, "This may not be done with this key, or from there."),
    (404, "No such model or path."),
    (405, "The path knows other methods."),
    (408, "The request arrived too slowly."),
    (413, "The body is larger than the server's limit."),
    (414, "The address is too long."),
    (415, "The body is packed in a way that is not read here."),
    (429, "A limit is reached; `insufficient_quota` means that waiting does not help."),
    (431, "The request's headers are larger or more than the server's limits."),
    (500, "A fault of the server's own; the log has it under the request's id."),
    (502, "The upstream failed or refused."),
    (503, "No model can serve now, or no room, or shutting down."),
    (504, "The upstream did not answer in time."),
)
"""What errors mean, by status. All have the one error shape."""

// OpenAI's SDK for Node and Vercel's AI SDK as clients of the server that CHECK_BASE_URL names.
//
// Prints `ok NAME` or `failed NAME: why` for each check, as `openai_sdk.py` does; `node_clients` in `suites.py` reads
// that. It runs from a folder of packages, once for each major of the SDKs. The answers are judged by their shape, so
// that a tiny model passes too. Not here: /responses.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenAI } from "@ai-sdk/openai";
import { embed, generateText, stepCountIs, streamText, tool, Output } from "ai";
import { z } from "zod";

const baseURL = process.env.CHECK_BASE_URL;
const apiKey = process.env.CHECK_API_KEY;
const embedder = process.env.CHECK_EMBEDDING_MODEL;
const maxRetries = 0;
const model = "asi1";
const max_tokens = 200;
const prompt = "Say hello.";
const messages = [{ role: "user", content: prompt }];
const person = z.object({ name: z.string().max(30), n: z.number().int().min(0).max(99) });
const parameters = {
  type: "object",
  properties: { a: { type: "integer", minimum: 0, maximum: 99 } },
  required: ["a"],
  additionalProperties: false,
};
const tools = [
  { type: "function", function: { name: "twice", description: "Doubles a number.", strict: true, parameters } },
];
const ended = ["stop", "length"];

const client = new OpenAI({ baseURL, apiKey, maxRetries, timeout: 300_000 });
const chat = client.chat.completions;
const compatible = createOpenAICompatible({
  name: "convene",
  baseURL,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const official = createOpenAI({ baseURL, apiKey });
const providers = { compatible: (name) => compatible(name), official: (name) => official.chat(name) };
const twice = tool({
  description: "Doubles a number.",
  inputSchema: z.object({ a: z.number().int().min(0).max(99) }),
  execute: async ({ a }) => 2 * a,
});

const checks = {
  "sdk lists models": async () => {
    const found = (await client.models.list()).data;
    assert.ok(found.some((one) => one.id === model && one.object === "model"));
  },
  "sdk shows a model": async () => {
    assert.equal((await client.models.retrieve(model)).id, model);
  },
  "sdk gets a whole reply": async () => {
    const whole = await chat.create({ model, messages, max_tokens });
    assert.ok(whole.choices[0].message.content && whole.usage.total_tokens && whole._request_id);
    assert.ok(ended.includes(whole.choices[0].finish_reason));
  },
  "sdk streams with usage": async () => {
    const stream_options = { include_usage: true };
    const last = await chat.stream({ model, messages, max_tokens, stream_options }).finalChatCompletion();
    assert.ok(last.choices[0].message.content && last.usage.total_tokens);
  },
  "sdk streams without usage": async () => {
    let text = "";
    for await (const chunk of await chat.create({ model, messages, max_tokens, stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
      assert.ok(!chunk.usage);
    }
    assert.ok(text);
  },
  "sdk gets a call": async () => {
    const tool_choice = { type: "function", function: { name: "twice" } };
    const body = { model, messages, tools, tool_choice, max_tokens, parallel_tool_calls: false };
    const [choice] = (await chat.create(body)).choices;
    assert.equal(choice.finish_reason, "tool_calls");
    assert.equal(choice.message.tool_calls.length, 1);
    assert.equal(typeof JSON.parse(choice.message.tool_calls[0].function.arguments).a, "number");
  },
  "sdk streams a call": async () => {
    const body = { model, messages, tools, tool_choice: "required", max_tokens };
    const [choice] = (await chat.stream(body).finalChatCompletion()).choices;
    assert.equal(choice.finish_reason, "tool_calls");
    assert.equal(choice.message.tool_calls[0].function.name, "twice");
    assert.ok(JSON.parse(choice.message.tool_calls[0].function.arguments));
  },
  "sdk runs its tool loop": async () => {
    const run = { type: "function", function: { ...tools[0].function, function: ({ a }) => String(2 * a), parse: JSON.parse } };
    const body = { model, messages: [{ role: "user", content: "Double 21 with the tool." }], tools: [run], max_tokens };
    assert.ok(await chat.runTools(body).finalContent());
  },
  "sdk parses a zod schema": async () => {
    const response_format = zodResponseFormat(person, "person");
    const [choice] = (await chat.parse({ model, messages, response_format, max_tokens })).choices;
    assert.equal(typeof choice.message.parsed.name, "string");
  },
  "sdk embeds": async () => {
    const made = await client.embeddings.create({ model: embedder, input: ["one", "two"] });
    assert.equal(made.data.length, 2);
    const length = made.data.map((one) => Math.hypot(...one.embedding));
    assert.ok(length.every((one) => Math.abs(one - 1) < 1e-3), `lengths ${length}`);
  },
  "sdk raises for an unknown model": async () => {
    await assert.rejects(chat.create({ model: "nope", messages }), (fault) => {
      assert.ok(fault instanceof OpenAI.NotFoundError);
      assert.equal(fault.code, "model_not_found");
      return Boolean(fault.requestID);
    });
  },
  "sdk raises for a bad body": async () => {
    await assert.rejects(chat.create({ model, messages: "hello" }), (fault) => {
      assert.ok(fault instanceof OpenAI.BadRequestError);
      return fault.param === "messages";
    });
  },
  "sdk raises for a bad key": async () => {
    const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  },
  "ai embeds": async () => {
    const { embedding } = await embed({ model: compatible.textEmbeddingModel(embedder), value: "one", maxRetries });
    assert.ok(embedding.length > 0);
  },
  "ai shows the server's message": async () => {
    await assert.rejects(generateText({ model: compatible("nope"), prompt, maxRetries }), /nope/);
  },
};

for (const [kind, provider] of Object.entries(providers)) {
  checks[`ai ${kind} gets a text`] = async () => {
    const got = await generateText({ model: provider(model), prompt, maxRetries, maxOutputTokens: max_tokens });
    assert.ok(got.text && got.usage.totalTokens);
  };
  checks[`ai ${kind} streams a text`] = async () => {
    const faults = [];
    const onError = ({ error }) => faults.push(error);
    const got = streamText({ model: provider(model), prompt, maxRetries, maxOutputTokens: max_tokens, onError });
    let text = "";
    for await (const piece of got.textStream) text += piece;
    assert.deepEqual(faults, []);
    assert.ok(text && (await got.usage).totalTokens);
    assert.ok(ended.includes(await got.finishReason));
  };
  checks[`ai ${kind} runs a tool`] = async () => {
    const got = await generateText({
      model: provider(model),
      prompt: "Double 21 with the tool.",
      tools: { twice },
      stopWhen: stepCountIs(3),
      maxRetries,
      maxOutputTokens: max_tokens,
    });
    assert.ok(got.steps.some((step) => step.toolCalls.length), "no call");
    assert.ok(got.text, "no text at the end");
  };
  checks[`ai ${kind} streams a call`] = async () => {
    const got = streamText({
      model: provider(model),
      prompt: "Double 21 with the tool.",
      tools: { twice },
      toolChoice: "required",
      maxRetries,
      maxOutputTokens: max_tokens,
    });
    assert.equal((await got.toolCalls)[0].toolName, "twice");
    assert.equal(await got.finishReason, "tool-calls");
  };
  checks[`ai ${kind} gets an object`] = async () => {
    const output = Output.object({ schema: person });
    const got = await generateText({ model: provider(model), prompt: "Invent a person.", output, maxRetries });
    assert.equal(typeof got.output.name, "string");
  };
}

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (fault) {
    failed += 1;
    console.log(`failed ${name}: ${String(fault?.message ?? fault).replaceAll(/\s+/g, " ").slice(0, 300)}`);
  }
}
process.exitCode = failed ? 1 : 0;

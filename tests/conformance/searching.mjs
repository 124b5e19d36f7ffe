// OpenAI's SDK for Node and Vercel's AI SDK read turns in which the server itself does something: an answer from the web,
// with steps and citations on its chunks, a plan, a lesson, and a turn that mixes a search, a tool of an MCP server and a
// function of the client's. Prints as `clients.mjs` does, which has all else.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = process.env.CHECK_BASE_URL;
const apiKey = process.env.CHECK_API_KEY;
const maxRetries = 0;
const model = "asi1";
const prompt = "How high is the lighthouse of Vellmar, and when was it lit first?";
const messages = [{ role: "user", content: prompt }];
const wanted = /^The tower is 43 metres high \[\[1\]\]\((http[^)]+)\) and .* \[\[2\]\]\(http[^)]+\)\.$/;

const client = new OpenAI({ baseURL, apiKey, maxRetries, timeout: 60_000 });

// The AI SDK has no word for the field, so it goes into the body on its way out.
const adding = (extra) => (url, init) => fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), ...extra }) });
const kinds = {
  compatible: (name, extra) =>
    createOpenAICompatible({ name: "convene", baseURL, apiKey, includeUsage: true, fetch: adding(extra) })(name),
  official: (name, extra) => createOpenAI({ baseURL, apiKey, fetch: adding(extra) }).chat(name),
};
const paint = {
  type: "function",
  function: {
    name: "paint_wall",
    description: "Paints a wall",
    parameters: { type: "object", properties: { colour: { type: "string" } }, required: ["colour"] },
  },
};
const mixed = /^High water is at 14:20; the wall is red \[\[1\]\]/;

function check(text, annotations) {
  assert.match(text, wanted);
  const cut = annotations.map(({ url_citation: one }) => [...text].slice(one.start_index, one.end_index).join(""));
  assert.deepEqual(cut, text.match(/\[\[\d\]\]\([^)]*\)/g));
}

const checks = {
  "sdk streams an answer from the web": async () => {
    const steps = new Map();
    const annotations = [];
    let text = "";
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, web_search: true })) {
      for (const step of chunk.intermediate_steps ?? []) steps.set(step.id, step);
      text += chunk.choices[0].delta.content ?? "";
      annotations.push(...(chunk.choices[0].delta.annotations ?? []));
    }
    check(text, annotations);
    assert.deepEqual([...steps.values()].map(({ kind }) => kind), ["model", "search", "model", "fetch", "model"]);
  },
  "sdk gathers a stream from the web": async () => {
    const stream = client.chat.completions.stream({ model, messages, web_search_options: {} });
    const whole = await stream.finalChatCompletion();
    assert.match(whole.choices[0].message.content, wanted);
    assert.ok(!whole.choices[0].message.tool_calls?.length);
  },
  "sdk gets a whole answer from the web": async () => {
    const whole = await client.chat.completions.create({ model, messages, web_search_options: {} });
    check(whole.choices[0].message.content, whole.choices[0].message.annotations);
  },
};

checks["sdk streams a plan"] = async () => {
  const steps = new Map();
  let text = "";
  const body = { model: "asi1-ultra", messages, stream: true, planner_mode: true, web_search: true };
  for await (const chunk of await client.chat.completions.create(body)) {
    for (const step of chunk.intermediate_steps ?? []) steps.set(step.id, step.kind);
    text += chunk.choices[0].delta.content ?? "";
  }
  assert.match(text, /^High water is at 14:20 \[\[1\]\]/);
  const found = [...steps.values()];
  assert.equal(found[0], "plan");
  assert.ok(found.includes("search") && found.includes("tool"));
};
checks["sdk streams a lesson"] = async () => {
  const stream = client.chat.completions.stream({ model, messages, study_mode: true, web_search: true });
  assert.match((await stream.finalChatCompletion()).choices[0].message.content, wanted);
};
checks["sdk mixes tools of both sides and gives the message back"] = async () => {
  const body = { model: "asi1-mini", tools: [paint], web_search: true };
  const first = await client.chat.completions.create({ ...body, messages });
  const { message, finish_reason: reason } = first.choices[0];
  assert.equal(reason, "tool_calls");
  assert.equal(message.tool_calls.length, 1);
  assert.deepEqual(first.executable_data.map((one) => one.tool_name).sort(), ["harbour__tides", "web_search"]);
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: '{"painted": true}' };
  const second = await client.chat.completions.create({ ...body, messages: [...messages, message, result] });
  assert.match(second.choices[0].message.content, mixed);
};
checks["sdk gathers a stream of a mixed turn and gives the message back"] = async () => {
  const body = { model: "asi1-mini", tools: [paint], web_search: true };
  const { message } = (await client.chat.completions.stream({ ...body, messages }).finalChatCompletion()).choices[0];
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: '{"painted": true}' };
  const again = client.chat.completions.stream({ ...body, messages: [...messages, message, result] });
  assert.match((await again.finalChatCompletion()).choices[0].message.content, mixed);
};

for (const [kind, make] of Object.entries(kinds)) {
  const provider = make(model, { web_search: true });
  checks[`ai ${kind} streams a plan`] = async () => {
    const planner = make("asi1-ultra", { planner_mode: true, web_search: true });
    const got = streamText({ model: planner, prompt, maxRetries, onError: ({ error }) => { throw error; } });
    assert.match(await got.text, /^High water is at 14:20 \[\[1\]\]/);
  };
  checks[`ai ${kind} streams a lesson`] = async () => {
    const tutor = make(model, { study_mode: true, web_search: true });
    const got = streamText({ model: tutor, prompt, maxRetries, onError: ({ error }) => { throw error; } });
    assert.match(await got.text, wanted);
  };
  checks[`ai ${kind} mixes tools of both sides`] = async () => {
    const painted = [];
    const paint_wall = tool({
      description: "Paints a wall",
      inputSchema: z.object({ colour: z.string() }),
      execute: async ({ colour }) => { painted.push(colour); return { painted: true }; },
    });
    const mixer = make("asi1-mini", { web_search: true });
    const got = streamText({
      model: mixer, prompt, maxRetries, tools: { paint_wall }, stopWhen: stepCountIs(3), onError: ({ error }) => { throw error; },
    });
    assert.match(await got.text, mixed);
    assert.deepEqual(painted, ["red"]);
  };
  checks[`ai ${kind} streams an answer from the web`] = async () => {
    const got = streamText({ model: provider, prompt, maxRetries, onError: ({ error }) => { throw error; } });
    assert.match(await got.text, wanted);
    assert.equal(await got.finishReason, "stop");
    assert.deepEqual(await got.toolCalls, []);
    const sources = await got.sources;
    assert.ok(kind === "compatible" || sources.every(({ url }) => url.startsWith("http")));
  };
  checks[`ai ${kind} gets a whole answer from the web`] = async () => {
    const got = await generateText({ model: provider, prompt, maxRetries });
    assert.match(got.text, wanted);
  };
}

let failed = 0;
for (const [name, run] of Object.entries(checks)) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (fault) {
    failed += 1;
    console.log(`failed ${name}: ${String(fault?.message ?? fault).replaceAll(/\s+/g, " ").slice(0, 300)}`);
  }
}
process.exitCode = failed ? 1 : 0;

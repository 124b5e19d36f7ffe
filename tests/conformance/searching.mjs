// OpenAI's SDK for Node and Vercel's AI SDK read an answer that the server has searched for: every chunk of the stream,
// with the steps and citations on it, and the whole reply. Prints as `clients.mjs` does, which has all else.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";

const baseURL = process.env.CHECK_BASE_URL;
const apiKey = process.env.CHECK_API_KEY;
const maxRetries = 0;
const model = "asi1";
const prompt = "How high is the lighthouse of Vellmar, and when was it lit first?";
const messages = [{ role: "user", content: prompt }];
const wanted = /^The tower is 43 metres high \[\[1\]\]\((http[^)]+)\) and .* \[\[2\]\]\(http[^)]+\)\.$/;

const client = new OpenAI({ baseURL, apiKey, maxRetries, timeout: 60_000 });

// The AI SDK has no word for the field, so it goes into the body on its way out.
const searching = (url, init) => fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), web_search: true }) });
const compatible = createOpenAICompatible({ name: "convene", baseURL, apiKey, includeUsage: true, fetch: searching });
const official = createOpenAI({ baseURL, apiKey, fetch: searching });
const providers = { compatible: compatible(model), official: official.chat(model) };

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

for (const [kind, provider] of Object.entries(providers)) {
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

// The OpenAI SDK for Node.js; tools by its own runner.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { FORECAST, HELLO, RESULTS, SCHEMA } from "./common.mjs";

const sdk = ({ url, key }) => new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0 });

export async function plain(ask, more = {}) {
  const { message } = (await sdk(ask).chat.completions.create({ model: ask.model, messages: HELLO, ...more })).choices[0];
  return { text: message.content, reasoning: message.reasoning_content };
}

export async function streamed(ask, more = {}) {
  const pieces = [];
  let reasoning = "";
  for await (const chunk of await sdk(ask).chat.completions.create({ model: ask.model, messages: HELLO, stream: true, ...more })) {
    for (const { delta } of chunk.choices) {
      if (delta.content) pieces.push(delta.content);
      reasoning += delta.reasoning_content ?? "";
    }
  }
  return { text: pieces.join(""), pieces: pieces.length, reasoning };
}

async function run(ask, more) {
  const calls = [];
  const tools = Object.keys(RESULTS).map((name) => ({
    type: "function",
    function: {
      name,
      description: `The ${name} of a city.`,
      parameters: SCHEMA,
      parse: JSON.parse,
      function: (given) => (calls.push([name, given]), RESULTS[name]),
    },
  }));
  const runner = sdk(ask).chat.completions.runTools({ model: ask.model, messages: HELLO, tools, ...more });
  const text = await runner.finalContent();
  const reasoning = runner.messages.map((message) => message.reasoning_content ?? "").join("");
  return { text, calls, reasoning };
}

const EFFORT = { reasoning_effort: "low" };
export const tools = (ask) => run(ask, {});
export const tools_streamed = (ask) => run(ask, { stream: true });
export const thinking = (ask) => plain(ask, EFFORT);
export const thinking_streamed = (ask) => streamed(ask, EFFORT);
export const thinking_tools = (ask) => run(ask, EFFORT);
export const thinking_tools_streamed = (ask) => run(ask, { stream: true, ...EFFORT });

export async function structured(ask) {
  const response_format = zodResponseFormat(FORECAST, "forecast");
  const answer = await sdk(ask).chat.completions.parse({ model: ask.model, messages: HELLO, response_format });
  return { value: answer.choices[0].message.parsed };
}

export const error = plain;
export const error_streamed = streamed;

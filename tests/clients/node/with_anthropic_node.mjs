// The Anthropic SDK for Node.js; tools by its own runner.
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { FORECAST, QUESTION, RESULTS, SCHEMA, SYSTEM } from "./common.mjs";

const sdk = ({ url, key }) => new Anthropic({ apiKey: key, baseURL: url, maxRetries: 0 });
const request = (ask) => ({ model: ask.model, max_tokens: 4000, system: SYSTEM, messages: [{ role: "user", content: QUESTION }] });
const THINKING = { thinking: { type: "enabled", budget_tokens: 2000 } };

function said(content) {
  const join = (kind) => content.filter((block) => block.type === kind).map((block) => block[kind]).join("");
  return { text: join("text"), reasoning: join("thinking") };
}

export const plain = async (ask, more = {}) => said((await sdk(ask).messages.create({ ...request(ask), ...more })).content);

export async function streamed(ask, more = {}) {
  const stream = sdk(ask).messages.stream({ ...request(ask), ...more });
  let pieces = 0;
  stream.on("text", () => (pieces += 1));
  return { ...said((await stream.finalMessage()).content), pieces };
}

async function run(ask, more) {
  const calls = [];
  const tools = Object.keys(RESULTS).map((name) =>
    betaTool({
      name,
      description: `The ${name} of a city.`,
      inputSchema: SCHEMA,
      run: (given) => (calls.push([name, given]), RESULTS[name]),
    }),
  );
  const runner = sdk(ask).beta.messages.toolRunner({ ...request(ask), tools, ...more });
  let reasoning = "";
  let last;
  for await (const step of runner) {
    last = more.stream ? await step.finalMessage() : step;
    reasoning += said(last.content).reasoning;
  }
  return { text: said(last.content).text, calls, reasoning };
}

export const tools = (ask) => run(ask, {});
export const tools_streamed = (ask) => run(ask, { stream: true });
export const thinking = (ask) => plain(ask, THINKING);
export const thinking_streamed = (ask) => streamed(ask, THINKING);
export const thinking_tools = (ask) => run(ask, THINKING);
export const thinking_tools_streamed = (ask) => run(ask, { stream: true, ...THINKING });

export async function structured(ask) {
  const answer = await sdk(ask).messages.parse({ ...request(ask), output_config: { format: zodOutputFormat(FORECAST) } });
  return { value: answer.parsed_output };
}

export async function count(ask) {
  const { max_tokens, ...counted } = request(ask);
  const tools = Object.keys(RESULTS).map((name) => ({ name, description: `The ${name} of a city.`, input_schema: SCHEMA }));
  return { tokens: (await sdk(ask).messages.countTokens({ ...counted, tools })).input_tokens };
}

export const error = plain;
export const error_streamed = streamed;

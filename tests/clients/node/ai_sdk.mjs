// The AI SDK: what it does alike with each of its providers.
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { FORECAST, QUESTION, RESULTS, SCHEMA, SYSTEM } from "./common.mjs";

// The scenarios of a provider: `model(ask)` makes its model.
export function scenarios(model) {
  const request = (ask, more) => ({ model: model(ask), instructions: SYSTEM, prompt: QUESTION, maxRetries: 0, ...more });

  function both(calls) {
    const made = (name) =>
      tool({
        description: `The ${name} of a city.`,
        inputSchema: jsonSchema(SCHEMA),
        execute: (given) => (calls.push([name, given]), RESULTS[name]),
      });
    return { tools: { weather: made("weather"), time: made("time") }, stopWhen: stepCountIs(8) };
  }

  const thoughts = (steps) => steps.map((step) => step.reasoningText ?? "").join("");

  async function plain(ask, more = {}) {
    const answer = await generateText(request(ask, more));
    return { text: answer.text, reasoning: thoughts(answer.steps) };
  }

  async function streamed(ask, more = {}) {
    let wrong;
    const answer = streamText(request(ask, { ...more, onError: ({ error }) => (wrong = error) }));
    const pieces = [];
    try {
      for await (const piece of answer.textStream) pieces.push(piece);
      const steps = await answer.steps;
      return { text: steps.at(-1).text, pieces: pieces.length, reasoning: thoughts(steps) };
    } catch (error) {
      throw wrong ?? error;
    }
  }

  async function tools(ask, ask_it = plain, more = {}) {
    const calls = [];
    return { ...(await ask_it(ask, { ...both(calls), ...more })), calls };
  }

  async function structured(ask) {
    return { value: (await generateText(request(ask, { output: Output.object({ schema: FORECAST }) }))).output };
  }

  const EFFORT = { reasoning: "low", maxOutputTokens: 8000 };
  return {
    plain,
    streamed,
    tools: (ask) => tools(ask),
    tools_streamed: (ask) => tools(ask, streamed),
    thinking: (ask) => plain(ask, EFFORT),
    thinking_streamed: (ask) => streamed(ask, EFFORT),
    thinking_tools: (ask) => tools(ask, plain, EFFORT),
    thinking_tools_streamed: (ask) => tools(ask, streamed, EFFORT),
    structured,
    structured_by_tool: structured,
    structured_streamed: async (ask) => {
      let wrong;
      const onError = ({ error }) => (wrong = error);
      const answer = streamText(request(ask, { output: Output.object({ schema: FORECAST }), onError }));
      try {
        return { value: await answer.output };
      } catch (error) {
        throw wrong ?? error;
      }
    },
    error: plain,
    error_streamed: streamed,
  };
}

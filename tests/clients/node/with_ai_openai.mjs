// The AI SDK's provider for OpenAI, over chat completions.
import { createOpenAI as create } from "@ai-sdk/openai";
import { scenarios } from "./ai_sdk.mjs";

export const {
  plain,
  streamed,
  tools,
  tools_streamed,
  thinking,
  thinking_streamed,
  thinking_tools,
  thinking_tools_streamed,
  structured,
  structured_streamed,
  error,
  error_streamed,
} = scenarios(({ url, key, model }) => create({ apiKey: key, baseURL: `${url}/v1` }).chat(model));

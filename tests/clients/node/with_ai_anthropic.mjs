// The AI SDK's provider for Anthropic.
import { createAnthropic as create } from "@ai-sdk/anthropic";
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
  structured_by_tool,
  error,
  error_streamed,
} = scenarios(({ url, key, model }) => create({ apiKey: key, baseURL: `${url}/v1` })(model));

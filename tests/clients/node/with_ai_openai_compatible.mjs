// The AI SDK's provider for APIs like OpenAI's.
import { createOpenAICompatible as create } from "@ai-sdk/openai-compatible";
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
} = scenarios(({ url, key, model }) => create({ name: "tollgate", apiKey: key, baseURL: `${url}/v1`, supportsStructuredOutputs: true })(model));

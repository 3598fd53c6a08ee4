"""pydantic-ai's OpenAIChatModel."""

from __future__ import annotations

import openai
from driver import Ask
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from with_pydantic_ai import scenarios


def model(ask: Ask) -> OpenAIChatModel:
    client = openai.AsyncOpenAI(api_key=ask.key, base_url=f"{ask.url}/v1", max_retries=0)
    return OpenAIChatModel(ask.model, provider=OpenAIProvider(openai_client=client))


globals().update(scenarios(model, {"openai_reasoning_effort": "low"}))

"""pydantic-ai's AnthropicModel."""

from __future__ import annotations

import anthropic
from driver import Ask
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from with_pydantic_ai import scenarios


def model(ask: Ask) -> AnthropicModel:
    client = anthropic.AsyncAnthropic(api_key=ask.key, base_url=ask.url, max_retries=0)
    return AnthropicModel(ask.model, provider=AnthropicProvider(anthropic_client=client))


thinks = {"anthropic_thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 4000}
globals().update(scenarios(model, thinks))

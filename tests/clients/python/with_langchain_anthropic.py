"""LangChain's ChatAnthropic."""

from __future__ import annotations

from driver import Ask
from langchain_anthropic import ChatAnthropic
from with_langchain import HELLO, scenarios, time, weather


def chat(ask: Ask, **more) -> ChatAnthropic:
    return ChatAnthropic(model=ask.model, api_key=ask.key, base_url=ask.url, max_retries=0, max_tokens=4000, **more)


def count(ask: Ask) -> dict:
    return {"tokens": chat(ask).get_num_tokens_from_messages(HELLO, tools=[weather, time])}


globals().update(scenarios(chat, {"thinking": {"type": "enabled", "budget_tokens": 2000}}))

"""LangChain's ChatOpenAI."""

from __future__ import annotations

from driver import Ask
from langchain_openai import ChatOpenAI
from with_langchain import scenarios


def chat(ask: Ask, **more) -> ChatOpenAI:
    return ChatOpenAI(model=ask.model, api_key=ask.key, base_url=f"{ask.url}/v1", max_retries=0, **more)


globals().update(scenarios(chat, {"reasoning_effort": "low"}))

"""LangChain's chat models: what both of its packages do alike."""

from __future__ import annotations

from typing import Any, Callable

import pydantic
from driver import QUESTION, RESULTS, SYSTEM, Ask, called
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

HELLO = [SystemMessage(SYSTEM), HumanMessage(QUESTION)]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return RESULTS["weather"]


@tool
def time(city: str) -> str:
    """The time of a city."""
    return RESULTS["time"]


class Forecast(pydantic.BaseModel):
    """A forecast."""

    city: str
    days: int
    kinds: list[str]


def text_of(message: Any) -> str:
    return message.text if isinstance(message.text, str) else message.text()


def thought(message: Any) -> str:
    return "".join(block.get("reasoning", "") for block in message.content_blocks if block["type"] == "reasoning")


def scenarios(chat: Callable[..., Any], thinks: dict) -> dict[str, Callable[[Ask], dict]]:
    """The scenarios of a chat model made by `chat(ask, **settings)`; `thinks` turns its thinking on."""

    def plain(ask: Ask, **more) -> dict:
        message = chat(ask, **more).invoke(HELLO)
        return {"text": text_of(message), "reasoning": thought(message)}

    def streamed(ask: Ask, **more) -> dict:
        chunks = list(chat(ask, **more).stream(HELLO))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole = whole + chunk
        return {"text": text_of(whole), "pieces": sum(bool(text_of(chunk)) for chunk in chunks), "reasoning": thought(whole)}

    def tools(ask: Ask, stream: bool = False, **more) -> dict:
        model = chat(ask, **more).bind_tools([weather, time])
        history, calls, reasoning = [*HELLO], [], ""
        while True:
            if stream:
                chunks = list(model.stream(history))
                message = chunks[0]
                for chunk in chunks[1:]:
                    message = message + chunk
            else:
                message = model.invoke(history)
            reasoning += thought(message)
            history.append(message)
            if not message.tool_calls:
                return {"text": text_of(message), "calls": calls, "reasoning": reasoning}
            for call in message.tool_calls:
                calls.append(called(call["name"], call["args"]))
                history.append(ToolMessage(RESULTS[call["name"]], tool_call_id=call["id"]))

    def structured(ask: Ask) -> dict:
        return {"value": chat(ask).with_structured_output(Forecast).invoke(HELLO).model_dump()}

    return {
        "plain": plain,
        "streamed": streamed,
        "tools": tools,
        "tools_streamed": lambda ask: tools(ask, stream=True),
        "thinking": lambda ask: plain(ask, **thinks),
        "thinking_streamed": lambda ask: streamed(ask, **thinks),
        "thinking_tools": lambda ask: tools(ask, **thinks),
        "thinking_tools_streamed": lambda ask: tools(ask, stream=True, **thinks),
        "structured": structured,
        "structured_by_tool": structured,
        "error": plain,
        "error_streamed": streamed,
    }

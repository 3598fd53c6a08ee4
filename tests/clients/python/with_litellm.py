"""LiteLLM's SDK, which sees the gateway as a LiteLLM proxy."""

from __future__ import annotations

import litellm
import pydantic
from driver import CHAT_TOOLS, HELLO, RESULTS, Ask, called


def ask_it(ask: Ask, **more):
    model = f"litellm_proxy/{ask.model}"
    return litellm.completion(
        **{"model": model, "messages": HELLO, "api_base": ask.url, "api_key": ask.key, "max_retries": 0} | more
    )


def plain(ask: Ask, **more) -> dict:
    message = ask_it(ask, **more).choices[0].message
    return {"text": message.content, "reasoning": getattr(message, "reasoning_content", None)}


def whole(ask: Ask, **more):
    """A stream put together by LiteLLM's own builder, and how many pieces of text it had."""
    chunks = list(ask_it(ask, stream=True, **more))
    pieces = sum(bool(choice.delta.content) for chunk in chunks for choice in chunk.choices)
    return litellm.stream_chunk_builder(chunks), pieces


def streamed(ask: Ask, **more) -> dict:
    answer, pieces = whole(ask, **more)
    message = answer.choices[0].message
    return {"text": message.content, "pieces": pieces, "reasoning": getattr(message, "reasoning_content", None)}


def tools(ask: Ask, stream: bool = False, **more) -> dict:
    history, calls, reasoning = [*HELLO], [], ""
    while True:
        arguments = {"messages": history, "tools": CHAT_TOOLS, **more}
        answer = whole(ask, **arguments)[0] if stream else ask_it(ask, **arguments)
        message = answer.choices[0].message
        reasoning += getattr(message, "reasoning_content", None) or ""
        history.append(message)
        if answer.choices[0].finish_reason != "tool_calls":
            return {"text": message.content, "calls": calls, "reasoning": reasoning}
        for call in message.tool_calls:
            calls.append(called(call.function.name, call.function.arguments))
            history.append({"role": "tool", "tool_call_id": call.id, "content": RESULTS[call.function.name]})


def tools_streamed(ask: Ask) -> dict:
    return tools(ask, stream=True)


def thinking(ask: Ask) -> dict:
    return plain(ask, reasoning_effort="low")


def thinking_streamed(ask: Ask) -> dict:
    return streamed(ask, reasoning_effort="low")


def thinking_tools(ask: Ask) -> dict:
    return tools(ask, reasoning_effort="low")


def thinking_tools_streamed(ask: Ask) -> dict:
    return tools(ask, stream=True, reasoning_effort="low")


class Forecast(pydantic.BaseModel):
    """What is asked for."""

    city: str
    days: int
    kinds: list[str]


def structured(ask: Ask) -> dict:
    answer = ask_it(ask, response_format=Forecast)
    return {"value": Forecast.model_validate_json(answer.choices[0].message.content).model_dump()}


error = plain
error_streamed = streamed

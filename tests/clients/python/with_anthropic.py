"""The Anthropic SDK."""

from __future__ import annotations

import anthropic
import pydantic
from driver import QUESTION, RESULTS, SCHEMA, SYSTEM, Ask, called

THINKING = {"type": "enabled", "budget_tokens": 2000}
TOOLS = [{"name": name, "description": f"The {name} of a city.", "input_schema": SCHEMA} for name in RESULTS]


def sdk(ask: Ask) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=ask.key, base_url=ask.url, max_retries=0)


def request(ask: Ask, **more) -> dict:
    return {"model": ask.model, "max_tokens": 4000, "system": SYSTEM, "messages": [{"role": "user", "content": QUESTION}], **more}


def said(message) -> dict:
    texts = [block.text for block in message.content if block.type == "text"]
    thoughts = [block.thinking for block in message.content if block.type == "thinking"]
    return {"text": "".join(texts), "reasoning": "".join(thoughts)}


def plain(ask: Ask, **more) -> dict:
    return said(sdk(ask).messages.create(**request(ask, **more)))


def streamed(ask: Ask, **more) -> dict:
    with sdk(ask).messages.stream(**request(ask, **more)) as events:
        pieces = list(events.text_stream)
        return said(events.get_final_message()) | {"pieces": len(pieces)}


def tools(ask: Ask, stream: bool = False, **more) -> dict:
    arguments, calls, reasoning = request(ask, tools=TOOLS, **more), [], ""
    while True:
        if stream:
            with sdk(ask).messages.stream(**arguments) as events:
                message = events.get_final_message()
        else:
            message = sdk(ask).messages.create(**arguments)
        reasoning += said(message)["reasoning"]
        if message.stop_reason != "tool_use":
            return said(message) | {"calls": calls, "reasoning": reasoning}
        results = []
        for block in message.content:
            if block.type == "tool_use":
                calls.append(called(block.name, block.input))
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": RESULTS[block.name]})
        more_turns = [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        arguments["messages"] = [*arguments["messages"], *more_turns]


def tools_streamed(ask: Ask) -> dict:
    return tools(ask, stream=True)


def thinking(ask: Ask) -> dict:
    return plain(ask, thinking=THINKING)


def thinking_streamed(ask: Ask) -> dict:
    return streamed(ask, thinking=THINKING)


def thinking_tools(ask: Ask) -> dict:
    return tools(ask, thinking=THINKING)


def thinking_tools_streamed(ask: Ask) -> dict:
    return tools(ask, stream=True, thinking=THINKING)


class Forecast(pydantic.BaseModel):
    """What is asked for."""

    city: str
    days: int
    kinds: list[str]


def structured(ask: Ask) -> dict:
    return {"value": sdk(ask).messages.parse(**request(ask, output_format=Forecast)).parsed_output.model_dump()}


def count(ask: Ask) -> dict:
    counted = request(ask, tools=TOOLS)
    del counted["max_tokens"]
    return {"tokens": sdk(ask).messages.count_tokens(**counted).input_tokens}


error = plain
error_streamed = streamed

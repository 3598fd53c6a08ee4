"""The OpenAI SDK."""

from __future__ import annotations

import openai
import pydantic
from driver import CHAT_TOOLS, HELLO, RESULTS, Ask, called


def sdk(ask: Ask) -> openai.OpenAI:
    return openai.OpenAI(api_key=ask.key, base_url=f"{ask.url}/v1", max_retries=0)


def plain(ask: Ask, **more) -> dict:
    message = sdk(ask).chat.completions.create(model=ask.model, messages=HELLO, **more).choices[0].message
    return {"text": message.content, "reasoning": getattr(message, "reasoning_content", None)}


def streamed(ask: Ask, **more) -> dict:
    pieces, reasoning = [], ""
    for chunk in sdk(ask).chat.completions.create(model=ask.model, messages=HELLO, stream=True, **more):
        for choice in chunk.choices:
            pieces += [choice.delta.content] if choice.delta.content else []
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
    return {"text": "".join(pieces), "pieces": len(pieces), "reasoning": reasoning}


def tools(ask: Ask, stream: bool = False, **more) -> dict:
    history, calls, reasoning = [*HELLO], [], ""
    while True:
        arguments = {"model": ask.model, "messages": history, "tools": CHAT_TOOLS, **more}
        if stream:
            with sdk(ask).chat.completions.stream(**arguments) as events:
                for _ in events:
                    pass
                choice = events.get_final_completion().choices[0]
        else:
            choice = sdk(ask).chat.completions.create(**arguments).choices[0]
        reasoning += getattr(choice.message, "reasoning_content", None) or ""
        # As the SDK's documentation says: the message goes back as it came.
        history.append(choice.message)
        if choice.finish_reason != "tool_calls":
            return {"text": choice.message.content, "calls": calls, "reasoning": reasoning}
        for call in choice.message.tool_calls:
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
    answer = sdk(ask).chat.completions.parse(model=ask.model, messages=HELLO, response_format=Forecast)
    return {"value": answer.choices[0].message.parsed.model_dump()}


def structured_streamed(ask: Ask) -> dict:
    with sdk(ask).chat.completions.stream(model=ask.model, messages=HELLO, response_format=Forecast) as events:
        for _ in events:
            pass
        return {"value": events.get_final_completion().choices[0].message.parsed.model_dump()}


def developer(ask: Ask) -> dict:
    """Instructions as OpenAI's newer models want them."""
    history = [HELLO[0] | {"role": "developer"}, HELLO[1]]
    return {"text": sdk(ask).chat.completions.create(model=ask.model, messages=history).choices[0].message.content}


def put_back(ask: Ask) -> dict:
    """An answer that came from Claude goes back to another model as it was dumped, with all that it has."""
    first = sdk(ask).chat.completions.create(model="anthropic-thinking", messages=HELLO, reasoning_effort="low")
    history = [*HELLO, first.choices[0].message.model_dump(), {"role": "user", "content": "And tomorrow?"}]
    return {"text": sdk(ask).chat.completions.create(model=ask.model, messages=history).choices[0].message.content}


error = plain
error_streamed = streamed

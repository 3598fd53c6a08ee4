"""pydantic-ai's agents: what they do alike with both of its models."""

from __future__ import annotations

import asyncio
from typing import Any, Callable

import pydantic
from driver import QUESTION, RESULTS, SYSTEM, Ask, called
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.messages import ModelResponse, ThinkingPart, ToolCallPart


class Forecast(pydantic.BaseModel):
    """A forecast."""

    city: str
    days: int
    kinds: list[str]


def agent(model: Any, **more) -> Agent:
    return Agent(model, system_prompt=SYSTEM, retries=0, **more)


def weather(city: str) -> str:
    """The weather of a city."""
    return RESULTS["weather"]


def time(city: str) -> str:
    """The time of a city."""
    return RESULTS["time"]


def seen(messages: list) -> dict:
    """What the history of a run has of calls and thoughts."""
    parts = [part for message in messages if isinstance(message, ModelResponse) for part in message.parts]
    calls = [called(part.tool_name, part.args) for part in parts if isinstance(part, ToolCallPart)]
    return {"calls": calls, "reasoning": "".join(part.content for part in parts if isinstance(part, ThinkingPart))}


def scenarios(model: Callable[[Ask], Any], thinks: dict) -> dict[str, Callable[[Ask], dict]]:
    """The scenarios of a model made by `model(ask)`; `thinks` are the settings that turn its thinking on."""

    def run(ask: Ask, settings: dict | None = None, **more) -> dict:
        result = agent(model(ask), **more).run_sync(QUESTION, model_settings=settings)
        output = result.output
        value = {"text": output} if isinstance(output, str) else {"value": output.model_dump()}
        return value | seen(result.all_messages())

    def stream(ask: Ask, settings: dict | None = None, **more) -> dict:
        async def go() -> dict:
            async with agent(model(ask), **more).run_stream(QUESTION, model_settings=settings) as result:
                pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
                return {"text": "".join(pieces), "pieces": len(pieces)} | seen(result.all_messages())

        return asyncio.run(go())

    both = {"tools": [weather, time]}
    return {
        "plain": run,
        "streamed": stream,
        "tools": lambda ask: run(ask, **both),
        "tools_streamed": lambda ask: stream(ask, **both),
        "thinking": lambda ask: run(ask, thinks),
        "thinking_streamed": lambda ask: stream(ask, thinks),
        "thinking_tools": lambda ask: run(ask, thinks, **both),
        "thinking_tools_streamed": lambda ask: stream(ask, thinks, **both),
        "structured_by_tool": lambda ask: run(ask, output_type=Forecast),
        "structured": lambda ask: run(ask, output_type=NativeOutput(Forecast)),
        "error": run,
        "error_streamed": stream,
    }

"""OpenAI's Agents SDK over chat completions."""

from __future__ import annotations

import asyncio

import agents
import openai
import pydantic
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool
from driver import QUESTION, RESULTS, SYSTEM, Ask, called
from openai.types.shared import Reasoning

agents.set_tracing_disabled(True)


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return RESULTS["weather"]


@function_tool
def time(city: str) -> str:
    """The time of a city."""
    return RESULTS["time"]


class Forecast(pydantic.BaseModel):
    """A forecast."""

    city: str
    days: int
    kinds: list[str]


def agent(ask: Ask, client: openai.AsyncOpenAI, **more) -> Agent:
    return Agent(name="a", instructions=SYSTEM, model=OpenAIChatCompletionsModel(ask.model, client), **more)


def sdk(ask: Ask) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=ask.key, base_url=f"{ask.url}/v1", max_retries=0)


def seen(result) -> dict:
    items = [item.raw_item for item in result.new_items]
    calls = [called(item.name, item.arguments) for item in items if getattr(item, "type", "") == "function_call"]
    thoughts = [part.text for item in items if getattr(item, "type", "") == "reasoning" for part in item.summary]
    output = result.final_output
    value = {"text": output} if isinstance(output, str) else {"value": output.model_dump()}
    return value | {"calls": calls, "reasoning": "".join(thoughts)}


def run(ask: Ask, **more) -> dict:
    async def go() -> dict:
        return seen(await Runner.run(agent(ask, sdk(ask), **more), QUESTION))

    return asyncio.run(go())


def stream(ask: Ask, **more) -> dict:
    async def go() -> dict:
        result = Runner.run_streamed(agent(ask, sdk(ask), **more), QUESTION)
        pieces = 0
        async for event in result.stream_events():
            pieces += event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        return seen(result) | {"pieces": pieces}

    return asyncio.run(go())


BOTH = {"tools": [weather, time]}
THINKS = {"model_settings": ModelSettings(reasoning=Reasoning(effort="low"))}
plain = run
streamed = stream
error = run
error_streamed = stream


def tools(ask: Ask) -> dict:
    return run(ask, **BOTH)


def tools_streamed(ask: Ask) -> dict:
    return stream(ask, **BOTH)


def thinking(ask: Ask) -> dict:
    return run(ask, **THINKS)


def thinking_streamed(ask: Ask) -> dict:
    return stream(ask, **THINKS)


def thinking_tools(ask: Ask) -> dict:
    return run(ask, **BOTH, **THINKS)


def thinking_tools_streamed(ask: Ask) -> dict:
    return stream(ask, **BOTH, **THINKS)


def structured(ask: Ask) -> dict:
    return run(ask, output_type=Forecast)


def handoff(ask: Ask) -> dict:
    """An agent with tools hands over to one without; the history with its calls goes along."""

    async def go() -> dict:
        client = sdk(ask)
        second = Agent(name="second", instructions=SYSTEM, model=OpenAIChatCompletionsModel(ask.model, client))
        first = agent(ask, client, tools=[weather, time], handoffs=[second])
        return seen(await Runner.run(first, QUESTION))

    return asyncio.run(go())

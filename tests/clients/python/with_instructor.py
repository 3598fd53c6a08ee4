"""instructor over the OpenAI SDK, by a forced tool and by a JSON schema."""

from __future__ import annotations

import instructor
import openai
import pydantic
from driver import HELLO, Ask


class Forecast(pydantic.BaseModel):
    """What is asked for."""

    city: str
    days: int
    kinds: list[str]


def client(ask: Ask, mode: instructor.Mode) -> instructor.Instructor:
    sdk = openai.OpenAI(api_key=ask.key, base_url=f"{ask.url}/v1", max_retries=0)
    return instructor.from_openai(sdk, mode=mode)


def create(ask: Ask, mode: instructor.Mode) -> dict:
    value = client(ask, mode).chat.completions.create(model=ask.model, messages=HELLO, response_model=Forecast, max_retries=1)
    return {"value": value.model_dump()}


def structured_by_tool(ask: Ask) -> dict:
    return create(ask, instructor.Mode.TOOLS)


def structured(ask: Ask) -> dict:
    return create(ask, instructor.Mode.JSON_SCHEMA)


def structured_by_tool_streamed(ask: Ask) -> dict:
    parts = client(ask, instructor.Mode.TOOLS).chat.completions.create_partial
    return {"value": [*parts(model=ask.model, messages=HELLO, response_model=Forecast)][-1].model_dump()}


error = structured_by_tool

"""SDK clients that talk to the shared gateway."""

from __future__ import annotations

from typing import Iterator

import anthropic
import openai
import pytest

from gateway import Gateway


@pytest.fixture
def openai_sdk(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-anything", base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_sdk(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="sk-anything", base_url=gateway.url, max_retries=0) as client:
        yield client

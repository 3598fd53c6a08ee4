"""The Python libraries over the SDKs: LiteLLM, LangChain, instructor, pydantic-ai, OpenAI Agents."""

from __future__ import annotations

import pytest

from clients.catalogue import cases


@pytest.mark.parametrize("client, format, scenario", cases("python", "instructor"))
def test_library(play, client, format, scenario):
    play(client, format, scenario)

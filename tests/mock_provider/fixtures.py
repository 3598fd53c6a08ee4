"""Pytest fixtures around a mock."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from .openai_wire import OpenAiMock


def one_token_each(_: dict) -> dict:
    """The usage of an answer: one token in, one out."""
    return {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def openai_mock(scope: str = "function", **settings: Any) -> Any:
    """A fixture: an OpenAI mock with these attributes set, stopped when `scope` is over."""

    @pytest.fixture(scope=scope)
    def mock() -> Iterator[OpenAiMock]:
        mock = OpenAiMock()
        for name, value in settings.items():
            setattr(mock, name, value)
        yield mock
        mock.stop()

    return mock

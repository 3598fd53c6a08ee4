"""Prompts that are marked to be cached stay with the deployment that has them."""

from __future__ import annotations

from typing import Callable

from gateway import Gateway, deployment
from mock_provider import AnthropicMock, status

DOCUMENT = "A very long document. " * 400


def conversation(name: str, *turns: str) -> dict:
    """A conversation about a document that is to be cached, as Anthropic's clients send it."""
    document = {"type": "text", "text": f"{name}: {DOCUMENT}", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": [document]}, {"role": "assistant", "content": "I have read it."}]
    messages += [{"role": "assistant" if turn % 2 else "user", "content": text} for turn, text in enumerate(turns)]
    return {"max_tokens": 16, "messages": messages}


def test_a_conversation_stays_where_its_prompt_is_cached(start: Callable[..., Gateway], mocks) -> None:
    claudes = [mocks(AnthropicMock, name=f"claude {at}") for at in range(4)]
    models = [deployment("claude", mock.params(), id=f"claude-{at}") for at, mock in enumerate(claudes)]
    settings = {"num_retries": 2, "optional_pre_call_checks": ["prompt_caching"], "disable_cooldowns": True}
    gateway = start({"model_list": models, "router_settings": settings})

    def served_by(body: dict, path: str) -> str:
        answer = gateway.client.post(path, json=body | {"model": "claude"})
        assert answer.status_code == 200, answer.text
        return answer.headers["x-litellm-model-id"]

    homes = set()
    for name in map(str, range(8)):
        homes_of_one = set()
        turns = ["question 0"]
        for turn in range(1, 5):
            # Either API: it is the same messages, and the gateway has two workers.
            for path in ("/v1/messages", "/v1/chat/completions"):
                homes_of_one.add(served_by(conversation(name, *turns), path))
            turns += ["an answer", f"question {turn}"]
        assert len(homes_of_one) == 1
        homes |= homes_of_one
    # Eight conversations at one of four by chance: 4⁻⁷.
    assert len(homes) > 1
    # When it fails another one takes over, and keeps the conversation.
    home = served_by(conversation("0", "hello"), "/v1/messages")
    claudes[int(home[-1])].default = status(500)
    other = served_by(conversation("0", "hello"), "/v1/messages")
    assert other != home
    claudes[int(home[-1])].clear()
    assert {served_by(conversation("0", "hello", "a", "b"), "/v1/messages") for _ in range(8)} == {other}

"""Prompt templates: a chat becomes one text for a text generation server, and its text a chat answer again."""

from __future__ import annotations

import json

import pytest

from gateway import Gateway, chunks_of, deployment, events_of, text_of
from mock_provider import GenerateMock

TEMPLATE = {
    "initial_prompt_value": "\n",
    "roles": {
        "system": {"pre_message": "<|im_start|>system\n", "post_message": "<|im_end|>"},
        "assistant": {"pre_message": "<|im_start|>assistant\n", "post_message": "<|im_end|>"},
        "user": {"pre_message": "<|im_start|>user\n", "post_message": "<|im_end|>"},
    },
    "final_prompt_value": "\n",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "max_tokens": 4096,
}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes?"},
    {"role": "user", "content": "gr\u00fc\u00dfe"},
]
PROMPT = (
    "<s>\n<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nhi<|im_end|><|im_start|>assistant\nyes?<|im_end|></s>"
    "<s><|im_start|>user\ngr\u00fc\u00dfe<|im_end|>\n"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    mock = GenerateMock()
    models = [deployment("mpt", mock.params() | TEMPLATE, id="mpt-1")]
    gateway = Gateway(tmp_path_factory.mktemp("templates"), {"model_list": models, "router_settings": {"num_retries": 0}})
    yield gateway, mock
    gateway.stop()
    mock.stop()


@pytest.fixture
def templated(world):
    world[1].clear()
    return world


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_a_chat_is_one_prompt(templated, stream):
    gateway, mock = templated
    answer = gateway.chat("mpt", messages=TURNS, stream=stream, temperature=0.5, stop=["STOP"])
    assert answer.status_code == 200, answer.text
    text = text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert text == mock.text
    sent = mock.last.json
    assert sent["inputs"] == PROMPT and sent["stream"] is stream
    wanted = {"max_new_tokens": 4096, "temperature": 0.5, "stop": ["STOP"], "do_sample": True, "return_full_text": False}
    assert sent["parameters"].items() >= wanted.items()


def test_its_usage_is_the_servers(templated):
    gateway, _ = templated
    usage = gateway.chat("mpt").json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (11, 7, 18)
    chunks = chunks_of(gateway.chat("mpt", stream=True, stream_options={"include_usage": True}).content)
    assert chunks[-1]["usage"]["total_tokens"] == 18


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_anthropic_clients_get_there_too(templated, stream):
    gateway, mock = templated
    answer = gateway.messages("mpt", system="Be brief.", stream=stream)
    assert answer.status_code == 200, answer.text
    if stream:
        events = [json.loads(data) for _, data in events_of(answer.content)]
        text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    else:
        text = answer.json()["content"][0]["text"]
    assert text == mock.text
    assert mock.last.json["inputs"] == "<s>\n<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nhi<|im_end|>\n"


@pytest.mark.parametrize(
    "failure, code, name",
    [
        ("bad_request", 400, "BadRequestError"),
        ("context_window", 400, "ContextWindowExceededError"),
        ("rate_limit", 429, "RateLimitError"),
        ("server", 500, "InternalServerError"),
    ],
)
def test_its_errors_are_understood(templated, failure, code, name):
    gateway, mock = templated
    mock.script(mock.error(failure))
    answer = gateway.chat("mpt")
    assert answer.status_code == code, answer.text
    assert f"litellm.{name}" in answer.json()["error"]["message"]
    assert mock.error_answer(failure)[1]["error"] in answer.json()["error"]["message"]

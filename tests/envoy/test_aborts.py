"""Calls that nobody waits for: what they cost whoever made them."""

from __future__ import annotations

import json
import socket
from typing import Any, Callable, Iterator

import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, free_port, wait_until
from mock_provider import Gate, OpenAiMock, gated, hang, status
from mock_provider.fixtures import openai_mock

PRICES = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}


mock = openai_mock("module")


@pytest.fixture(scope="module")
def unreachable() -> Iterator[int]:
    """A port where connections are never made: nobody takes those that fill its queue."""
    with socket.create_server(("127.0.0.1", free_port()), backlog=0) as server:
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
            waiting.append(sock)
        yield server.getsockname()[1]
        for sock in waiting:
            sock.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, mock: OpenAiMock, unreachable: int) -> Iterator[Gateway]:
    nowhere = {"model": "openai/x", "api_base": f"http://127.0.0.1:{unreachable}/v1", "api_key": "k"}
    config = {
        "model_list": [deployment("m", mock.params() | PRICES), deployment("nowhere", nowhere | PRICES)],
        "general_settings": {"master_key": MASTER_KEY},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    gateway = Gateway(tmp_path_factory.mktemp("aborts"), config)
    yield gateway
    gateway.stop()


@pytest.fixture(autouse=True)
def fresh(mock: OpenAiMock) -> None:
    mock.clear()


def rows_of(gateway: Gateway, key: str, count: int) -> list[dict]:
    """The key's rows of the spend log, once there are so many."""
    rows = lambda: gateway.manage("/spend/logs", api_key=key)  # noqa: E731
    return wait_until(lambda: len(found := rows()) >= count and found, f"{count} rows in the spend log")


def ask(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello " * 100}]} | more).encode()


def leave(raw: Callable, gateway: Gateway, key: str, body: bytes, once: Callable[[], Any]) -> None:
    """Sends a call and closes the connection once something has happened."""
    connection = raw(gateway).post(body, b"authorization: Bearer " + key.encode())
    once()
    connection.socket.shutdown(socket.SHUT_RDWR)
    connection.close()


@pytest.mark.parametrize("way", ["buffered", "streamed", "headers of a stream"])
def test_who_leaves_before_the_answer_pays_for_the_prompt(gateway: Gateway, mock: OpenAiMock, raw: Callable, way: str) -> None:
    gate = Gate()
    mock.script(gated(gate, after=0) if way == "headers of a stream" else hang())
    key = gateway.new_key(max_budget=0.2)
    body = ask("m", stream=way != "buffered")
    leave(raw, gateway, key, body, gate.wait_reached if way == "headers of a stream" else lambda: mock.wait_requests(1))
    mock.last.wait_gone()
    gate.open()
    (row,) = rows_of(gateway, key, 1)
    prompt = -(-len(body) // 4)
    assert row["spend"] == pytest.approx(prompt * PRICES["input_cost_per_token"])
    assert (row["prompt_tokens"], row["completion_tokens"], row["status"]) == (prompt, 0, "failure")
    assert row["metadata"]["usage_estimated"] is True
    assert gateway.spend_of(key) == pytest.approx(row["spend"])
    # The budget holds: one such call is within it, the next is not let in.
    mock.clear()
    mock.script(hang())
    leave(raw, gateway, key, body, lambda: mock.wait_requests(1))
    rows_of(gateway, key, 2)
    refused = wait_until(
        lambda: (answer := gateway.chat("m", headers=bearer(key))).status_code == 400 and answer, "the budget to be used up"
    )
    assert refused.json()["error"]["type"] == "budget_exceeded"


def test_a_clients_own_time_out_costs_the_prompt(gateway: Gateway, mock: OpenAiMock) -> None:
    mock.script(hang())
    key = gateway.new_key()
    answer = gateway.chat("m", headers=bearer(key), timeout=0.3)
    assert answer.status_code == 408, answer.text
    (row,) = rows_of(gateway, key, 1)
    assert row["spend"] > 0 and (row["prompt_tokens"] > 0, row["completion_tokens"]) == (True, 0)
    assert float(answer.headers["x-litellm-response-cost"]) == pytest.approx(row["spend"])


def test_a_failure_costs_nothing(gateway: Gateway, mock: OpenAiMock) -> None:
    mock.script(status(500))
    key = gateway.new_key()
    assert gateway.chat("m", headers=bearer(key)).status_code == 500
    (row,) = rows_of(gateway, key, 1)
    assert (row["spend"], row["prompt_tokens"]) == (0, 0)


@pytest.mark.parametrize("timed_out", [False, True], ids=["left", "timed out"])
def test_what_came_to_no_provider_costs_nothing(gateway: Gateway, raw: Callable, timed_out: bool) -> None:
    key = gateway.new_key(max_parallel_requests=2)
    if timed_out:
        assert gateway.chat("nowhere", headers=bearer(key), timeout=0.3).status_code == 408
    else:
        left = "x-ratelimit-api_key-remaining-max_parallel_requests"
        busy = lambda: gateway.chat("m", headers=bearer(key)).headers.get(left) == "0"  # noqa: E731
        leave(raw, gateway, key, ask("nowhere"), lambda: wait_until(busy, "the call to be under way"))
    rows = lambda: [row for row in rows_of(gateway, key, 1) if row["model_group"] == "nowhere"]  # noqa: E731
    (row,) = wait_until(rows, "the call in the spend log")
    assert (row["spend"], row["prompt_tokens"]) == (0, 0)


@pytest.mark.parametrize("told", [None, {"prompt_tokens": -5, "completion_tokens": "x", "total_tokens": 1e300}], ids=["none", "nonsense"])
def test_an_answer_without_usage_costs_the_same_buffered_and_streamed(gateway: Gateway, mock: OpenAiMock, told: dict | None) -> None:
    key = gateway.new_key()
    text = "four words or so"
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "x"}
    chunk = whole | {"object": "chat.completion.chunk"}
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    deltas = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in ("four ", "words", " or so")]
    events = [chunk | {"choices": [delta]} for delta in deltas]
    events += [chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    usage = {} if told is None else {"usage": told}
    stream = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in [*events, chunk | {"choices": []} | usage])
    mock.script(
        status(200, whole | {"choices": [message]} | usage),
        status(200, stream + b"data: [DONE]\n\n", [("content-type", "text/event-stream")]),
    )
    for stream in (False, True):
        # Bodies of one length.
        answer = gateway.chat("m", headers=bearer(key), stream=stream, user="u" if stream else "")
        assert answer.status_code == 200, answer.text
    spends = [row["spend"] for row in rows_of(gateway, key, 2)]
    assert spends[0] == spends[1] > len(text) / 4 * PRICES["output_cost_per_token"]

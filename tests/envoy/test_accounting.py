"""What is counted: requests, tokens and money, the same whether an answer is streamed or not."""

from __future__ import annotations

import concurrent.futures
import decimal

import pytest

from gateway import Gateway, chunks_of, deployment, text_of, used, wait_until
from mock_provider import AnthropicMock, AzureMock, OpenAiMock, cut, status

WIRES = {"openai": OpenAiMock, "azure": AzureMock, "anthropic": AnthropicMock}
PRICES = {"input_cost_per_token": 0.000003, "output_cost_per_token": "1.5e-05"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    mocks = {wire: kind() for wire, kind in WIRES.items()}
    models = [deployment(wire, mock.params() | PRICES, id=wire) for wire, mock in mocks.items()]
    models += [deployment(f"counted-{wire}", mock.params() | PRICES, id=f"counted-{wire}") for wire, mock in mocks.items()]
    models += [deployment("mocked", {"model": "openai/gpt-4o-mini", "api_key": "k", "mock_response": "as configured"})]
    models += [deployment("silent", {"model": "openai/gpt-4o-mini", "api_key": "k", "mock_timeout": True, "timeout": 0.2})]
    config = {"model_list": models, "router_settings": {"num_retries": 0, "disable_cooldowns": True}}
    gateway = Gateway(tmp_path_factory.mktemp("accounting"), config)
    yield gateway, mocks
    gateway.stop()
    for mock in mocks.values():
        mock.stop()


COST = decimal.Decimal("0.000003") * 11 + decimal.Decimal("0.000015") * 7


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("wire", WIRES)
def test_streamed_costs_what_buffered_costs(world, wire, api):
    gateway, _ = world
    answers = [getattr(gateway, api)(wire, stream=stream) for stream in (False, True)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert decimal.Decimal(answers[0].headers["x-litellm-response-cost"]) == COST
    records = [used(gateway.access_record(answer.headers["x-litellm-call-id"])) for answer in answers]
    for record in records:
        assert decimal.Decimal(record["cost"]) == COST
        assert (record["prompt_tokens"], record["completion_tokens"], record["estimated"]) == (11, 7, False)
    assert [record["stream"] for record in records] == [False, True]


def counted(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of a counter over all series that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    rows = gateway.stats().items()
    return sum(value for series, value in rows if series.split("{")[0] == name and all(label in series for label in wanted))


@pytest.mark.parametrize("wire", WIRES)
def test_counters_after_known_traffic(world, wire):
    gateway, mocks = world
    model = f"counted-{wire}"
    for stream in (False, True, False):
        assert gateway.chat(model, stream=stream).status_code == 200
    mocks[wire].script(mocks[wire].error("rate_limit"))
    assert gateway.chat(model).status_code == 429
    # Counted when Envoy logs the request, which may be after the client has its answer.
    wait_until(lambda: counted(gateway, "tollgate_requests", model=model) == 4, "four requests counted")
    assert counted(gateway, "tollgate_requests", model=model, status="200") == 3
    assert counted(gateway, "tollgate_requests", model=model, status="429") == 1
    assert counted(gateway, "tollgate_attempts", model=model) == 4
    assert counted(gateway, "tollgate_tokens", model=model, kind="input") == 33
    assert counted(gateway, "tollgate_tokens", model=model, kind="output") == 21
    assert counted(gateway, "tollgate_cost_nanodollars", model=model) == COST * 3 * 10**9
    assert counted(gateway, "tollgate_usage_missing", model=model) == 0


def test_unknown_models_share_one_counter(world):
    """What a client makes up is not a label: it could make up very many."""
    gateway, _ = world
    before = counted(gateway, "tollgate_requests", model="other")
    for name in ("made-up-1", "made-up-2", 'x";evil="1'):
        assert gateway.chat(name).status_code == 400
    wait_until(lambda: counted(gateway, "tollgate_requests", model="other") == before + 3, "three more requests counted")
    assert not [series for series in gateway.stats() if "made-up" in series or "evil" in series]


def test_a_broken_stream_is_charged_as_far_as_it_came(world):
    gateway, mocks = world
    mocks["openai"].script(cut(5))
    came = b""
    try:
        with gateway.client.stream(
            "POST",
            "/v1/chat/completions",
            json={"model": "openai", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
        ) as answer:
            call_id = answer.headers["x-litellm-call-id"]
            for piece in answer.iter_raw():
                came += piece
    except Exception as broken:
        assert "incomplete" in str(broken)
    record = used(gateway.access_record(call_id))
    text = text_of(chunks_of(came + b"data: [DONE]\n\n")).encode()
    assert text and record["estimated"] is True and record["completion_tokens"] == -(-len(text) // 4)
    assert decimal.Decimal(record["cost"]) > 0


# -- answers without a provider


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_a_configured_mock_response(world, stream):
    gateway, _ = world
    answers = [api("mocked", stream=stream) for api in (gateway.chat, gateway.messages)]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert "as" in answer.text and "configured" in answer.text
        record = used(gateway.access_record(answer.headers["x-litellm-call-id"]))
        assert (record["prompt_tokens"], record["completion_tokens"]) == (10, 20)


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_mock_timeout(world, stream):
    gateway, _ = world
    answer = gateway.chat("silent", stream=stream)
    assert answer.status_code == 408, answer.text
    assert "litellm.Timeout" in answer.json()["error"]["message"] and answer.headers["x-litellm-timeout"] == "0.2"
    answer = gateway.chat("openai", mock_timeout=True, timeout=0.1, stream=stream)
    assert answer.status_code == 408, answer.text


def test_mock_timeouts_wait_without_holding_up_anybody(world):
    """Waiting requests are looked after by a tick of each worker; others are served meanwhile."""
    gateway, mocks = world
    mocks["openai"].clear()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        waiting = [pool.submit(gateway.chat, "openai", mock_timeout=True, timeout=1) for _ in range(16)]
        served = [pool.submit(gateway.chat, "openai") for _ in range(16)]
        assert {answer.result().status_code for answer in served} == {200}
        assert {answer.result().status_code for answer in waiting} == {408}
    assert len(mocks["openai"].requests) == 16


def test_a_provider_error_costs_nothing(world):
    gateway, mocks = world
    mocks["openai"].script(status(500))
    answer = gateway.chat("openai")
    record = used(gateway.access_record(answer.headers["x-litellm-call-id"]))
    assert "cost" not in record and record["error"] == "InternalServerError"

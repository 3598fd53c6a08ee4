"""A deployment that refuses is left alone by the whole group, on every worker."""

from __future__ import annotations

import time

import httpx
import pytest

from gateway import Gateway, deployment, wait_until
from mock_provider import OpenAiMock

FAILURES = ("auth", "not_found", "rate_limit", "bad_request")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """For each failure a group of one failing and one good deployment, and a group of one."""
    failing = {failure: OpenAiMock(name=failure) for failure in FAILURES}
    good = OpenAiMock(name="good")
    models = []
    for failure, mock in failing.items():
        mock.default = mock.error(failure)
        models += [
            deployment(failure, mock.params(), id=f"{failure}-bad"),
            deployment(failure, good.params(), id=f"{failure}-good"),
        ]
        models += [deployment(f"{failure}-alone", mock.params(), id=f"{failure}-alone")]
    gateway = Gateway(
        tmp_path_factory.mktemp("cooldown"),
        {"model_list": models, "router_settings": {"num_retries": 2, "cooldown_time": 300}},
        workers=2,
    )
    yield gateway, failing, good
    gateway.stop()
    for mock in [*failing.values(), good]:
        mock.stop()


def on_new_connection(gateway: Gateway, model: str) -> httpx.Response:
    """A request on a connection of its own: any worker may get it."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30, trust_env=False)


@pytest.mark.parametrize("failure", ["auth", "not_found", "rate_limit"])
def test_a_refusing_deployment_is_left_alone_on_all_workers(world, failure):
    gateway, failing, _ = world
    bad = failing[failure].clear()
    bad.default = bad.error(failure)
    for _ in range(64):
        if bad.requests:
            break
        before = len(bad.requests)
        code = on_new_connection(gateway, failure).status_code
        # A 404 is not retried: it goes straight to the fallbacks, and there are none.
        assert code == (404 if len(bad.requests) > before and failure == "not_found" else 200)
    assert len(bad.requests) == 1, "chosen once in 64 coin flips"
    answers = [on_new_connection(gateway, failure) for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-litellm-model-id"] for answer in answers} == {f"{failure}-good"}
    assert len(bad.requests) == 1, "cooled down for everybody"


def test_a_bad_request_cools_nothing_down(world):
    gateway, failing, _ = world
    bad = failing["bad_request"].clear()
    bad.default = bad.error("bad_request")
    codes = [on_new_connection(gateway, "bad_request").status_code for _ in range(64)]
    assert set(codes) == {200, 400}
    assert len(bad.requests) == codes.count(400) > 1


def test_a_group_with_nobody_left_says_when_to_come_back(world):
    gateway, failing, _ = world
    bad = failing["auth"].clear()
    bad.default = bad.error("auth")
    assert on_new_connection(gateway, "auth-alone").status_code == 401
    for _ in range(8):
        answer = on_new_connection(gateway, "auth-alone")
        assert answer.status_code == 429
        assert "No deployments available for selected model" in answer.json()["error"]["message"]
    assert len(bad.requests) == 1


@pytest.mark.parametrize("header", [("retry-after", "2"), ("retry-after-ms", "2000")], ids=["seconds", "milliseconds"])
def test_the_provider_says_how_long(start, mocks, header):
    """`retry-after` counts instead of `cooldown_time`: the deployment is called again after it, and not before."""
    bad, good = mocks(OpenAiMock, name="bad"), mocks(OpenAiMock, name="good")
    bad.script(bad.error("rate_limit", headers=[header]))
    models = [deployment("pair", bad.params(), id="bad"), deployment("pair", good.params(), id="good")]
    gateway = start({"model_list": models, "router_settings": {"num_retries": 1, "cooldown_time": 300}})

    def called(times: int) -> bool:
        assert on_new_connection(gateway, "pair").status_code == 200
        return len(bad.requests) >= times

    wait_until(lambda: called(1), "the limited deployment to be chosen")
    since = time.monotonic()
    wait_until(lambda: called(2), "the limited deployment to be chosen again")
    # Both clocks are this machine's; the gateway's began before the answer came back.
    assert 1.5 < time.monotonic() - since < 20


def test_a_rate_limit_alone_is_not_cooled_down(world):
    gateway, failing, _ = world
    bad = failing["rate_limit"].clear()
    bad.script(*[bad.error("rate_limit", headers=[("retry-after", "0")])] * 3)
    answer = on_new_connection(gateway, "rate_limit-alone")
    assert answer.status_code == 429 and "litellm.RateLimitError" in answer.json()["error"]["message"]
    bad.clear()
    assert on_new_connection(gateway, "rate_limit-alone").status_code == 200

"""The filter panics, in a build that does so on request: what is lost is the streams of one worker, and only those under way."""

from __future__ import annotations

import contextlib
import hashlib
import threading

import httpx
import pytest

from gateway import MASTER_KEY, PlainEnvoy, bearer, deployment, wait_until
from mock_ledger import SECRET, MockLedger
from mock_provider import Gate, gated, ok
from mock_provider.fixtures import openai_mock

pytestmark = pytest.mark.wasm

CALLBACKS = ("request_headers", "request_body", "attempt", "response_headers", "response_body", "log")


mock = openai_mock("module")


@pytest.fixture(scope="module")
def fragile(tmp_path_factory, fault_module, mock):
    """A plain Envoy, two workers, with the filter that panics on request."""
    # A rendered configuration holds no keys: they come from the environment.
    good, bad = (mock.params() | {"api_key": f"os.environ/{name}"} for name in ("GOOD_KEY", "BAD_KEY"))
    config = {
        "model_list": [
            deployment("a", good, id="a-1"),
            deployment("pair", good, id="pair-good"),
            deployment("pair", bad, id="pair-bad"),
        ],
        "router_settings": {"num_retries": 1, "cooldown_time": 300},
    }
    envoy = PlainEnvoy(tmp_path_factory.mktemp("fragile"), config, fault_module, {"GOOD_KEY": mock.key, "BAD_KEY": "sk-refused"})
    yield envoy
    envoy.stop()


@pytest.fixture
def envoy(fragile, mock):
    mock.clear()
    wait_until(lambda: served(fragile), "both workers to serve")
    mock.clear()
    return fragile


def reloads(envoy: PlainEnvoy) -> int:
    """VMs that were made anew. Each role counts them for itself."""
    return envoy.lost().get("wasm.tollgate_policy.vm_reload_success", 0)


def served(envoy: PlainEnvoy, model: str = "a", **body) -> bool:
    """Whether requests are served on whatever worker they come to."""
    return all(envoy.serves(model, **body) for _ in range(8))


def provoke(envoy: PlainEnvoy, callback: str, **body) -> httpx.Response | None:
    """A request that panics; `None` when its connection broke."""
    with envoy.connect() as client:
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]} | body
        try:
            return client.post("/v1/chat/completions", json=body, headers={"x-fault": callback})
        except httpx.RemoteProtocolError:
            return None


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_panic_costs_one_request(envoy, mock, callback, stream):
    before = reloads(envoy)
    answer = provoke(envoy, callback, stream=stream)
    if callback == "log":
        # The answer is out by then.
        assert answer is not None and answer.status_code == 200
    elif answer is not None:
        assert answer.status_code >= 500, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["error"]["message"]
    assert all("x-fault" not in request.header_names() for request in mock.requests)
    # Envoy makes the new VM with the next request on that worker, but not twice within about a second.
    wait_until(lambda: served(envoy, stream=stream) and reloads(envoy) > before, "every request to be served, by a new VM too")


def test_other_workers_do_not_notice(envoy, mock):
    """Of many streams under way some are on the worker whose VM dies; all others end whole."""
    gate = Gate()
    mock.default = gated(gate, after=3)
    ends: list[bool] = []

    def listen() -> None:
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        with envoy.connect() as client:
            try:
                ends.append("data: [DONE]" in client.post("/v1/chat/completions", json=body).text)
            except httpx.RemoteProtocolError:
                ends.append(False)

    listeners = [threading.Thread(target=listen) for _ in range(24)]
    for listener in listeners:
        listener.start()
    mock.wait_requests(24)
    gate.wait_reached()
    provoke(envoy, "request_headers")
    gate.open()
    for listener in listeners:
        listener.join(30)
    assert len(ends) == 24
    assert 0 < ends.count(True) < 24, "streams of one worker break, those of the other end whole"
    mock.default = ok()
    wait_until(lambda: served(envoy), "every request to be served again")


def test_cooldowns_survive(envoy, mock):
    """Shared data belongs to the process: what a VM knew about a refusing deployment, the next one knows."""

    def refused() -> int:
        return sum(request.header("authorization") == "Bearer sk-refused" for request in mock.requests)

    wait_until(lambda: envoy.serves("pair") and refused(), "the refusing deployment to be chosen")
    for callback in ("request_headers", "attempt"):
        before = reloads(envoy)
        provoke(envoy, callback)
        wait_until(
            lambda was=before: served(envoy, "pair") and reloads(envoy) > was, "every request to be served, by a new VM too"
        )
    for _ in range(32):
        assert envoy.serves("pair")
    assert refused() == 1, "known to be resting, by VMs that never saw it fail"


def test_a_lost_vm_holds_no_place(tmp_path, fault_module, mock):
    """A stream holds the one place of its key when the VM of its worker is lost: what that VM held is free again."""
    mock.clear()
    config = {
        "model_list": [deployment("a", mock.params() | {"api_key": "os.environ/GOOD_KEY"})],
        "router_settings": {"num_retries": 0},
        "general_settings": {
            "master_key": "os.environ/MASTER",
            "keys": [{"token": hashlib.sha256(b"sk-one-at-a-time").hexdigest(), "max_parallel_requests": 1}],
        },
    }
    envoy = PlainEnvoy(tmp_path / "envoy", config, fault_module, {"GOOD_KEY": mock.key, "MASTER": MASTER_KEY})
    try:
        one, master = bearer("sk-one-at-a-time"), bearer(MASTER_KEY)
        gate = Gate()
        mock.script(gated(gate, after=3))
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "stream": True}

        def hold() -> None:
            with envoy.connect() as client, contextlib.suppress(httpx.RemoteProtocolError):
                client.post("/v1/chat/completions", json=body, headers=one)

        def ask(headers: dict) -> int:
            # A connection of its own, which comes to one of the workers.
            with envoy.connect() as client, contextlib.suppress(httpx.RemoteProtocolError):
                return client.post("/v1/chat/completions", json=body | {"stream": False}, headers=headers).status_code
            return 0

        holder = threading.Thread(target=hold)
        holder.start()
        gate.wait_reached()
        assert {ask(one) for _ in range(8)} == {429}, "the place is taken, whichever worker is asked"

        def is_free() -> bool:
            ask(master | {"x-fault": "request_headers"})
            return ask(one) == 200

        wait_until(is_free, "the place to be free once the VM that holds it is lost")
        gate.open()
        holder.join(30)
    finally:
        envoy.stop()


def test_what_a_lost_vm_has_served_is_charged(tmp_path, fault_module, mock):
    """Usage that waits in a VM to be told is told when that VM is lost."""
    mock.clear()
    ledger = MockLedger()
    key = bearer(ledger.new_key("sk-lost"))
    config = {
        "model_list": [deployment("a", mock.params() | {"api_key": "os.environ/GOOD_KEY"})],
        "general_settings": {"master_key": "os.environ/MASTER"},
        "tollgate_settings": {"ledger_url": ledger.url},
    }
    secrets = {"GOOD_KEY": mock.key, "MASTER": MASTER_KEY, "TOLLGATE_LEDGER_KEY": SECRET}
    body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
    envoy = PlainEnvoy(tmp_path / "envoy", config, fault_module, secrets)
    served = 0
    try:
        for _ in range(4):

            def answers() -> bool:
                with envoy.connect() as client, contextlib.suppress(httpx.RemoteProtocolError):
                    return client.post("/v1/chat/completions", json=body, headers=key).status_code == 200
                return False

            wait_until(answers, "a VM that serves")
            # One connection is one worker's.
            with envoy.connect() as client:
                for _ in range(25):
                    assert client.post("/v1/chat/completions", json=body, headers=key).status_code == 200
                with contextlib.suppress(httpx.RemoteProtocolError):
                    client.post("/v1/chat/completions", json=body, headers=key | {"x-fault": "request_headers"})
            served = len(mock.requests)
        assert served > 100
        wait_until(lambda: len(ledger.events) >= served, "all that was served in the ledger")
        assert len(ledger.events) == served == len({event["id"] for event in ledger.events})
    finally:
        envoy.stop()
        ledger.stop()


def test_a_fault_header_means_nothing_in_a_release(gateway, providers):
    for callback in CALLBACKS:
        assert gateway.chat("openai", headers={"x-fault": callback}).status_code == 200

"""What one client can make the gateway hold: memory of uploads that stop, Envoy's main thread, connections."""

from __future__ import annotations

import json
import pathlib
import socket
import threading

import pytest

from gateway import MASTER_KEY, bearer, deployment, wait_until
from mock_provider import Gate, gated

MIB = 1 << 20


def config_of(providers, **settings) -> dict:
    return {"model_list": [deployment("a", providers.openai.params(), id="a-1")], "tollgate_settings": settings}


def heads(length: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % length
    )


class Upload:
    """A request that announces more than it sends, and then waits."""

    def __init__(self, port: int, announced: int, sent: int = 0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(heads(announced))
        self.refused = False
        part = b'{"model":"a","messages":[{"role":"user","content":"' + b"x" * MIB
        try:
            while sent > 0:
                self.socket.sendall(part[: min(sent, MIB)])
                sent -= MIB
        except OSError:
            # Answered and closed before it was through.
            self.refused = True

    def answer(self) -> bytes:
        """All that comes until the gateway closes the connection."""
        whole = b""
        try:
            while part := self.socket.recv(65536):
                whole += part
        except ConnectionResetError:
            pass
        self.socket.close()
        return whole


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    fields = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * 4096


def test_an_upload_that_stops_is_ended_and_others_are_served(start, providers):
    gateway = start(config_of(providers, upload_timeout=1))
    uploads = [Upload(gateway.port, 30 * MIB, 2 * MIB) for _ in range(10)]
    assert gateway.chat("a").status_code == 200
    for upload in uploads:
        answer = upload.answer()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408"), answer[:200]
        error = json.loads(body)["error"]
        assert error["type"] == "invalid_request_error" and "tollgate_settings.upload_timeout" in error["message"]
    assert gateway.admin("/stats?filter=http.tollgate.downstream_rq_active$").text.strip().endswith(": 0")


def test_an_answer_may_take_longer_than_an_upload(start, providers):
    """Streamed and buffered: the clock of the upload stops when the request is there."""
    gateway = start(config_of(providers, upload_timeout=0.3))
    for stream in (False, True):
        gate = Gate()
        providers.openai.script(gated(gate))
        answers: list = []
        asking = threading.Thread(target=lambda: answers.append(gateway.chat("a", stream=stream)))
        asking.start()
        gate.wait_reached()
        # Until a second upload that began later is over.
        assert Upload(gateway.port, 10).answer().startswith(b"HTTP/1.1 408")
        gate.open()
        asking.join(30)
        assert answers[0].status_code == 200, answers[0].text


@pytest.mark.timeout(120)
def test_memory_is_bounded_whatever_is_uploaded(start, providers):
    """Sixty uploads of 40 MB stop at their last byte; the gateway may take 500 MiB, and it serves others once they are over."""
    limit = 500 * MIB
    gateway = start(config_of(providers, upload_timeout=8, max_memory_bytes=limit, request_body_buffer_limit_bytes=100 * MIB))
    pid = gateway.envoy_pid()
    before, most = rss(pid), 0
    uploads = []
    for _ in range(60):
        uploads.append(Upload(gateway.port, 41 * MIB, 40 * MIB))
        most = max(most, rss(pid))
    assert most - before < limit + 400 * MIB, f"{most / MIB:.0f} MiB"
    assert most - before > 100 * MIB, "the uploads were held"
    # 2.4 GB were sent.
    answers = [upload.answer() for upload in uploads]
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
    assert refused and b"short of memory" in refused[-1] and b"service_unavailable" in refused[-1]
    wait_until(lambda: gateway.serves("a"), "others to be served")
    assert gateway.envoy_pid() == pid, "Envoy lives"


def test_statistics_asked_for_in_loops_leave_the_sync_its_time(start, providers):
    """Four loops over /metrics; usage of calls still comes to the ledger, and what clients write behind the path is dropped."""
    models = [deployment(f"m{number}", providers.openai.params(), id=f"m-{number}") for number in range(300)]
    config = {"model_list": models, "general_settings": {"master_key": MASTER_KEY}}
    gateway = start(config)
    over = threading.Event()
    failed: list[str] = []

    def ask() -> None:
        with gateway.connect() as client:
            while not over.is_set():
                answer = client.get("/metrics", params={"filter": ".*", "format": "json"})
                if answer.status_code != 200 or not answer.text.startswith("# "):
                    failed.append(answer.text[:100])

    loops = [threading.Thread(target=ask) for _ in range(4)]
    for loop in loops:
        loop.start()
    try:
        key = gateway.new_key()
        for _ in range(5):
            assert gateway.chat("m1", headers=bearer(key)).status_code == 200
        wait_until(lambda: gateway.spend_of(key) > 0, "spend in the ledger")
    finally:
        over.set()
        for loop in loops:
            loop.join(30)
    assert not failed, failed[:3]
    text = gateway.client.get("/metrics").text
    assert "# HELP tollgate_requests Requests that are over.\n# TYPE tollgate_requests counter\n" in text
    assert "cluster_m299" not in text.replace("-", "_"), "only what was ever touched"


def test_two_hosts_are_refused(gateway):
    def ask(*hosts: bytes) -> bytes:
        head = b"".join(b"host: " + host + b"\r\n" for host in hosts)
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as client:
            client.sendall(b"GET /health/liveliness HTTP/1.1\r\n" + head + b"connection: close\r\n\r\n")
            whole = b""
            while part := client.recv(65536):
                whole += part
        return whole

    for hosts in ((b"a", b"b"), (b"a", b"a"), (b"a,b",)):
        answer = ask(*hosts)
        assert answer.startswith(b"HTTP/1.1 400") and b"expected one Host header" in answer, answer
    assert ask(b"a").startswith(b"HTTP/1.1 200")

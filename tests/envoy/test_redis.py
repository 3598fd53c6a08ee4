"""Gateways that share nothing but a Redis: each has an Envoy and an SQLite file of its own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
from typing import Any, Callable, Iterator

import pytest

from gateway import Gateway, deployment, free_port, wait_until
from mock_provider import WAIT, Authority, OpenAiMock
from traffic import chats

PASSWORD = "hidden-from-all"
GONE, BACK = "is of no use", "is back:"


class Redis:
    """A server that can be stopped and started again on its port. It keeps nothing."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.process: subprocess.Popen | None = None

    def start(self, *more: str) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "requirepass": PASSWORD}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))] + list(more)
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([program, *words], stdout=log, stderr=log)
        wait_until(lambda: self.ask("PING") == "+PONG", "the Redis server")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, command: str) -> str:
        """The last line of its answer to a command (or to several, each of them one line); nothing when it is not there."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=WAIT) as connection:
            connection.sendall(f"AUTH {PASSWORD}\r\n{command}\r\n".encode())
            with connection.makefile() as lines:
                return [lines.readline().strip() for _ in range(command.count("\r\n") + 2)][-1]
        return ""


@pytest.fixture
def redis(tmp_path: pathlib.Path) -> Iterator[Redis]:
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        pytest.skip("no Redis: run the tests under `tests/with-redis`")
    server = Redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def providers(mocks: Any) -> list[OpenAiMock]:
    return [mocks(OpenAiMock, name=name) for name in ("a", "b")]


def config(redis: Redis, providers: list[OpenAiMock], router: dict | None = None, **params: Any) -> dict:
    """A group `m` of a deployment at each provider. `router` names the Redis in another way."""
    strategy = {"routing_strategy": "usage-based-routing-v2", "num_retries": 0, "disable_cooldowns": True}
    shared = router or {"redis_host": "127.0.0.1", "redis_port": redis.port, "redis_password": PASSWORD}
    models = [deployment("m", mock.params() | params, id=mock.name) for mock in providers]
    return {"model_list": models, "router_settings": strategy | shared}


def tokens(count: int) -> Callable[[dict], dict]:
    return lambda _: {"prompt_tokens": count - 1, "completion_tokens": 1, "total_tokens": count}


def know_of_each_other(redis: Redis) -> None:
    wait_until(lambda: redis.ask("ZCARD tollgate:nodes") == ":2", "two nodes in Redis")


def takes(gateway: Gateway, name: str) -> bool:
    """Whether five calls in a row, all of them served, go to one deployment."""
    answers = chats(gateway, 5, 1, "m")
    assert [answer.status for answer in answers] == [200] * 5
    return [answer.deployment for answer in answers] == [name] * 5


def told(gateway: Gateway, what: str) -> int:
    return sum(what in line for line in gateway.everything_printed().splitlines() if "Redis" in line)


def use_a_up(gateway: Gateway, providers: list[OpenAiMock]) -> None:
    """One gateway uses more tokens at `a` than anybody will at `b`; what follows is a hundred times dearer at `b`."""
    a, b = providers
    a.usage, b.usage = tokens(100_000_000), tokens(10)
    # Nobody was called yet: the first goes to either, the second to the other.
    assert {answer.deployment for answer in chats(gateway, 2, 1, "m")} == {"a", "b"}
    a.usage, b.usage = tokens(10), tokens(1_000)


def test_a_strategy_goes_by_what_another_gateway_used(start: Callable[..., Gateway], redis: Redis, providers: list[OpenAiMock]):
    redis.start()
    first, second = (start(config(redis, providers)) for _ in range(2))
    know_of_each_other(redis)
    use_a_up(first, providers)
    # By itself the second would go on to `b` only after a hundred calls of `a`.
    wait_until(lambda: takes(second, "b"), "the second gateway to leave `a` alone")
    assert told(first, GONE) == told(second, GONE) == 0

    # One that hangs is as good as none.
    os.kill(redis.process.pid, signal.SIGSTOP)
    for node in (first, second):
        wait_until(lambda node=node: told(node, GONE) == 1, "a line about the Redis that hangs")
    wait_until(lambda: takes(second, "a"), "the second gateway to forget what it heard")
    os.kill(redis.process.pid, signal.SIGCONT)
    wait_until(lambda: takes(second, "b"), "the second gateway to hear of the first again")
    for node in (first, second):
        wait_until(lambda node=node: told(node, BACK) == 1, "a line about Redis being back")
        assert told(node, GONE) == 1


@pytest.mark.parametrize("way", ["url", "host"])
def test_over_tls(start: Callable[..., Gateway], redis: Redis, providers: list[OpenAiMock], tmp_path: pathlib.Path, way: str):
    """The certificate is held against the authorities that are named for providers."""
    folder = tmp_path / "tls"
    folder.mkdir()
    authority = Authority(folder, "known")
    authority.server()
    certificate = next(folder.glob("known-server-*.pem"))
    port = free_port()
    redis.start(
        *("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(certificate.with_suffix(".key"))),
        *("--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", "no"),
    )
    by_url = {"redis_url": f"rediss://:{PASSWORD}@127.0.0.1:{port}/3"}
    by_host = {"redis_host": "127.0.0.1", "redis_port": port, "cache_kwargs": {"password": PASSWORD, "ssl": True, "db": 3}}
    one = config(redis, providers, by_url if way == "url" else by_host)
    stranger = start(one)
    wait_until(lambda: told(stranger, GONE) == 1, "a certificate of an unknown authority to be refused")
    assert stranger.chat("m").status_code == 200
    for _ in range(2):
        start(one, env={"SSL_CERT_FILE": str(authority.file)})
    wait_until(lambda: redis.ask("SELECT 3\r\nZCARD tollgate:nodes") == ":2", "two nodes in Redis")
    assert told(stranger, BACK) == 0


def test_requests_a_minute_of_a_deployment_hold_over_two_gateways(
    start: Callable[..., Gateway], redis: Redis, providers: list[OpenAiMock]
):
    redis.start()
    only = providers[:1]
    nodes = [start(config(redis, only, rpm=60)) for _ in range(2)]
    know_of_each_other(redis)
    only[0].delay = (0.05, 0.1)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        heard = [answer for answers in pool.map(lambda node: chats(node, 100, 2, "m"), nodes) for answer in answers]
    admitted = sum(answer.status == 200 for answer in heard)
    assert {answer.status for answer in heard} == {200, 429} and admitted == len(only[0].requests)
    # Each by itself would let in 120. Four at a time that take 75 ms each are about 27 in two intervals.
    assert 60 <= admitted <= 95, admitted
    assert all(answer.status == 429 for node in nodes for answer in chats(node, 10, 2, "m"))


def test_redis_may_be_away(start: Callable[..., Gateway], redis: Redis, providers: list[OpenAiMock]):
    """It is missing at the start, comes, goes under traffic and comes back: requests are served throughout."""
    first, second = nodes = [start(config(redis, providers)) for _ in range(2)]
    for node in nodes:
        wait_until(lambda node=node: told(node, GONE) == 1, "a line about the missing Redis")
    use_a_up(first, providers)
    # Nobody told the second of it: `a` is the cheap one.
    wait_until(lambda: takes(second, "a"), "the second gateway to go by what it counts itself")

    redis.start()
    wait_until(lambda: takes(second, "b"), "the second gateway to hear of the first")
    for node in nodes:
        wait_until(lambda node=node: told(node, BACK) == 1, "a line about Redis being back")

    redis.stop()
    wait_until(lambda: takes(second, "a"), "the second gateway to forget what it heard")
    for node in nodes:
        wait_until(lambda node=node: told(node, GONE) == 2, "one more line about the missing Redis")

    redis.start()
    wait_until(lambda: takes(second, "b"), "the second gateway to hear of the first again")
    for node in nodes:
        wait_until(lambda node=node: told(node, BACK) == 2, "one more line about Redis being back")
        assert told(node, GONE) == 2
        assert PASSWORD not in node.everything_printed()
        assert not any(PASSWORD.encode() in path.read_bytes() for path in node.state.rglob("*") if path.is_file())

"""Six deployments that fail, hang, reset, rate-limit and recover, under thousands of requests with fallbacks.

Each of the 20,000 requests asks for a group of five bad deployments, which has a sixth, always healthy, to fall back to; so every
one of them has to be answered.
"""

from __future__ import annotations

import concurrent.futures
import random
import time
from collections import Counter
from typing import Any

import pytest

from gateway import deployment, wait_until
from mock_provider import Gate, OpenAiMock, gated, hang, ok, reset, status
from traffic import Heard, chat, chats, fire

SEED = 4217
REQUESTS = 20_000
AT_ONCE = 16
RETRIES = 2
PLACES = AT_ONCE
"""As many as there are requests, so that no retry finds its deployment full: what then is the last test's matter."""
TROUBLE = {
    "fails": lambda: status(500),
    "hangs": hang,
    "resets": lambda: reset("request"),
    "breaks": lambda: reset("headers"),
    "limits": lambda: status(429, headers=[("retry-after", "1")]),
}
COOLDOWN = 300.0


def script(chance: random.Random, trouble: Any) -> list[Any]:
    """Spells of trouble and of health, as long as a deployment may be asked."""
    behaviours: list[Any] = []
    while len(behaviours) < REQUESTS:
        behaviours += [trouble() for _ in range(chance.randint(1, 8))]
        behaviours += [ok() for _ in range(chance.randint(10, 60))]
    return behaviours


@pytest.mark.timeout(240)
def test_nobody_sees_what_goes_wrong(start, mocks):
    chance = random.Random(SEED)
    bad = {name: mocks(OpenAiMock, name=name) for name in TROUBLE}
    good = mocks(OpenAiMock, name="good")
    for name, mock in bad.items():
        mock.script(*script(chance, TROUBLE[name]))
    own = {"max_parallel_requests": PLACES, "timeout": 0.5}
    models = [deployment("m", mock.params() | own, id=name) for name, mock in bad.items()]
    models.append(deployment("spare", good.params(), id="good"))
    gateway = start({
        "model_list": models,
        "litellm_settings": {"num_retries": RETRIES, "fallbacks": [{"m": ["spare"]}]},
        "router_settings": {"cooldown_time": 1, "allowed_fails": 1},
    })

    def ask(connection: Any, turn: int) -> Heard:
        return chat(connection, "m", messages=[{"role": "user", "content": f"turn {turn}"}], stream=turn % 3 == 0)

    answers = fire(gateway, REQUESTS, AT_ONCE, ask)
    assert Counter(answer.status for answer in answers) == {200: REQUESTS}, [a for a in answers if a.status != 200][:3]

    everything = [request for mock in [*bad.values(), good] for request in mock.requests]
    attempts = Counter(request.json["messages"][0]["content"] for request in everything)
    assert len(attempts) == REQUESTS
    assert max(attempts.values()) <= 1 + RETRIES + 1, attempts.most_common(3)
    assert max(mock.peak for mock in bad.values()) <= PLACES
    # All kinds of trouble were met, and got through: it was not the healthy one that did all the work.
    assert all(len(mock.requests) > 20 for mock in bad.values()), [len(mock.requests) for mock in bad.values()]
    assert max(attempts.values()) > 1
    assert len(good.requests) < REQUESTS / 2
    all_places_are_free(gateway, bad, good)


def all_places_are_free(gateway: Any, bad: dict[str, OpenAiMock], good: OpenAiMock) -> None:
    """All recover, and a burst of as many as there are places is at the providers at the same time."""
    everybody = list(bad.values())
    wait_until(lambda: not any(mock.in_flight for mock in [*everybody, good]), "the providers to be idle")
    for mock in [*everybody, good]:
        mock.clear()

    def all_are_asked() -> bool:
        chats(gateway, 20, 4, "m")
        return all(mock.requests for mock in everybody)

    wait_until(all_are_asked, "all deployments to be back from their rest")
    gate = Gate()
    for mock in everybody:
        mock.clear()
        mock.default = gated(gate)
    count = PLACES * len(everybody)

    def ask(connection: Any, turn: int) -> Heard | None:
        if turn < count:
            return chat(connection, "m", timeout=60)
        for mock in everybody:
            mock.wait_requests(PLACES)
        gate.open()
        return None

    answers = fire(gateway, count + 1, count + 1, ask)[:count]
    assert {answer.status for answer in answers} == {200}
    assert [len(mock.requests) for mock in everybody] == [PLACES] * len(everybody)


def test_who_rests_is_not_called(start, mocks):
    """Every deployment of six falls to rest by a rate limit, one after the other under load, for longer than the test takes.

    The rest has begun at the latest when the request that met the limit first is answered. What comes to the deployment later
    was on its way by then.
    """
    chance = random.Random(SEED)
    six = [mocks(OpenAiMock, name=f"d{number}") for number in range(6)]
    good = mocks(OpenAiMock, name="good")
    for mock in six:
        turns = chance.randint(50, 200)
        mock.script(*[ok()] * turns)
        mock.default = status(429, headers=[("retry-after", str(int(COOLDOWN)))])
        mock.limit_from = turns
    models = [deployment("m", mock.params(), id=mock.name) for mock in six]
    models.append(deployment("spare", good.params(), id="good"))
    gateway = start({
        "model_list": models,
        "litellm_settings": {"num_retries": 6, "fallbacks": [{"m": ["spare"]}]},
        "router_settings": {"cooldown_time": COOLDOWN},
    })
    ended: dict[str, float] = {}

    def ask(connection: Any, turn: int) -> Heard:
        words = f"turn {turn}"
        answer = chat(connection, "m", messages=[{"role": "user", "content": words}])
        ended[words] = time.monotonic()
        return answer

    answers = fire(gateway, 3_000, AT_ONCE, ask)
    assert Counter(answer.status for answer in answers) == {200: 3_000}
    for mock in six:
        limited = mock.requests[mock.limit_from :]
        assert 1 <= len(limited) <= AT_ONCE, (mock.name, len(limited))
        known = ended[limited[0].json["messages"][0]["content"]]
        # A request that began before that may still have had it in its plan; each has at most one attempt on its way.
        late = [request for request in limited if request.at > known]
        assert len(late) < AT_ONCE, (mock.name, len(late))
    # From here on nothing is in flight: nobody resting is called at all.
    before = [len(mock.requests) for mock in six]
    assert {answer.deployment for answer in chats(gateway, 500, AT_ONCE, "m")} == {"good"}
    assert [len(mock.requests) for mock in six] == before


def test_a_place_that_is_taken_before_the_retry_is_no_end(start, mocks):
    """`a` hangs; when it is given up, the only place at `b`, which was free before, is taken. The fallback is free all along."""
    a, b, good = [mocks(OpenAiMock, name=name) for name in ("a", "b", "good")]
    gate = Gate()
    a.default, b.default = hang(), gated(gate)
    models = [
        deployment("m", a.params() | {"weight": 1, "timeout": 2}, id="a"),
        deployment("m", b.params() | {"weight": 0, "max_parallel_requests": 1}, id="b"),
        deployment("spare", good.params(), id="good"),
    ]
    gateway = start({
        "model_list": models,
        "litellm_settings": {"num_retries": 1, "fallbacks": [{"m": ["spare"]}]},
        "router_settings": {"disable_cooldowns": True},
    })
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = pool.submit(gateway.chat, "m")
        a.wait_requests(1)
        holder = pool.submit(gateway.chat, "b")
        b.wait_requests(1)
        answer = asked.result()
        gate.open()
        assert holder.result().status_code == 200
    assert answer.status_code == 200, answer.text

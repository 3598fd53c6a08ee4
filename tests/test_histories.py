"""Random histories go from every client API to every provider: what the gateway sends is taken by a double as strict as the real
API, and says what the client said; what the model answers arrives at the client, however the stream is cut.

`TOLLGATE_HISTORIES` says how many histories (default 40), `TOLLGATE_HISTORIES_SEED` where they begin (default 1).
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
from typing import Any, Callable, Iterator

import pytest

from gateway import deployment
from histories import answers, facts, generate, render
from histories.gateway import Core
from histories.render import Target
from mock_provider import strict
from mock_provider.server import Answer, Recorded
from mock_provider.strict.model import Call, Strict, Turn

COUNT = int(os.environ.get("TOLLGATE_HISTORIES", 40))
SEED = int(os.environ.get("TOLLGATE_HISTORIES_SEED", 1))


@dataclasses.dataclass(frozen=True)
class Provider:
    """A double, the model that is asked of it, and what clients send to such a model."""

    double: type[Strict]
    model: str | None = None
    target: Target = Target()
    reads: Callable[[bytes], facts.Facts] = facts.of_chat
    keeps_thoughts: bool = False


PLAIN = Target(functions=False, images_in_results=False)
PROVIDERS = {
    "openai": Provider(strict.StrictOpenAi, target=Target(images_in_results=False)),
    "gpt-5": Provider(strict.StrictOpenAi, "gpt-5", Target(images_in_results=False)),
    "azure": Provider(strict.StrictAzure, "dep", Target(images_in_results=False)),
    "gemini": Provider(strict.StrictGemini, target=PLAIN),
    "deepseek": Provider(strict.StrictDeepSeek, target=PLAIN),
    "reasoner": Provider(strict.StrictDeepSeek, "deepseek-reasoner", PLAIN),
    "groq": Provider(strict.StrictGroq, target=PLAIN),
    "mistral": Provider(strict.StrictMistral, target=PLAIN),
    "vllm": Provider(strict.StrictVllm, target=PLAIN),
    "anthropic": Provider(strict.StrictAnthropic, target=Target(efforts=True), reads=facts.of_messages, keeps_thoughts=True),
    "ollama": Provider(strict.StrictOllama, target=Target(images="data"), reads=facts.of_ollama),
}
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
PAIRS = [(dialect, name) for dialect in PATHS for name in PROVIDERS]

REFUSALS = [
    # The gateway's own, of what no request to the provider could say.
    ("chat", "anthropic", r"messages: the first message after system messages must have the role `user`\."),
]
"""Client API, provider and what the gateway may answer in place of asking it."""


class World:
    """The doubles, and the core that is configured for them."""

    def __init__(self) -> None:
        self.doubles = {name: provider.double(name=name) for name, provider in PROVIDERS.items()}
        models = []
        for name, provider in PROVIDERS.items():
            double = self.doubles[name]
            models.append(deployment(name, double.params(provider.model) if provider.model else double.params(), id=name))
        self.core = Core({"model_list": models, "litellm_settings": {"drop_params": True}, "router_settings": {"num_retries": 0}})

    def stop(self) -> None:
        self.core.stop()
        for double in self.doubles.values():
            double.stop()

    def sign(self, text: str) -> str:
        return self.doubles["anthropic"].sign(text)

    def body(self, history: dict, dialect: str, name: str) -> bytes:
        write = render.chat if dialect == "chat" else render.messages
        return write(history, self.target(dialect, name), name, self.sign)

    @staticmethod
    def target(dialect: str, name: str) -> Target:
        target = PROVIDERS[name].target
        # Anthropic's clients send pictures in results to every model.
        return dataclasses.replace(target, images_in_results=True) if dialect == "messages" else target

    def asked(self, dialect: str, name: str, body: bytes) -> Recorded | None:
        """What the provider is asked; None where the gateway refuses what it may."""
        asked = self.core.ask(PATHS[dialect], body)
        if isinstance(asked, Recorded):
            return asked
        status, told = asked
        message = json.loads(told)["error"]["message"]
        may = [(client, to) for client, to, words in REFUSALS if re.search(words, message)]
        assert status == 400 and (dialect, name) in may, f"the gateway refuses: {status} {message}"
        return None

    def answer(self, answer: Answer, chance: random.Random) -> tuple[int, bytes]:
        whole = b"".join(answer.body) if isinstance(answer.body, list) else answer.body
        return self.core.answer(answer, list(pieces(whole, chance)) if isinstance(answer.body, list) else [whole])


def pieces(whole: bytes, chance: random.Random) -> Iterator[bytes]:
    """The bytes, cut anywhere."""
    most = chance.choice([1, 7, 60, 2000])
    while whole:
        size = chance.randint(1, most)
        yield whole[:size]
        whole = whole[size:]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.stop()


def play(world: World, history: dict, dialect: str, name: str) -> None:
    """Sends the history; the double takes it, and everything has arrived."""
    provider, double = PROVIDERS[name], world.doubles[name]
    body = world.body(history, dialect, name)
    asked = world.asked(dialect, name, body)
    if asked is None:
        return
    double.clear()
    answer = double.answer(asked)
    world.answer(answer, random.Random(0))
    assert double.refused == [], f"{name} refuses: {double.refused[0]}"
    wanted = facts.meant(history, dialect, world.target(dialect, name), world.sign)
    if provider.double is strict.StrictDeepSeek:
        # It takes none; words stand for them.
        wanted.images = []
    if name == "ollama":
        wanted.images = [image.split(",")[-1] for image in wanted.images]
    facts.check(wanted, provider.reads(asked.body), provider.keeps_thoughts)


def failure(run: Callable[[], None]) -> str | None:
    """What is wrong, if anything is."""
    try:
        run()
    except AssertionError as wrong:
        return str(wrong).split("\nassert")[0]
    return None


def kind_of(wrong: str | None) -> str:
    """Failures of one kind begin alike: a smaller history has to fail in the same way."""
    return re.sub(r"[^a-z ]", "", (wrong or "").lower())[:24]


def report(seed: int, whole: dict, run: Callable[[dict], None]) -> str | None:
    """What is wrong and the smallest input that shows it; None when nothing is."""
    wrong = failure(lambda: run(whole))
    if wrong is None:
        return None
    small = generate.shrink(whole, lambda smaller: kind_of(failure(lambda: run(smaller))) == kind_of(wrong))
    return f"TOLLGATE_HISTORIES_SEED={seed} TOLLGATE_HISTORIES=1 shows it again; made small:\n{json.dumps(small)}\n{failure(lambda: run(small))}"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("dialect", "name"), PAIRS, ids=[f"{dialect} to {name}" for dialect, name in PAIRS])
def test_what_a_history_says_is_taken_and_arrives(world: World, dialect: str, name: str):
    for seed in range(SEED, SEED + COUNT):
        wrong = report(seed, generate.history(seed), lambda history: play(world, history, dialect, name))
        if wrong is not None:
            pytest.fail(wrong, pytrace=False)


READERS = {
    ("chat", False): answers.of_chat,
    ("chat", True): answers.of_chat_stream,
    ("messages", False): answers.of_messages,
    ("messages", True): answers.of_messages_stream,
}
TOOLS = [f"tool_{at}" for at in range(3)]


def values_of(arguments: str) -> dict:
    """Arguments as values that the doubles can write: the largest numbers and halves of characters are none."""
    values = json.loads(arguments, parse_float=lambda text: min(float(text), 1e300))
    return json.loads(facts.text_of(json.dumps(values, ensure_ascii=False)))


def hear(world: World, said: dict, dialect: str, name: str, streamed: bool, chance: random.Random) -> None:
    """The model says it, and the client hears it."""
    double = world.doubles[name].clear()
    calls = [Call(f"call_{at}{name[:2]}", call["name"], values_of(call["arguments"])) for at, call in enumerate(said["calls"])]
    turn = Turn(said["text"], said["reasoning"], calls)
    double.turn = lambda *_: turn
    if dialect == "chat":
        body: dict = {"tools": [{"type": "function", "function": {"name": tool}} for tool in TOOLS]}
    else:
        body = {"tools": [{"name": tool, "input_schema": render.SCHEMA} for tool in TOOLS], "max_tokens": 100}
    body |= {"model": name, "messages": [{"role": "user", "content": "Hi."}], "stream": streamed}
    asked = world.asked(dialect, name, json.dumps(body).encode())
    answer = double.answer(asked)
    del double.turn
    assert double.refused == [], double.refused
    status, told = world.answer(answer, chance)
    assert status == 200, told
    answers.check(READERS[dialect, streamed](told), turn, shows_reasoning=True)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("streamed", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize(("dialect", "name"), PAIRS, ids=[f"{name} to {dialect}" for dialect, name in PAIRS])
def test_what_a_model_says_arrives(world: World, dialect: str, name: str, streamed: bool):
    for seed in range(SEED, SEED + COUNT):
        wrong = report(
            seed, generate.turn(seed), lambda said: hear(world, said, dialect, name, streamed, random.Random(seed))
        )
        if wrong is not None:
            pytest.fail(wrong, pytrace=False)

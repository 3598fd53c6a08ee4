"""Makes random histories, the same for the same seed, and makes small ones of those that fail."""

from __future__ import annotations

import copy
import json
import random
from typing import Any, Callable, Iterator

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A picture of one pixel."""

WORDS = [
    "Hello", "gr\u00fc\u00dfe", "\U0001f44b\U0001f3fd", "\u65e5\u672c\u8a9e", "e\u0301", "\u202eright\u202c", "a\u0000b", "tab\tend",
    "line\nend", "line\r\nend", "data: [DONE]\n\n", "event: message_stop", '"text":""', '{"role":"developer"}', "null",
    '{"type":"text","text":""}', '"signature":""', '"tool_calls":null', "<think>no</think>", "\\u0041", "\\", '"', "\ufeffbom",
    "\ud83d", "\ude00 half", "\uffff", "\u2028", "__thought__", "extra_content", "cache_control", "x" * 3000, "image_url",
    "123456789012345678901",
]  # fmt: skip
BLANKS = ["", " ", "\n", " \t\n", "\u00a0", "\u3000", "\r\n\x0c", "\x1c"]
NUMBERS = ["123456789012345678901", "-0", "1e2", "0.1000", "1E-7", "3.14159265358979323846", "9007199254740993", "1e309", "0", "1.0"]
SCRAPS = ['{"city": "Os', '{"a":', "{", '{"a": "\\ud8', "[1,2", '"text"', "{}{}", "not json", '{"a": 1} and more']
NAMES = ["weather", "time", "get-it", "A_1", "f", "mcp__server__tool", "n" * 64]
LONG_NAMES = ["mcp__plugin_" + "x" * 60 + "__one", "mcp__plugin_" + "x" * 60 + "__two", "n" * 128]


def history(seed: int) -> dict:
    """A history of up to ten turns."""
    maker = _Maker(random.Random(seed))
    return maker.history() | {"seed": seed}


def turn(seed: int) -> dict:
    """What a model says in one answer: `text`, `reasoning`, and `calls` by name and arguments."""
    maker = _Maker(random.Random(seed))
    words = ["".join(letter for letter in maker.text() if not "\ud800" <= letter <= "\udfff") for _ in range(2)]
    calls = [{"name": f"tool_{at}", "arguments": maker.arguments()} for at in range(maker.chance.choice([0, 0, 1, 1, 2, 3]))]
    text = words[0] if calls or words[0].strip() else "Hello."
    # What an answer begins with between these tags is its reasoning.
    text = f"So {text}" if text.lstrip().startswith("<think>") else text
    return {"text": text, "reasoning": words[1] if maker.often(40) else "", "calls": calls}


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.ids: list[str] = []

    def often(self, percent: int) -> bool:
        return self.chance.randrange(100) < percent

    def style(self) -> int:
        return self.chance.getrandbits(16)

    def history(self) -> dict:
        turns = []
        for _ in range(self.chance.randint(1, 10)):
            kind = self.chance.choices(["user", "model", "system"], [45, 50, 5])[0]
            turns.append(getattr(self, kind)())
        return {
            "system": [self.text() for _ in range(self.chance.choice([0, 0, 1, 1, 2]))],
            "turns": turns,
            "tools": self.chance.sample(NAMES, self.chance.choice([0, 1, 2])),
            "thinks": self.often(20),
            "style": self.style(),
        }

    def text(self) -> str:
        if self.often(12):
            return self.chance.choice(BLANKS)
        return " ".join(self.chance.choice(WORDS) for _ in range(self.chance.choice([1, 1, 2, 5])))

    def part(self) -> dict:
        if self.often(20):
            data = f"data:image/{self.chance.choice(['png', 'jpeg', 'gif', 'webp'])};base64,{PIXEL}"
            return {"image": self.chance.choice([data, data, "https://example.com/a.png?b=c&d=%20#e"])}
        return {"text": self.text()}

    def parts(self, least: int = 1) -> list[dict]:
        return [self.part() for _ in range(self.chance.choice([least, 1, 1, 2, 4]))]

    def user(self) -> dict:
        return {"kind": "user", "parts": self.parts(), "style": self.style()}

    def system(self) -> dict:
        return {"kind": "system", "text": self.text(), "style": self.style()}

    def model(self) -> dict:
        calls = [self.call() for _ in range(self.chance.choice([0, 0, 1, 1, 2, 4]))]
        texts = [self.text() for _ in range(self.chance.choice([0, 1, 1, 2]) if calls else self.chance.choice([1, 1, 2]))]
        thoughts = []
        if self.often(40):
            how = self.chance.choice(["signed", "unsigned", "redacted"])
            thoughts = [{"how": how, "text": self.thought()} for _ in range(self.chance.choice([1, 1, 2]))]
        return {"kind": "model", "thoughts": thoughts, "texts": texts, "calls": calls, "style": self.style()}

    def thought(self) -> str:
        # What a model has signed is text that a model has written.
        return " ".join(word for word in (self.chance.choice(WORDS) for _ in range(3)) if word.isprintable()) or "Hm."

    def call(self) -> dict:
        return {
            "id": self.id(),
            "name": self.chance.choice(NAMES + LONG_NAMES),
            "arguments": self.chance.choice(SCRAPS) if self.often(10) else self.arguments(),
            "result": self.parts(least=0),
            "failed": self.often(20),
            "style": self.style(),
        }

    def id(self) -> str:
        new = f"{self.chance.getrandbits(64):016x}"
        forms = [f"call_{new}", f"toolu_01{new}", f"functions.weather:{len(self.ids)}", f"{new[:9]}", f"a/{new[:4]}", f"a:{new[:4]}"]
        # Some servers count the calls of each answer from 0.
        forms += [self.chance.choice(self.ids)] if self.ids and self.often(20) else []
        self.ids.append(self.chance.choice(forms))
        return self.ids[-1]

    def arguments(self) -> str:
        """An object as a model writes it."""
        pad = self.chance.choice(["", " ", "\n  "])
        names = self.chance.sample(["city", "a", "\u00fc", "", "arguments", "type", "\\ud83d\\ude00"], self.chance.choice([0, 1, 2, 3]))
        inner = f",{pad}".join(f'"{name}":{pad}{self.value(2)}' for name in names)
        return f"{{{inner}}}"

    def value(self, depth: int) -> str:
        kind = self.chance.randrange(8 if depth else 6)
        if kind < 2:
            return self.chance.choice(NUMBERS)
        if kind < 5:
            return json.dumps(self.text())
        if kind == 5:
            return self.chance.choice(["null", "true", "false", '"\\ud83d"', '"\\u0000"', '""'])
        inner = [self.value(depth - 1) for _ in range(self.chance.choice([0, 1, 3]))]
        if kind == 6:
            return f"[{', '.join(inner)}]"
        return "{" + ", ".join(f'"k{at}": {value}' for at, value in enumerate(inner)) + "}"


# ----------------------------------------------------------------------------------------------------------------------- small ones


def shrink(failing: Any, fails: Callable[[dict], bool], patience: int = 600) -> dict:
    """A small history that fails still: whatever can be left out or made plain is."""
    best = failing
    goes_on = True
    while goes_on and patience:
        goes_on = False
        for smaller in _smaller(best):
            patience -= 1
            if fails(smaller):
                best, goes_on = smaller, True
                break
            if not patience:
                break
    return best


PLAIN = {"style": 0, "thinks": False, "failed": False}


def _smaller(value: dict) -> Iterator[dict]:
    """The history with one thing less, large things first."""
    for path, inner in sorted(_places(value), key=lambda place: len(place[0])):
        for instead in _less(path[-1] if path else "", inner):
            yield _with(value, path, instead)


def _places(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _places(inner, (*path, name))


def _less(name: Any, value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        half = len(value) // 2
        yield from [value[:half], value[half:]] if half > 1 else []
        yield from (value[:at] + value[at + 1 :] for at in range(len(value)))
    elif name in PLAIN and value != PLAIN[name]:
        yield PLAIN[name]
        if isinstance(value, int) and not isinstance(value, bool):
            yield from (value & ~(1 << bit) for bit in range(16) if value & (1 << bit) and value != 1 << bit)
    elif name == "arguments" and value != "{}":
        yield "{}"
    elif name in ("text",) or (isinstance(name, int) and isinstance(value, str)):
        if value != "a":
            yield "a"
        if len(value) > 1:
            yield from [value[: len(value) // 2], value[len(value) // 2 :]]


def _with(whole: dict, path: tuple, instead: Any) -> dict:
    changed = copy.deepcopy(whole)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = instead
    return changed

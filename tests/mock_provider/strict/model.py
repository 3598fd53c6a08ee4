"""What every strict double does: keeps refusals, signs what it thinks, and follows one plot in every format."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
from typing import Any

from ..server import Answer, Mock, Recorded, Refused

REASONING = "The user asks for two things \u2013 one after the other."
"""What the model thinks, where it thinks."""


class Refusal(Refused):
    """A refusal with a body of the API's own; without one the mock's usual form is taken."""

    def __init__(self, code: int, message: str, body: Any = None) -> None:
        super().__init__(code, message)
        self.body = body


@dataclasses.dataclass
class Call:
    """A tool call of the model."""

    id: str
    name: str
    arguments: dict


@dataclasses.dataclass
class Turn:
    """One answer of the model."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tools:
    """The tools of a request, whatever its format."""

    schemas: dict[str, dict]
    choice: str = "auto"
    """`auto`, `none`, `any`, or the name of a tool, in brackets."""
    parallel: bool = True
    answered: int = 0
    """How many rounds of calls the turn that is on has had."""


class Strict(Mock):
    """A mock that plays one API and keeps what it refused."""

    call_prefix = "call_"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.refused: list[str] = []
        """What was refused so far: status and the reason."""
        self.rounds = 1
        """How many times the model calls tools before it speaks."""
        self.plan: list[list[tuple[str, dict]]] | None = None
        """The calls of each round, by name and arguments; every tool that is offered when there is no plan."""
        self._ids = itertools.count(1)
        super().__init__(*arguments, **named)

    def clear(self) -> "Strict":
        super().clear()
        self.refused = []
        self.rounds = 1
        self.plan = None
        return self

    def answer(self, request: Recorded) -> Answer:
        try:
            return super().answer(request)
        except Refused as refused:
            code, message, body = refused.code, refused.message, getattr(refused, "body", None)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as wrong:
            code, message, body = 400, f"Invalid request: {wrong!r}", None
        self.refused.append(f"{code} {message}")
        return Answer(code, json.dumps(body or self.refusal(code, message)).encode())

    # -- the model

    def turn(self, tools: Tools, schema: Any, thinks: bool) -> Turn:
        """What the model says next: calls while rounds are left, then an object of the schema, or its text."""
        turn = Turn(reasoning=REASONING if thinks else "")
        if chosen := self._chosen(tools):
            turn.calls = [Call(self.new_id(self.call_prefix), name, arguments) for name, arguments in chosen]
        elif schema is not None:
            turn.text = json.dumps(value_for(schema) if isinstance(schema, dict) else {"answer": self.name})
        else:
            turn.text = self.text
        return turn

    def _chosen(self, tools: Tools) -> list[tuple[str, dict]]:
        """The calls of this turn."""
        names = list(tools.schemas)
        if tools.choice.startswith("["):
            names = [tools.choice[1:-1]]
        elif tools.choice == "none" or not names:
            return []
        elif self.plan is not None:
            left = self.plan[tools.answered :]
            return left[0] if left and all(name in names for name, _ in left[0]) else []
        elif tools.choice == "auto" and tools.answered >= self.rounds:
            return []
        elif not tools.parallel or tools.answered > 0:
            names = names[:1]
        return [(name, value_for(tools.schemas[name])) for name in names]

    def new_id(self, prefix: str, length: int = 24) -> str:
        """An id that no other answer has."""
        seed = f"{self.name} {next(self._ids)}".encode()
        return prefix + hashlib.sha256(seed).hexdigest()[:length]

    def sign(self, *parts: str) -> str:
        """The signature of what the model thought or called: only what came from here has it."""
        digest = hashlib.sha256("\0".join([self.key, *parts]).encode()).digest()
        return base64.b64encode(digest).decode()


def rounds_of(called: list[bool]) -> int:
    """The rounds of calls since the model last ended a turn, from what it did in each of its messages."""
    since = 0
    for did in reversed(called):
        if not did:
            break
        since += 1
    return since


def value_for(schema: Any, definitions: dict | None = None) -> Any:
    """A value that a JSON Schema takes: every property, one item in an array."""
    schema = schema if isinstance(schema, dict) else {}
    definitions = definitions or schema.get("$defs") or schema.get("definitions") or {}
    if "$ref" in schema:
        return value_for(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return value_for(schema[several][0], definitions)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: value_for(inner, definitions) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [value_for(schema.get("items"), definitions)]
    return {"integer": 3, "number": 1.5, "boolean": True, "null": None}.get(kind, "Troms\u00f8 \u201c\U0001f40b\u201d")


def torn(text: str, size: int = 5) -> list[str]:
    """The text in pieces of `size` characters, as models send arguments: cut anywhere, escapes too."""
    return [text[start : start + size] for start in range(0, len(text), size)] or [""]


def refuse_unless(condition: Any, code: int, message: str, body: Any = None) -> None:
    """Refuses the request unless the condition holds."""
    if not condition:
        raise Refusal(code, message, body)

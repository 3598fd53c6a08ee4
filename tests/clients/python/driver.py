"""Runs Python clients on behalf of the tests: each line of JSON that comes in says what to do, one goes out with what came of it.

A client is a module `with_<name>` with a function for each scenario, which takes an `Ask` and returns a `dict`. What a client
raises is the answer too. It runs in the environment that has the client, which need not be the tests' own.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from typing import Any


@dataclasses.dataclass
class Ask:
    """One scenario: whom to ask for what."""

    url: str
    """The gateway, without a path."""
    key: str
    model: str
    """The model to ask for."""


SYSTEM = "You are brief."
QUESTION = "What is the weather, and what is the time, in Troms\u00f8?"
RESULTS = {"weather": "3 degrees", "time": "12:00"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"The {name} of a city.", "parameters": SCHEMA}}
    for name in RESULTS
]
HELLO: list[dict] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]


def called(name: str, arguments: Any) -> list:
    """A call as the tests want it: name and arguments as an object."""
    return [name, json.loads(arguments) if isinstance(arguments, str) else arguments]


def failed(error: BaseException) -> dict:
    return {"error": type(error).__name__, "status": getattr(error, "status_code", None), "message": str(error)[:2000]}


def main() -> None:
    # What libraries print must not get between the lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            module = importlib.import_module(f"with_{job['client']}")
            result = getattr(module, job["scenario"])(Ask(job["url"], job["key"], job["model"]))
        except Exception as error:
            result = failed(error)
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    # The clients import from here too.
    sys.modules["driver"] = sys.modules["__main__"]
    main()

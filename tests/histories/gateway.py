"""Asks the core of the gateway, without an Envoy: hundreds of calls a second."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import tempfile
from typing import Any

import yaml

from gateway import ROOT
from mock_provider.server import Answer, Recorded

PROGRAM = pathlib.Path(os.environ.get("TOLLGATE_ONE_CALL", ROOT / "target/debug/examples/one_call"))
"""`cargo test` builds it, from one_call.rs."""


class Core:
    """The core with one configuration."""

    def __init__(self, config: dict) -> None:
        assert PROGRAM.exists(), f"{PROGRAM} is missing: run `cargo build --example one_call`"
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            yaml.safe_dump(config, file, sort_keys=False)
        self.path = pathlib.Path(file.name)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([str(PROGRAM), str(self.path)], stdin=pipe, stdout=pipe)

    def stop(self) -> None:
        self.process.stdin.close()
        assert self.process.wait() == 0
        self.path.unlink()

    def _say(self, value: dict) -> dict:
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the core ended with {self.process.wait()}"
        return json.loads(line)

    def ask(self, path: str, body: bytes, headers: Any = ()) -> Recorded | tuple[int, bytes]:
        """What the provider is asked, or status and body of the gateway's own answer."""
        said = self._say({"path": path, "headers": list(headers), "body": body.decode("latin-1")})
        if asked := said.get("asked"):
            pairs = [(name, value) for name, value in asked["headers"]]
            return Recorded("POST", asked["path"], pairs, asked["body"].encode("latin-1"))
        return said["answer"]["status"], said["answer"]["body"].encode("latin-1")

    def answer(self, answer: Answer, pieces: list[bytes]) -> tuple[int, bytes]:
        """What the client gets for the provider's answer, which comes in these pieces."""
        headers = [["content-type", answer.content_type], *map(list, answer.headers)]
        said = self._say({"status": answer.status, "headers": headers, "pieces": [piece.decode("latin-1") for piece in pieces]})
        return said["answer"]["status"], said["answer"]["body"].encode("latin-1")

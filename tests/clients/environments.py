"""Where the clients are installed, and the processes that run them there."""

from __future__ import annotations

import json
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from gateway import ROOT, environment

HERE = pathlib.Path(__file__).resolve().parent
INSTALLED = ROOT / "target/clients"
"""`make test-clients` fills it."""
LIMIT = 50.0
"""Seconds that a client has for one scenario."""

QUIET = {
    # Nothing of this machine is read or changed, and nobody is told.
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "PYTHONDONTWRITEBYTECODE": "1",
    "AI_SDK_LOG_WARNINGS": "false",
}


def node() -> pathlib.Path:
    """The interpreter of the Node.js clients, which is a Python package too."""
    return INSTALLED / "python/bin/node"


def interpreter(environment_name: str) -> list[str]:
    """The command that runs the driver of an environment."""
    if environment_name == "node":
        # Node.js looks for packages beside the module that asks for them.
        for module in (HERE / "node").glob("*.mjs"):
            shutil.copy(module, INSTALLED / "node")
        return [str(node()), str(INSTALLED / "node/driver.mjs")]
    python = pathlib.Path(sys.executable) if environment_name == "tests" else INSTALLED / environment_name / "bin/python"
    return [str(python), str(HERE / "python/driver.py")]


def empty_home() -> tuple[tempfile.TemporaryDirectory, dict[str, str]]:
    """A home of nobody's, and the environment of a client that lives there."""
    home = tempfile.TemporaryDirectory(prefix="tollgate-client-")
    ours = {name: value for name, value in environment().items() if name in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
    return home, ours | QUIET | {"HOME": home.name, "XDG_CONFIG_HOME": f"{home.name}/.config"}


class Driver:
    """The process in which the clients of one environment run, one scenario after the other."""

    def __init__(self, environment_name: str) -> None:
        self.home, env = empty_home()
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            interpreter(environment_name),
            env=env,
            cwd=self.home.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
        )

    def ask(self, **job: Any) -> dict:
        """What came of a scenario: `text`, `reasoning`, `calls`, `value`, or the class of the `error`."""
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            self.errors.seek(0)
            raise AssertionError(f"the driver says nothing: {self.errors.read()[-3000:].decode(errors='replace')}")
        return json.loads(line)

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.home.cleanup()

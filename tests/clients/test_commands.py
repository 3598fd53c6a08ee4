"""The clients that are commands: Claude Code and aider, each in a home of nobody's."""

from __future__ import annotations

import json
import pathlib
import platform
import subprocess
from typing import Any, Iterator

import pytest

from clients.catalogue import AIDER, CLAUDE_CODE, Client, marks_of
from clients.environments import INSTALLED, LIMIT, empty_home

SILENT = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}


@pytest.fixture
def place() -> Iterator[tuple[pathlib.Path, dict[str, str]]]:
    """A folder with a note, in a home of nobody's, and the environment of a command that is run there."""
    home, env = empty_home()
    work = pathlib.Path(home.name) / "work"
    work.mkdir()
    (work / "note.txt").write_text("the note\n")
    yield work, env
    home.cleanup()


def run(command: list[Any], work: pathlib.Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=work, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def cases(client: Client) -> list[Any]:
    return [
        pytest.param(format, scenario, marks=marks_of(client.name, format, scenario), id=f"{format}-{scenario}")
        for format in client.formats
        for scenario in client.scenarios
    ]


@pytest.mark.parametrize("format, scenario", cases(CLAUDE_CODE))
def test_claude_code_reads_and_runs_and_answers(clients_gateway, doubles, place, format, scenario):
    work, env = place
    double = doubles[format]
    shows = ("Bash", {"command": "cat note.txt", "description": "Shows the note"})
    reads = ("Read", {"file_path": str(work / "note.txt")})
    counts = ("Bash", {"command": "wc -c note.txt", "description": "Counts its bytes"})
    double.plan = [[shows, reads], [counts]]
    model = f"{format}-thinking" if scenario.startswith("thinking") else format
    env |= SILENT | {
        "ANTHROPIC_BASE_URL": clients_gateway.url,
        "ANTHROPIC_AUTH_TOKEN": "sk-anything",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    command = [
        claude(),
        "-p",
        "What does the note say?",
        "--model",
        model,
        "--output-format",
        "json",
        "--allowedTools",
        "Bash,Read",
    ]
    done = run(command, work, env)
    said = json.loads(done.stdout)
    assert not double.refused, f"refused: {double.refused[:2]}; {said['result']}"
    assert done.returncode == 0 and said["result"] == double.text, done.stdout
    assert said["num_turns"] > 2
    results = double.last.body.decode()
    assert "the note" in results and "9 note.txt" in results, "what the tools said reached the model"


def claude() -> pathlib.Path:
    """The command itself: its package asks an installer's script to put it into place, which is not run here."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    return INSTALLED / f"node/node_modules/@anthropic-ai/claude-code-linux-{machine}/claude"


@pytest.mark.parametrize("format, scenario", cases(AIDER))
def test_aider_writes_what_the_model_says(clients_gateway, doubles, place, format, scenario):
    work, env = place
    double = doubles[format]
    double.text = "note.txt\n```\nGrüße aus Tromsø \U0001f40b\n```\n"
    # A list of prices that is fresh, so that none is fetched.
    caches = pathlib.Path(env["HOME"]) / ".aider/caches"
    caches.mkdir(parents=True)
    (caches / "model_prices_and_context_window.json").write_text(json.dumps({"none": {}}))
    env |= {"LITELLM_PROXY_API_BASE": clients_gateway.url, "LITELLM_PROXY_API_KEY": "sk-anything"}
    command = [INSTALLED / "aider/bin/aider", "--model", f"litellm_proxy/{format}", "--edit-format", "whole"]
    command += ["--no-git", "--yes-always", "--no-check-update", "--no-show-model-warnings", "--analytics-disable"]
    command += ["--no-show-release-notes", "--no-auto-lint", "--no-pretty", "--no-fancy-input", "--no-detect-urls"]
    command += ["--stream" if scenario == "streamed" else "--no-stream", "--message", "Write it.", "note.txt"]
    done = run(command, work, env)
    assert not double.refused and done.returncode == 0, f"{double.refused}; {done.stdout}{done.stderr}"
    assert (work / "note.txt").read_text() == "Grüße aus Tromsø \U0001f40b\n", done.stdout
    assert bool(double.last.json.get("stream")) == (scenario == "streamed")

"""Runs README.md, CONTRIBUTING.md and the pages in docs/: what they tell the reader to type is typed, and what they say comes
back must come back.

Their fenced blocks:

- `sh`: run in order, those of a page in one shell, against the demonstration gateway. A `text` block right after it is what it prints.
- `python`: run with the real SDKs against the same gateway, likewise followed by what it prints.
- `console`: a session, commands after `$ `. A command of ours that serves is started, must print the lines shown, and is
  stopped; one that ends must print them. Of `make`, `docker` and `envoy` it is checked that what they name exists (`make`
  would take minutes, an engine may not be there); tests/test_compose.py runs what those start.
- `yaml`: one that begins with `model_list:` is a whole configuration; `tollgate check` must find a use for every setting in it.
  The first one is `config.yaml` for the commands.

In an expected text `…` stands for anything, and port 4000 for the port of the test.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
from typing import Iterator

import pytest
import yaml

from gateway import BINARY, ROOT, Gateway, command, environment, envoy_binary, free_port

README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")} | {f"docs/{path.name}": path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
MAKEFILE = (ROOT / "Makefile").read_text()
LIMIT = 50
"""Seconds for one block."""


@dataclasses.dataclass
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str
    line: int
    follows: "Block | None"
    """The block before it, when only an empty line stands between."""


def blocks_of(page: str, markdown: str) -> list[Block]:
    found: list[Block] = []
    for match in re.finditer(r"^```(\S*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        line = markdown.count("\n", 0, match.start()) + 1
        before = found[-1] if found else None
        ended = before.line + before.text.count("\n") + 2 if before else 0
        follows = before if before and not "".join(markdown.split("\n")[ended - 1 : line - 1]).strip() else None
        found.append(Block(page, match[1], match[2], line, follows))
    return found


BLOCKS = [block for page, markdown in PAGES.items() for block in blocks_of(page, markdown)]


def expected_after(block: Block) -> str | None:
    """The `text` block that says what this one prints."""
    return next((other.text for other in BLOCKS if other.follows is block and other.language == "text"), None)


def matches(expected: str, printed: str) -> bool:
    """Whether a text is the one shown, `…` being anything."""
    pattern = ".*?".join(map(re.escape, expected.strip().split("…")))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def of(*languages: str) -> list:
    chosen = [block for block in BLOCKS if block.language in languages]
    return [pytest.param(block, id=name_of(block)) for block in chosen]


def name_of(block: Block) -> str:
    return f"line-{block.line}" if block.page == "README.md" else f"{block.page}-{block.line}"


# -------------------------------------------------------------------------------------------------------------- where it runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A clone as the reader has it after `make build`, with the README's first configuration as config.yaml."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("envoy", "target", "Makefile", "docker-compose.yaml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "config.yaml").write_text(configurations()[0].text)
    return folder


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """What `make run` serves."""
    served = re.search(r"exec \$\(COMMAND\) --config (\S+) --port 4000$", MAKEFILE, re.MULTILINE)[1]
    gateway = Gateway(tmp_path_factory.mktemp("demonstration"), ROOT / served)
    yield gateway
    gateway.stop()


def variables() -> dict[str, str]:
    """The reader's environment: `envoy` and this Python on PATH, and a state directory that is thrown away."""
    programs = [str(pathlib.Path(sys.executable).parent), str(pathlib.Path(envoy_binary() or "").parent)]
    return {"PATH": ":".join([*programs, os.environ["PATH"]]), "TOLLGATE_ENVOY": envoy_binary() or ""}


def placed(text: str, port: int) -> str:
    return re.sub(r"\b4000\b", str(port), text)


def run(words: list[str], folder: pathlib.Path, env: dict[str, str] | None = None) -> str:
    env = environment(variables() | (env or {}))
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


# ---------------------------------------------------------------------------------------------------------------- the blocks


def test_every_block_is_of_a_known_kind():
    assert {block.language for block in BLOCKS} <= {"sh", "python", "console", "yaml", "text"}
    for block in BLOCKS:
        if block.language == "text" and block.follows:
            assert block.follows.language in ("sh", "python"), block.line


@pytest.mark.parametrize("page", [page for page in PAGES if any((b.page, b.language) == (page, "sh") for b in BLOCKS)])
def test_shell_blocks_print_what_is_shown(page, demonstration, folder):
    """All of a page in one shell; what each prints is told apart by marks."""
    shell = [block for block in BLOCKS if (block.page, block.language) == (page, "sh")]
    # The reader's gateway has its state where a command looks for it.
    env = {"TOLLGATE_STATE_DIR": str(demonstration.state)}
    mark = "-- end of block --"
    script = "".join(f"{placed(block.text, demonstration.port)}\necho; echo '{mark}'\n" for block in shell)
    printed = run(["bash", "-euo", "pipefail", "-c", script], folder, env).split(mark)
    for block, text in zip(shell, printed):
        expected = expected_after(block)
        assert expected is not None, f"line {block.line}: what does it print?"
        text = re.sub(rf"\b{demonstration.port}\b", "4000", text)
        assert matches(expected, text), f"{name_of(block)} printed:\n{text}"


@pytest.mark.parametrize("block", of("python"))
def test_python_blocks_print_what_is_shown(block, demonstration, folder):
    expected = expected_after(block)
    assert expected is not None, f"line {block.line}: what does it print?"
    printed = run([sys.executable, "-c", placed(block.text, demonstration.port)], folder)
    assert matches(expected, printed), printed


@dataclasses.dataclass
class Step:
    """A command of a session and the lines under it."""

    line: str
    shown: str


def session(block: Block) -> list[Step]:
    steps: list[Step] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], ""))
        else:
            steps[-1].shown += line + "\n"
    return steps


@pytest.mark.parametrize("block", of("console"))
def test_console_blocks(block, folder, tmp_path):
    steps = session(block)
    assert steps
    for step in steps:
        words = shlex.split(step.line, comments=True)
        variables_given = [words.pop(0) for _ in list(words) if "=" in words[0]]
        program = words[0]
        if program == "make":
            assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in words[1:]), step.line
        elif program == "docker":
            services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
            profiles = [profile for service in services.values() for profile in service.get("profiles", [])]
            known = {"compose", "up", "--profile", *services, *profiles}
            assert set(words[1:]) <= known, step.line
        elif program == "envoy":
            files = [word for word in words if word.endswith(".yaml")]
            assert files and all((ROOT / file).is_file() for file in files), step.line
        elif program == str(BINARY.relative_to(ROOT)):
            play(step, words, variables_given, folder, tmp_path)
        else:
            pytest.fail(f"line {block.line}: nobody knows how to check `{step.line}`")


def play(step: Step, words: list[str], given: list[str], folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Runs a command of ours and looks at what it prints."""
    if "listening on " not in step.shown:
        done = subprocess.run(words, cwd=folder, env=environment(variables()), capture_output=True, text=True, timeout=LIMIT)
        assert matches(step.shown, done.stdout + done.stderr), done.stdout + done.stderr
        return
    port = free_port()
    words = [placed(word, port) for word in words]
    extra = dict(pair.split("=", 1) for pair in given) | {"PORT": str(port), "TOLLGATE_STATE_DIR": str(tmp_path / "state")}
    env = environment(variables() | extra)
    process = subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        shown = step.shown.splitlines()
        printed = [process.stdout.readline() for _ in shown]
        assert matches(placed(step.shown, port), "".join(printed)), printed
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()


# ------------------------------------------------------------------------------------------------------------- configurations


def configurations() -> list[Block]:
    return [block for block in BLOCKS if block.language == "yaml" and block.text.startswith("model_list:")]


@pytest.mark.parametrize("block", [pytest.param(block, id=name_of(block)) for block in configurations()])
def test_configurations_are_understood(block, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(block.text)
    # The reader has the variables that it names.
    named = {name: "postgresql://x" if "URL" in name else "sk-x" for name in re.findall(r"os\.environ/(\w+)", block.text)}
    done = command("check", "--config", str(path), env=named)
    assert done.returncode == 0, done.stderr
    verdicts = verdicts_of(done.stdout)
    assert verdicts and set(verdicts.values()) <= {"used", "approximated"}, done.stdout


def verdicts_of(table: str) -> dict[str, str]:
    """Setting → verdict, out of what `tollgate check` prints."""
    rows = re.findall(r"^\s*(?:\d+\s+)?(\S+)\s+(used|approximated|not yet|ignored|unknown)\b", table, re.MULTILINE)
    return dict(rows)


# ----------------------------------------------------------------------------------------------------------------- `make run`


def make_says() -> str:
    """What `make run` prints before it serves."""
    recipe = re.search(r"^run:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    echoes = [line for line in recipe.splitlines() if line.startswith("\t@echo")]
    script = "\n".join(line.removeprefix("\t@").replace("$$", "$") for line in echoes)
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout


def test_what_make_run_prints_is_true(demonstration, folder):
    """Its curl, pasted, answers as it says; the README shows the same."""
    said = make_says()
    curl = re.search(r"^  (curl (?:.*\\\n)*.*)$", said, re.MULTILINE)[1]
    claim = re.search(r"It answers (\{.*\})\.$", said, re.MULTILINE)[1]
    answer = run(["bash", "-c", placed(curl, demonstration.port)], folder)
    assert matches(claim, answer), answer
    assert re.sub(r"\s+", " ", curl) in re.sub(r"\s+", " ", README), "the README shows another curl"


# ------------------------------------------------------------------------------------------------------------- what it names


def test_the_providers_that_are_named_are_those_of_the_table():
    source = (ROOT / "src/core/provider/brands.rs").read_text()
    table = source[: source.index("];")]
    known = re.findall(r'^    (?:Brand \{.*)?compatible\("([^"]+)"', table, re.MULTILINE)
    unknown = re.findall(r'^    not_yet\("([^"]+)"', table, re.MULTILINE)
    paragraph = README[README.index("**Providers.**") : README.index("### ")]
    named, left_out = paragraph.split("An entry of any other provider")
    assert sorted(re.findall(r"`([^`/\s]+)`", named)) == sorted(known)
    assert set(re.findall(r"`([^`]+)`", left_out)) <= set(unknown)


def test_counters_that_are_named_are_those_of_the_filter():
    filters = [*(ROOT / "src/gateway").glob("*.rs"), *(ROOT / "src/wasm").glob("*.rs"), *(ROOT / "src/module").glob("*.rs")]
    source = "".join(path.read_text() for path in [*filters, ROOT / "src/control/metrics.rs"] if path.name != "tests.rs")
    named = set(re.findall(r"^\| `(tollgate_\w+)` \|", README, re.MULTILINE))
    # A name that labels follow, or that is a whole name.
    assert named == set(re.findall(r'"(tollgate_\w+)[;"]', source))


def test_fields_of_the_access_log_are_those_that_are_written(demonstration):
    paragraph = README[README.index("**Access log.**") : README.index("**Health.**")]
    named = set(re.findall(r"`(\w+)`", paragraph)) - {"use_x_forwarded_for"}
    call_id = demonstration.chat("demo", headers={"authorization": "Bearer sk-1234"}).headers["x-litellm-call-id"]
    assert set(demonstration.access_record(call_id)) <= named
    listener = (ROOT / "src/control/envoy/listener.rs").read_text()
    outer = re.findall(r'"(\w+)":"?%', listener[listener.index("const RECORD") : listener.index("fn access_log")])
    record = (ROOT / "src/core/exchange/record.rs").read_text()
    facts = (ROOT / "src/core/model/call_record.rs").read_text().partition("#[cfg(test)]")[0]
    inner = re.findall(r'shown\.\w+\(\s*"(\w+)"', record)
    inner += re.findall(r'=>.* log(?:_always)? "(\w+)"', facts) + re.findall(r'json\.\w+\(\s*"(\w+)"', facts)
    assert named == {*outer, *inner}


@pytest.mark.parametrize("page", PAGES)
def test_what_is_linked_is_there(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_headings_that_are_linked_exist(page):
    found = re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)
    headings = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in found}
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGES[page]):
        assert anchor in headings, anchor


def test_every_page_is_linked():
    assert all(f"]({page})" in README for page in PAGES if page != "README.md")


def test_flags_that_are_named_exist():
    usage = "".join(command(*words, "--help").stdout for words in ([], ["render"], ["check"], ["backup"], ["restore"]))
    for page in PAGES.values():
        for flag in set(re.findall(r"`tollgate [^`]*?(--[a-z_]+)", page)):
            assert flag in usage, flag


def test_the_check_can_fail():
    assert matches("a … c", "a b\nb c\n")
    assert not matches("a … c", "a b d")
    assert not matches("answer: 42", "answer: 43")

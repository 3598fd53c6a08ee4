"""What a request costs the core in instructions: `make bench-core` counts them and keeps them in instructions.json.

Time on a busy machine tells nothing about a few per cent; counts do, and a diff of the file shows them in review. callgrind runs
each scenario (scenario.rs, by hotpath.rs) with n and with 3n requests, so that starting falls out. What is left of chance (seeds
of hash tables) moves a count by about 0.01 %; another compiler or libc moves it by more.

With --check nothing is written, and a count of more than 5 % above the kept one is an error."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "tests/bench/instructions.json"
REQUESTS = {"chat-1k": 100, "chat-32k": 100, "chat-1m": 10, "stream-50": 100, "openai-to-anthropic-1k": 100}
"""For each scenario its n."""
LIMIT = 0.05
"""A larger change is marked."""
NOISE = 0.001
"""A smaller one leaves the file as it is."""


class Failed(Exception):
    """What went wrong, for whoever ran this."""


@dataclasses.dataclass(frozen=True)
class Change:
    """A scenario's count, and the one that was kept before."""

    name: str
    kept: int | None
    counted: int

    @property
    def share(self) -> float:
        """By how much the count has grown, in parts of the kept one."""
        return (self.counted - self.kept) / self.kept if self.kept else 0.0

    @property
    def is_large(self) -> bool:
        return abs(self.share) > LIMIT

    def line(self) -> str:
        if self.kept is None:
            return f"{self.name:<24} {'':>12}   {self.counted:>12,}       new"
        mark = f"  more than {LIMIT:.0%}" if self.is_large else ""
        return f"{self.name:<24} {self.kept:>12,} → {self.counted:>12,}  {self.share:>+8.2%}{mark}"


def compare(kept: dict[str, int], counted: dict[str, int]) -> list[Change]:
    """Every scenario counted, beside what was kept of it."""
    return [Change(name, kept.get(name), count) for name, count in counted.items()]


def complaint(changes: list[Change]) -> str | None:
    """Why the counts are not to be taken as they are."""
    unknown = [change.name for change in changes if change.kept is None]
    if unknown:
        return f"no count is kept of {', '.join(unknown)}: `make bench-core` writes it"
    worse = [f"{change.name} ({change.share:+.2%})" for change in changes if change.is_large and change.share > 0]
    if worse:
        return f"more than {LIMIT:.0%} over the kept count: {', '.join(worse)}; if that is meant, `make bench-core` keeps it"
    return None


def to_keep(changes: list[Change]) -> dict[str, int]:
    """The counts for the file: those that have not changed but by chance stay."""
    return {c.name: c.kept if c.kept is not None and abs(c.share) < NOISE else c.counted for c in changes}


def output(*words: str | pathlib.Path, **options: object) -> str:
    """What a command says on both of its outputs."""
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(map(str, words))}` failed:\n{done.stdout}")
    return done.stdout


def build() -> pathlib.Path:
    """Builds the program that runs scenarios."""
    told = output("cargo", "bench", "--quiet", "--no-run", "--bench", "hotpath", "--message-format", "json")
    messages = (json.loads(line) for line in told.splitlines() if line.startswith("{"))
    found = [m["executable"] for m in messages if m["reason"] == "compiler-artifact" and m["target"]["name"] == "hotpath"]
    return pathlib.Path(found[-1])


def collected(valgrind: str, program: pathlib.Path, scenario: str, requests: int) -> int:
    """Instructions of a whole run. It gets no environment: its size moves the stack, and with it some seeds."""
    words = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", program, scenario, str(requests)]
    told = output(*words, env={})
    found = re.search(r"Collected : (\d+)", told)
    if not found:
        raise Failed(f"callgrind told no count:\n{told}")
    return int(found[1])


def count(valgrind: str, program: pathlib.Path) -> dict[str, int]:
    """Instructions per request of every scenario."""

    def one(scenario: str, n: int) -> int:
        few, many = (collected(valgrind, program, scenario, requests) for requests in (n, 3 * n))
        return round((many - few) / (2 * n))

    return {scenario: one(scenario, n) for scenario, n in REQUESTS.items()}


def tools(valgrind: str) -> dict[str, str]:
    """What counts hang on besides the code."""
    facts = dict(line.split(": ", 1) for line in output("rustc", "-vV").splitlines() if ": " in line)
    rustc = f"{facts['release']} ({facts.get('commit-hash', 'unknown')[:9]})"
    libc = " ".join(platform.libc_ver())
    return {"rustc": rustc, "target": facts["host"], "libc": libc, "valgrind": output(valgrind, "--version").strip()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts the instructions of a request on the core.")
    parser.add_argument("--check", action="store_true", help="write nothing; a count of 5 %% over the kept one fails")
    check = parser.parse_args().check
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Failed("valgrind is missing, which counts the instructions: install it and run this again")
    file = json.loads(FILE.read_text()) if FILE.exists() else {"tools": {}, "instructions_per_request": {}}
    used, changes = tools(valgrind), compare(file["instructions_per_request"], count(valgrind, build()))
    print("instructions per request", *(change.line() for change in changes), sep="\n")
    if used != file["tools"]:
        print(f"The kept counts are of other tools, which may explain changes: {file['tools']}, now {used}.")
    if check:
        if problem := complaint(changes):
            raise Failed(problem)
        return 0
    counts = to_keep(changes) if used == file["tools"] else {change.name: change.counted for change in changes}
    FILE.write_text(json.dumps({"tools": used, "instructions_per_request": counts}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)

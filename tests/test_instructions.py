"""The kept instruction counts are of the scenarios there are, and a change of more than 5 % is seen. Nothing is counted."""

from __future__ import annotations

import json
import re

import pytest

from bench import instructions
from gateway import ROOT


def test_every_scenario_has_its_count():
    names = re.search(r"NAMES: \[&str; \d+\] = \[(.*?)\];", (ROOT / "tests/bench/scenario.rs").read_text(), re.DOTALL)
    assert names is not None
    scenarios = set(re.findall(r'"(.+?)"', names[1]))
    kept = json.loads(instructions.FILE.read_text())
    assert scenarios == set(instructions.REQUESTS) == set(kept["instructions_per_request"])
    assert all(count > 10_000 for count in kept["instructions_per_request"].values())
    assert set(kept["tools"]) == {"rustc", "target", "libc", "valgrind"}


@pytest.mark.parametrize(
    ("counted", "is_marked", "is_refused"),
    [
        (106_000, True, True),
        (105_001, True, True),
        (105_000, False, False),
        (104_000, False, False),
        (100_000, False, False),
        (96_000, False, False),
        (94_000, True, False),
    ],
)
def test_more_than_five_per_cent_is_marked_and_growth_refused(counted: int, is_marked: bool, is_refused: bool):
    changes = instructions.compare({"other": 7, "chat": 100_000}, {"other": 7, "chat": counted})
    other, chat = (change.line() for change in changes)
    assert ("more than 5%" in chat) == is_marked and "more than" not in other
    assert "100,000 →" in chat and f"{counted:,}" in chat and f"{counted / 1000 - 100:+.2f}%" in chat
    complaint = instructions.complaint(changes)
    assert (complaint is not None) == is_refused
    if complaint is not None:
        assert "chat (+" in complaint and "other" not in complaint


def test_a_scenario_without_a_kept_count_is_named():
    changes = instructions.compare({"chat": 100_000}, {"chat": 100_000, "stream": 50_000})
    assert changes[1].line().split() == ["stream", "50,000", "new"] and not changes[1].is_large
    assert "kept of stream:" in (instructions.complaint(changes) or "")


def test_what_is_kept():
    kept = {"same": 100_000, "by chance": 100_000, "changed": 100_000, "gone": 100_000}
    counted = {"same": 100_000, "by chance": 100_090, "changed": 100_110, "new": 50_000}
    changes = instructions.compare(kept, counted)
    assert instructions.to_keep(changes) == {"same": 100_000, "by chance": 100_000, "changed": 100_110, "new": 50_000}

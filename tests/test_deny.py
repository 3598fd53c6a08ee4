"""The small reader of `deny.toml` refuses what cargo-deny would."""

from __future__ import annotations

import pathlib
import tomllib

import pytest

from deny import allows, problems

RULES = tomllib.loads((pathlib.Path(__file__).resolve().parent.parent / "deny.toml").read_text())
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("MIT", True),
        ("GPL-3.0", False),
        ("MIT OR GPL-3.0", True),
        ("MIT/Apache-2.0", True),
        ("MIT AND GPL-3.0", False),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", True),
        ("GPL-3.0 AND MIT OR ISC", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0 WITH Classpath-exception-2.0", False),
    ],
)
def test_licence_expressions(expression: str, met: bool) -> None:
    assert allows(expression, set(RULES["licenses"]["allow"])) is met


def crate(name: str, version: str = "1.0.0", licence: str | None = "MIT", source: str | None = CRATES_IO) -> dict:
    return {"name": name, "version": version, "license": licence, "source": source, "dependencies": []}


@pytest.mark.parametrize(
    ("crates", "why"),
    [
        ([crate("a", licence="GPL-3.0")], "licence `GPL-3.0`"),
        ([crate("a", licence=None)], "licence ``"),
        ([crate("a", source="git+https://example.org/a")], "source git+"),
        ([crate("openssl")], "denied"),
        ([crate("a"), crate("a", "2.0.0")], "2 versions (1.0.0, 2.0.0)"),
        ([crate("us", source=None) | {"dependencies": [{"name": "b", "req": "*"}]}], "`b` has no version"),
    ],
)
def test_what_is_not_allowed_is_named(crates: list[dict], why: str) -> None:
    rules = RULES | {"bans": RULES["bans"] | {"skip": []}}
    found = problems(crates, rules)
    assert len(found) == 1 and why in found[0], found


def test_exceptions_that_nobody_needs_any_more_are_named() -> None:
    rules = RULES | {"bans": RULES["bans"] | {"skip": [{"crate": "a"}]}}
    assert len(problems([crate("a")], rules)) == 1
    assert not problems([crate("a"), crate("a", "2.0.0")], rules)

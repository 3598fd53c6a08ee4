"""Checks the crates of Cargo.lock against `deny.toml`: licences, bans, sources. What `cargo deny check licenses bans sources` says,
for machines without cargo-deny; advisories need its database and are not looked at here."""

from __future__ import annotations

import collections
import json
import pathlib
import re
import subprocess
import sys
import tomllib
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent


def allows(expression: str, allowed: set[str]) -> bool:
    """Whether a licence expression (SPDX, or with the old slash) can be met with what is allowed."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    place = 0

    def term() -> bool:
        nonlocal place
        token = tokens[place]
        place += 1
        if token == "(":
            met = either()
            place += 1
            return met
        if tokens[place : place + 1] == ["WITH"]:
            token = f"{token} WITH {tokens[place + 1]}"
            place += 2
        return token in allowed

    def both() -> bool:
        nonlocal place
        met = term()
        while tokens[place : place + 1] == ["AND"]:
            place += 1
            met = term() and met
        return met

    def either() -> bool:
        nonlocal place
        met = both()
        while tokens[place : place + 1] == ["OR"]:
            place += 1
            met = both() or met
        return met

    return either() and place == len(tokens)


def problems(packages: list[dict[str, Any]], rules: dict[str, Any]) -> list[str]:
    """What is not allowed, one line each."""
    allowed = set(rules["licenses"]["allow"])
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    denied = {row["crate"] for row in rules["bans"]["deny"]}
    skipped = {row["crate"] for row in rules["bans"]["skip"]}
    found = []
    versions = collections.defaultdict(list)
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] is None:
            found += [
                f"{name}: dependency `{needed['name']}` has no version" for needed in package["dependencies"] if needed["req"] == "*"
            ]
            continue
        versions[package["name"]].append(package["version"])
        licence = package["license"] or ""
        if not licence or not allows(licence, allowed):
            found.append(f"{name}: licence `{licence}` is not in deny.toml's [licenses] allow")
        if package["source"] not in registries:
            found.append(f"{name}: source {package['source']} is not in deny.toml's [sources]")
        if package["name"] in denied:
            found.append(f"{name}: denied by deny.toml's [bans] deny")
    for name, several in versions.items():
        if len(several) > 1 and name not in skipped:
            found.append(f"{name}: {len(several)} versions ({', '.join(several)}); deny.toml's [bans] skip does not have it")
    for name in sorted(skipped - {name for name, several in versions.items() if len(several) > 1}):
        found.append(f"{name}: deny.toml's [bans] skip has it, but there are not two versions of it any more")
    return found


def main() -> int:
    told = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    packages = json.loads(told)["packages"]
    found = problems(packages, tomllib.loads((ROOT / "deny.toml").read_text()))
    print("\n".join(found) if found else f"deny.toml: {len(packages)} crates, licences, bans and sources as they should be")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Tenants that attack a gateway, one kind after the other, while another tenant calls: its success rate and its slowest calls before
and during each, and the Wasm VMs that were lost. Prints a table."""

from __future__ import annotations

import argparse
import multiprocessing
import pathlib
import sys
import tempfile
import time
from collections import Counter
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import attackers  # noqa: E402
from gateway import MASTER_KEY, Asking, Gateway, deployment  # noqa: E402
from mock_provider import OpenAiMock  # noqa: E402

LANES = 3
"""Processes of the attacker."""


class Remote(Asking):
    """A gateway that another process runs."""

    def __init__(self, port: int) -> None:
        self.port = port


def attack(port: int, key: str, name: str, lane: int, over: Any, results: Any) -> None:
    results.put(attackers.attack(Remote(port), key, name, over.is_set, lane, LANES))


def work(gateway: Gateway, key: str, seconds: float) -> tuple[float, float, int]:
    """Calls of the honest tenant: the share that was answered, the 99th percentile in milliseconds, how many."""
    honest, took, good = attackers.Attacker(gateway, key), [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        good += honest.chat(user=f"customer-{len(took) % 7}") == 200
        took.append(time.monotonic() - begun)
    honest.close()
    return good / len(took), sorted(took)[int(len(took) * 0.99)] * 1_000, len(took)


def measure(name: str, seconds: float) -> str:
    mock = OpenAiMock()
    config = {
        "model_list": [deployment("m", mock.params() | {"input_cost_per_token": 1e-9, "output_cost_per_token": 1e-9})],
        "litellm_settings": {"max_end_user_budget": 1},
        "general_settings": {"master_key": MASTER_KEY},
    }
    gateway = Gateway(pathlib.Path(tempfile.mkdtemp(prefix="attackers-")), config)
    try:
        team = gateway.manage("/team/new", {"max_budget": 5, "rpm_limit": 10**7, "tpm_limit": 10**9})["team_id"]
        theirs, ours = (gateway.new_key(team_id=team) for _ in range(2))
        work(gateway, ours, 1)
        before = work(gateway, ours, seconds)
        over, results = multiprocessing.Event(), multiprocessing.Queue()
        lanes = [
            multiprocessing.Process(target=attack, args=(gateway.port, theirs, name, lane, over, results)) for lane in range(LANES)
        ]
        for lane in lanes:
            lane.start()
        during = work(gateway, ours, seconds)
        over.set()
        came: Counter = sum((results.get() for _ in lanes), Counter())
        for lane in lanes:
            lane.join()
        lost = sum(gateway.wasm_trouble().values())
        said = ", ".join(f"{count} x {status}" for status, count in came.most_common(4))
        return (
            f"| {name} | {before[0]:.2%} | {during[0]:.2%} | {before[1]:.0f} | {during[1]:.0f} | {before[2]} | {during[2]} | {lost} | {said} |"
        )
    finally:
        gateway.may_reload = True
        gateway.stop()
        mock.stop()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=10, help="of calls before, and of calls during each attack")
    words.add_argument("only", nargs="*", help="kinds of attackers; all of them when none is named")
    options = words.parse_args()
    multiprocessing.set_start_method("spawn")
    print("| attacker | answered before | during | p99 before, ms | during | calls before | during | vm_reload | attacker's answers |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    for name in options.only or attackers.ATTACKERS:
        print(measure(name, options.seconds), flush=True)


if __name__ == "__main__":
    main()

"""Tenants that attack a gateway, one kind after the other and many kinds at once, while another tenant calls: its success rate and
its latency before, during and after each, whether its limits still hold exactly, whether new keys work, and the Wasm VMs that
were lost. Prints a table.

The other tenant's calls begin on time, sixty a second, whatever becomes of those before them; a third of them on new connections."""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import attackers  # noqa: E402
from attackers import HI, LOAD, Flood, load, loaded  # noqa: E402
from gateway import MASTER_KEY, Asking, Gateway, deployment  # noqa: E402

PROVIDER = LOAD.with_name("mock")
END_USERS = 70_000
"""More than the table of limits has room for."""
AT_ONCE = (
    "large members",
    "stalled uploads",
    "a flood of unknown keys",
    "a flood of tiny time-outs",
    "a flood of end users",
)
RPM, ASKED = 40, 60
"""A limit, and how many calls are made under it."""
NEW_KEYS = 20
LIMITS = re.compile(r"(tollgate_limits_\w+?)(?:\{|$)")


class Remote(Asking):
    """A gateway that another process runs."""

    def __init__(self, port: int) -> None:
        self.port = port


def attack(port: int, key: str, name: str, over: Any, results: Any) -> None:
    """Puts None when it begins, and at the end what came."""
    results.put(None)
    results.put(attackers.attack(Remote(port), key, name, over.is_set, 0, 1))


@dataclasses.dataclass
class Work:
    """What came of the calls of the tenant that does nothing wrong."""

    statuses: Counter
    latencies: Counter

    def __str__(self) -> str:
        return f"{self.statuses[200] / self.statuses.total():.2%} of {self.statuses.total()}"

    def quantile(self, share: float) -> str:
        left = self.latencies.total() * share
        for latency, count in sorted(self.latencies.items()):
            left -= count
            if left <= 0:
                break
        return f"{latency / 1000:.0f}" if latency >= 10_000 else f"{latency / 1000:.1f}"


def work(gateway: Gateway, key: str, seconds: float) -> Work:
    honest = HI | {"user": "customer"}
    loads = [
        load(gateway, Flood(honest, connections=64, fresh=fresh), key, rate=rate, seconds=seconds)
        for fresh, rate in ((False, 40), (True, 20))
    ]
    statuses, latencies = Counter(), Counter()
    for each in map(loaded, loads):
        statuses += each["statuses"]
        latencies += Counter(dict(each["latencies"]))
    return Work(statuses, latencies)


def first_calls(gateway: Gateway) -> int:
    """Makes new keys and calls once with each: how many of them work."""
    client = attackers.Attacker(gateway, "")
    good = 0
    for _ in range(NEW_KEYS):
        made = gateway.manage_raw("/key/generate", {})
        good += made.status_code == 200 and client.chat(key=made.json()["key"]) == 200
    client.close()
    return good


class Attack:
    """Attackers of several kinds, until [Attack.end]."""

    def __init__(self, gateway: Gateway, key: str, names: tuple[str, ...], lanes: int, flags: dict) -> None:
        self.over, self.results = multiprocessing.Event(), multiprocessing.Queue()
        slow = [name for name in names if name in attackers.ATTACKERS for _ in range(lanes)]
        self.lanes = [
            multiprocessing.Process(target=attack, args=(gateway.port, key, name, self.over, self.results)) for name in slow
        ]
        for lane in self.lanes:
            lane.start()
        for _ in self.lanes:
            self.results.get()
        self.floods = [load(gateway, attackers.FLOODS[name], key, **flags) for name in names if name in attackers.FLOODS]

    def rages(self) -> bool:
        return any(flood.poll() is None for flood in self.floods)

    def end(self) -> tuple[Counter, float]:
        """Statuses, and how many calls of floods came in a second."""
        self.over.set()
        came = sum((self.results.get() for _ in self.lanes), Counter())
        for lane in self.lanes:
            lane.join()
        floods = [loaded(flood) for flood in self.floods]
        return sum((flood["statuses"] for flood in floods), came), sum(flood["rps"] for flood in floods)


def measure(title: str, names: tuple[str, ...], seconds: float, **flags: object) -> str:
    provider = subprocess.Popen([str(PROVIDER), "--port", "0"], stdout=subprocess.PIPE, text=True)
    port = int(re.search(r"\d+", provider.stdout.readline()).group())
    params = {"model": "openai/gpt-4o-mini", "api_key": "sk-x", "api_base": f"http://127.0.0.1:{port}/v1"}
    config = {
        "model_list": [deployment("m", params | {"input_cost_per_token": 1e-9, "output_cost_per_token": 1e-9})],
        "litellm_settings": {"max_end_user_budget": 1},
        "general_settings": {"master_key": MASTER_KEY},
    }
    gateway = Gateway(pathlib.Path(tempfile.mkdtemp(prefix="attackers-")), config)
    try:
        team = gateway.manage("/team/new", {"max_budget": 5, "rpm_limit": 10**7, "tpm_limit": 10**9})["team_id"]
        theirs, ours = (gateway.new_key(team_id=team) for _ in range(2))
        limited = gateway.new_key(rpm_limit=RPM)
        work(gateway, ours, 1)
        before = work(gateway, ours, seconds)
        rage = Attack(gateway, theirs, names, 3 if len(names) == 1 else 1, flags or {"seconds": seconds + 4})
        exact = load(gateway, Flood(HI, connections=4), limited, requests=ASKED)
        fresh = []
        maker = threading.Thread(target=lambda: fresh.append(first_calls(gateway)))
        maker.start()
        during = work(gateway, ours, seconds)
        while flags and rage.rages():
            more = work(gateway, ours, seconds)
            during = Work(during.statuses + more.statuses, during.latencies + more.latencies)
        came, rate = rage.end()
        maker.join()
        admitted = loaded(exact)["statuses"]
        after = work(gateway, ours, seconds / 2)
        table = Counter()
        for name, value in gateway.stats().items():
            if found := LIMITS.search(name):
                table[found.group(1).removeprefix("envoy_").removeprefix("tollgate_limits_")] += int(value)
        lost = sum(gateway.wasm_trouble().values())
        said = ", ".join(f"{count} x {status}" for status, count in sorted(came.items()))
        said += f" ({rate:.0f}/s)" if rate else ""
        said += "".join(f"; {name} {count}" for name, count in sorted(table.items()))
        cells = [title, before, during, after]
        cells += [" / ".join(each.quantile(share) for each in (before, during, after)) for share in (0.5, 0.99)]
        cells += [f"{admitted[200]} of {RPM}", f"{sum(fresh)} of {NEW_KEYS}", lost, said]
        return f"| {' | '.join(map(str, cells))} |"
    finally:
        gateway.may_reload = True
        gateway.stop()
        provider.kill()
        provider.wait()


HEAD = (
    "attacker", "answered before", "during", "after", "p50 before / during / after, ms", "p99, ms", "admitted by an rpm_limit",
    "new keys that work at once", "vm_reload", "attacker's answers",
)  # fmt: skip


def main() -> None:
    rows = {name: (name,) for name in [*attackers.ATTACKERS, *attackers.FLOODS]}
    end_users, at_once = f"{END_USERS:,} end users", "five kinds at once"
    rows |= {end_users: ("a flood of end users",), at_once: AT_ONCE}
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=10, help="of calls before, and of calls during each attack")
    words.add_argument("only", nargs="*", help=f"rows; all of them when none is named: {', '.join(rows)}")
    options = words.parse_args()
    multiprocessing.set_start_method("spawn")
    print(f"| {' | '.join(HEAD)} |\n|---|{'--:|' * (len(HEAD) - 2)}---|")
    for title in options.only or rows:
        flags = {"requests": END_USERS} if title == end_users else {}
        print(measure(title, rows[title], options.seconds, **flags), flush=True)


if __name__ == "__main__":
    main()

"""What a large ledger costs: `make bench-ledger` fills one with 100,000 keys and a million calls and times what people wait for.

Prints medians and the slowest of each, and what the processes hold of memory. Nothing is asserted: a busy machine is slow."""

from __future__ import annotations

import datetime
import hashlib
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from gateway import MASTER_KEY, Gateway, bearer, deployment, free_port  # noqa: E402
from memory import resident_kb  # noqa: E402
from mock_provider import OpenAiMock  # noqa: E402

KEYS = int(os.environ.get("BENCH_KEYS", 100_000))
CALLS = int(os.environ.get("BENCH_CALLS", 1_000_000))


def key_of(number: int) -> str:
    return f"sk-bench-{number:08}"


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def rows_of_keys(now_ms: int):
    for number in range(KEYS):
        key = key_of(number)
        yield (hash_of(key), f"sk-...{key[-4:]}", f"bench {number}", number * 1000, 10**13, 1000, f"user {number % 1000}", now_ms - number)


def rows_of_calls(now_ms: int):
    for number in range(CALLS):
        key = hash_of(key_of(number % KEYS)) if number < KEYS else _hashes[number % KEYS]
        at = now_ms - number * 2_000
        yield (f"call-{number}", "acompletion", key, 1_000_000, 30, 10, 20, at, at + 500, "gpt-4o", f"user {number % 1000}", "success")


_hashes: list[str] = []


def fill_sqlite(file: pathlib.Path) -> None:
    now_ms = int(time.time() * 1000)
    _hashes.extend(hash_of(key_of(number)) for number in range(KEYS))
    with sqlite3.connect(file) as database:
        database.executemany(
            "INSERT INTO tollgate_keys (token, key_name, key_alias, spend, max_budget, rpm_limit, user_id, created_at) VALUES (?,?,?,?,?,?,?,?)",
            rows_of_keys(now_ms),
        )
        database.executemany(
            "INSERT INTO tollgate_spend_logs (request_id, call_type, api_key, spend, total_tokens, prompt_tokens, completion_tokens, "
            "start_time, end_time, model, user_id, status) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            rows_of_calls(now_ms),
        )
        database.execute(
            "INSERT INTO tollgate_daily (day, api_key, user_id, team_id, organization_id, model, model_group, provider, spend, prompt_tokens, "
            "completion_tokens, cache_read_tokens, cache_creation_tokens, requests, failures) SELECT strftime('%Y-%m-%d', start_time / 1000, 'unixepoch'), "
            "api_key, user_id, '', '', model, model, 'openai', SUM(spend), SUM(prompt_tokens), SUM(completion_tokens), 0, 0, COUNT(*), 0 "
            "FROM tollgate_spend_logs GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"
        )


def timed(what: str, work: Callable[[int], object], rounds: int = 15) -> None:
    times = []
    for turn in range(rounds):
        begun = time.perf_counter()
        work(turn)
        times.append((time.perf_counter() - begun) * 1000)
    print(f"{what:<58}{statistics.median(times):>9.1f} ms{max(times):>10.1f} ms", flush=True)


def main() -> None:
    mock = OpenAiMock()
    prices = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    config = {
        "model_list": [deployment("m", mock.params() | prices)],
        "router_settings": {"num_retries": 0},
        "general_settings": {"master_key": MASTER_KEY},
    }
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tollgate-bench-"))
    port = free_port()
    state = folder / "state"
    first = Gateway(folder / "first", config, port=port, state=state)
    first.stop()
    file = next(state.rglob("ledger.db"))
    begun = time.perf_counter()
    fill_sqlite(file)
    print(f"filled: {KEYS} keys, {CALLS} calls, {file.stat().st_size >> 20} MB in {time.perf_counter() - begun:.0f} s\n")
    print(f"{'':<58}{'median':>12}{'slowest':>13}")
    begun = time.perf_counter()
    gateway = Gateway(folder / "second", config, port=port, state=state)
    print(f"{'start of the gateway to its first answer':<58}{(time.perf_counter() - begun) * 1000:>9.1f} ms", flush=True)
    idle = resident_kb(gateway.envoy_pid()) / 1024

    def chat(number: int) -> None:
        answer = gateway.chat("m", headers=bearer(key_of(number)), max_tokens=1)
        assert answer.status_code == 200, answer.text

    timed("a first request with a cold key", lambda turn: chat(1_000 + turn), 100)
    timed("a request with a warm key", lambda turn: chat(1_000), 100)
    for number in range(10_000):
        chat(number)
    full = resident_kb(gateway.envoy_pid()) / 1024
    today = datetime.date.today()
    month_ago = today - datetime.timedelta(days=30)
    pages = {
        "/key/list, first page": "/key/list?size=100",
        "/key/list, page 900 of 1000": "/key/list?size=100&page=900",
        "/key/list of a user, full objects": "/key/list?user_id=user%207&return_full_object=true&size=100",
        "/key/info": f"/key/info?key={key_of(5)}",
        "/spend/logs/v2, first page": "/spend/logs/v2?page_size=100",
        "/spend/logs/v2 of a key": f"/spend/logs/v2?api_key={hash_of(key_of(5))}&page_size=100",
        "/spend/logs of a key": f"/spend/logs?api_key={hash_of(key_of(5))}",
        # Of all keys together these would be more sums than the ledger makes at a time: it says so with 400.
        "/spend/logs by day of a key, 30 days": f"/spend/logs?start_date={month_ago}&end_date={today}&api_key={hash_of(key_of(5))}",
        "/global/spend": "/global/spend",
        "/global/spend/keys?limit=100": "/global/spend/keys?limit=100",
        "/global/spend/report of a key, 30 days": f"/global/spend/report?start_date={month_ago}&end_date={today}&api_key={hash_of(key_of(5))}",
    }
    for what, path in pages.items():
        timed(what, lambda turn, path=path: gateway.client.get(path, headers=bearer(MASTER_KEY)).raise_for_status(), 10)
    timed("/key/generate", lambda turn: gateway.new_key(), 50)
    print(f"\nEnvoy: {idle:.0f} MB after its start, {full:.0f} MB with 10,000 keys in force")
    print(f"the ledger: {resident_kb(gateway.ledger_pid()) / 1024:.0f} MB")
    gateway.stop()
    mock.stop()
    subprocess.run(["rm", "-rf", str(folder)], check=True)


if __name__ == "__main__":
    main()

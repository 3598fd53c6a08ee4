"""What processes hold of memory, as the kernel tells it: the whole, and the linear memory of each Wasm VM in Envoy.

V8 puts a VM's linear memory at the start of a reservation of several gigabytes, of which only the memory itself may be touched:
a mapping that can be read and written, right before one that cannot and is larger than any memory can grow. So the size of
the first is what `memory.size` says inside, which never shrinks, and its resident part is what was ever touched."""

from __future__ import annotations

import dataclasses
import pathlib
import re

RESERVED_KB = 3 << 20
"""No mapping is that large without being the rest of such a reservation."""

MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)")


@dataclasses.dataclass(frozen=True)
class Linear:
    """The linear memory of a VM: what it has asked for, and what of it was ever touched."""

    committed_kb: int
    resident_kb: int


def resident_kb(pid: int) -> int:
    """What a process holds of memory now."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def linear_memories(pid: int) -> list[Linear]:
    """Of every VM in an Envoy, the largest first."""
    mappings: list[dict] = []
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := MAPPING.match(line):
            start, end = int(found[1], 16), int(found[2], 16)
            mappings.append({"start": start, "end": end, "rights": found[3], "is_file": found[4] != "0", "resident": 0})
        elif line.startswith("Rss:"):
            mappings[-1]["resident"] = int(line.split()[1])
    memories = []
    for memory, rest in zip(mappings, mappings[1:]):
        is_reserved = rest["rights"].startswith("---") and (rest["end"] - rest["start"]) >> 10 >= RESERVED_KB
        if memory["rights"].startswith("rw-") and not memory["is_file"] and is_reserved and memory["end"] == rest["start"]:
            memories.append(Linear((memory["end"] - memory["start"]) >> 10, memory["resident"]))
    return sorted(memories, key=lambda memory: -memory.committed_kb)

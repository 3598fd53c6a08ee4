"""The table of docs/clients.md: which client does what over which format, and what does not go well yet.

.venv/bin/python tests/clients/matrix.py    writes it anew
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))

from clients.catalogue import AIDER, CLAUDE_CODE, CLIENTS, FORMATS, KNOWN, MORE, Client  # noqa: E402

PAGE = HERE.parents[1] / "docs/clients.md"
BEGIN, END = "<!-- The table begins. -->\n", "<!-- The table ends. -->\n"
TITLES = {"openai": "OpenAI", "anthropic": "Anthropic", "ollama": "Ollama", "gemini": "Gemini", "deepseek": "DeepSeek"}
TITLES |= {"groq": "Groq", "mistral": "Mistral", "vllm": "vLLM"}


def version(client: Client) -> str:
    """The version that is pinned for a client."""
    if client.environment == "node":
        return json.loads((HERE / "package.json").read_text())["dependencies"][client.package]
    file = HERE.parent / "requirements.txt" if client.environment == "tests" else HERE / f"{client.environment}.txt"
    return re.search(rf"^{re.escape(client.package)}(?:\[.*\])?==(\S+)$", file.read_text(), re.MULTILINE)[1]


def label(client: Client) -> str:
    """What the table calls a client: its package, and of which of its models, when there are several."""
    told = {"pydantic_ai_openai": "OpenAI model", "pydantic_ai_anthropic": "Anthropic model"}
    told |= {"openai": "Python", "anthropic": "Python", "openai_node": "Node.js"}
    return f"{client.package}, {told[client.name]}" if client.name in told else client.package


def cell(client: Client, format: str, notes: list[str]) -> str:
    """How many scenarios go well, with the numbers of what does not."""
    if format not in client.formats:
        return ""
    known = {}
    for scenario in client.scenarios:
        why = next((row.why for row in KNOWN if row.is_about(client.name, format, scenario)), None)
        if why:
            known[scenario] = why
            if why not in notes:
                notes.append(why)
    total = len(client.scenarios)
    marks = sorted({notes.index(why) + 1 for why in known.values()})
    return f"{total - len(known)} of {total}" + "".join(f" [{mark}]" for mark in marks)


def table() -> str:
    """The table, and what its numbers mean."""
    formats = FORMATS + MORE
    notes: list[str] = []
    lines = ["| client | version | " + " | ".join(TITLES[format] for format in formats) + " |", "|---" * (len(formats) + 2) + "|"]
    for client in (*CLIENTS, CLAUDE_CODE, AIDER):
        cells = " | ".join(cell(client, format, notes) for format in formats)
        lines.append(f"| {label(client)} | {version(client)} | {cells} |")
    lines += ["", *(f"{at}. {why[0].upper()}{why[1:]}." for at, why in enumerate(notes, 1)), ""]
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))

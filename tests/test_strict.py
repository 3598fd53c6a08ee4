"""The strict doubles: what each API takes and what it refuses, in its own words."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from gateway import chunks_of, events_of
from mock_provider.strict import (
    Strict,
    StrictAnthropic,
    StrictAzure,
    StrictDeepSeek,
    StrictGemini,
    StrictGroq,
    StrictMistral,
    StrictOllama,
    StrictOpenAi,
    StrictVllm,
)

HELLO = [{"role": "user", "content": "hi"}]
CHAT = [StrictOpenAi, StrictAzure, StrictGemini, StrictDeepSeek, StrictGroq, StrictMistral, StrictVllm]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("weather", "time")]
ITS_TOOLS = [{"name": name, "input_schema": PARAMETERS} for name in ("weather", "time")]


@pytest.fixture
def double(request, mocks) -> Strict:
    """One double, of the class the test is parametrized with."""
    return mocks(request.param)


def ask(mock: Strict, **change: Any) -> httpx.Response:
    """A request to the API's one path: a member set to `...` is left out."""
    model = mock.params()["model"].split("/", 1)[1]
    body: dict = {"model": model, "messages": HELLO}
    headers = {"authorization": f"Bearer {mock.key}"}
    path = f"{mock.base}/chat/completions"
    if isinstance(mock, StrictAnthropic):
        body["max_tokens"] = 64
        headers = {"x-api-key": mock.key, "anthropic-version": "2023-06-01"}
        path = f"{mock.base}/v1/messages"
    elif isinstance(mock, StrictOllama):
        path, body["stream"] = f"{mock.base}/api/chat", False
    elif isinstance(mock, StrictAzure):
        version = change.pop("api_version", "2024-10-21")
        path = f"{mock.base}/openai/deployments/{change.pop('deployment', 'dep')}/chat/completions?api-version={version}"
        headers = {"api-key": mock.key}
    body = {name: value for name, value in (body | change).items() if value is not ...}
    return httpx.post(path, json=body, headers=headers, trust_env=False, verify=False)


def user(content: Any) -> dict:
    return {"role": "user", "content": content}


def said(**members: Any) -> dict:
    return {"role": "assistant", "content": "yes"} | members


def call(name: str = "weather", arguments: Any = "{}", id: str = "call_1", **more: Any) -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}} | more


def called(*calls: dict, **members: Any) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": list(calls or [call()])} | members


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "3C"}
ROUND = {"messages": [*HELLO, called(), RESULT], "tools": TOOLS}
DEVELOPER = {"messages": [{"role": "developer", "content": "Be brief."}, *HELLO]}
NULLS = {"messages": [*HELLO, said(tool_calls=None, function_call=None), user("and?")]}
REASONED = {"messages": [*HELLO, said(reasoning_content="Hm."), user("and?")]}
MARKED = {"messages": [user([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}])]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
LONG = [{"type": "function", "function": {"name": "n" * 65, "parameters": PARAMETERS}}]

# The API, what is sent, and the status and words of the refusal; None when it is taken.
CHAT_ROWS: list[tuple[type[Strict], str, dict, tuple[int, str] | None]] = [
    *((kind, "a round of tools", ROUND, None) for kind in CHAT if kind is not StrictGemini),
    *((kind, "a turn of the assistant", {"messages": [*HELLO, said(), user("and?")]}, None) for kind in CHAT),
    (StrictOpenAi, "developer", DEVELOPER, None),
    (StrictAzure, "developer", DEVELOPER, None),
    (StrictDeepSeek, "developer", DEVELOPER, (422, "unknown variant `developer`, expected one of `system`, `user`")),
    (StrictMistral, "developer", DEVELOPER, (422, "Input tag 'developer' found using 'role' does not match")),
    (StrictGroq, "developer", DEVELOPER, (400, "discriminator property 'role' has invalid value")),
    (StrictGemini, "developer", DEVELOPER, (400, "Please use a valid role")),
    (StrictVllm, "developer", DEVELOPER, (400, "Unexpected message role.")),
    (StrictOpenAi, "nulls", NULLS, None),
    (StrictDeepSeek, "nulls", NULLS, None),
    (StrictGroq, "nulls", NULLS, (400, "('messages.1.tool_calls' : Value is not nullable)")),
    (StrictMistral, "nulls", NULLS, (422, '"function_call"], "msg": "Extra inputs are not permitted"')),
    (StrictMistral, "refusal", {"messages": [*HELLO, said(refusal=None), *HELLO]}, (422, "Extra inputs are not permitted")),
    (StrictMistral, "reasoning", REASONED, (422, '"reasoning_content"], "msg": "Extra inputs are not permitted"')),
    (StrictGroq, "reasoning", REASONED, (400, "property 'reasoning_content' is unsupported")),
    (StrictDeepSeek, "reasoning", REASONED, None),
    (StrictGroq, "a cache mark", MARKED, (400, "property 'cache_control' is unsupported")),
    (StrictMistral, "a cache mark", MARKED, (422, '"cache_control"], "msg": "Extra inputs')),
    (StrictOpenAi, "an unknown parameter", {"top_k": 4}, (400, "Unrecognized request argument supplied: top_k")),
    (StrictOpenAi, "thinking", {"thinking": {"type": "enabled"}}, (400, "Unrecognized request argument supplied: thinking")),
    (StrictGroq, "an unknown parameter", {"store": True}, (400, "property 'store' is unsupported")),
    (StrictMistral, "an unknown parameter", {"seed": 4}, (422, '["body", "seed"]')),
    (StrictGemini, "an unknown parameter", {"store": True}, (400, 'Unknown name "store": Cannot find field.')),
    (StrictDeepSeek, "an unknown parameter", {"top_k": 4}, None),
    (StrictOpenAi, "effort", {"reasoning_effort": "low"}, (400, "Unrecognized request argument supplied: reasoning_effort")),
    (StrictOpenAi, "effort of gpt-5", {"model": "gpt-5", "reasoning_effort": "low"}, None),
    (StrictOpenAi, "limit of gpt-5", {"model": "gpt-5", "max_tokens": 5}, (400, "Use 'max_completion_tokens' instead.")),
    (StrictOpenAi, "new limit of gpt-5", {"model": "gpt-5", "max_completion_tokens": 5}, None),
    (StrictOpenAi, "temperature of o3", {"model": "o3-mini", "temperature": 0.2}, (400, "Only the default (1) value")),
    (StrictOpenAi, "top_p of o3", {"model": "o3", "top_p": 0.2}, (400, "'top_p' is not supported with this model.")),
    (StrictOpenAi, "usage without stream", {"stream_options": {"include_usage": True}}, (400, "only allowed when 'stream'")),
    (StrictOpenAi, "choice without tools", {"tool_choice": "auto"}, (400, "only allowed when 'tools' are specified")),
    (StrictOpenAi, "no tools", {"tools": []}, (400, "Invalid 'tools': empty array")),
    (StrictOpenAi, "no calls", {"messages": [*HELLO, said(tool_calls=[])]}, (400, "tool_calls': empty array")),
    (StrictOpenAi, "a long name", {"tools": LONG}, (400, "string too long. Expected a string with maximum length 64")),
    (StrictOpenAi, "no result", {"messages": [*HELLO, called(), user("b")]}, (400, "did not have response messages: call_1")),
    (StrictOpenAi, "no result at the end", {"messages": [*HELLO, called()]}, (400, "did not have response messages: call_1")),
    (StrictOpenAi, "a result without call", {"messages": [*HELLO, RESULT]}, (400, "must be a response to a preceeding message")),
    (StrictOpenAi, "arguments as object", {"messages": [*HELLO, called(call(arguments={})), RESULT]}, (400, "expected a string")),
    (StrictOpenAi, "null content", {"messages": [user(None)]}, (400, "expected a string, got null")),
    (StrictOpenAi, "json unsaid", {"response_format": {"type": "json_object"}}, (400, "must contain the word 'json'")),
    (StrictOpenAi, "Anthropic's part", {"messages": [user([{"type": "tool_result"}])]}, (400, "Invalid value: 'tool_result'")),
    (StrictVllm, "torn arguments", {"messages": [*HELLO, called(call(arguments='{"a')), RESULT]}, (400, "Unterminated string")),
    (StrictOpenAi, "torn arguments", {"messages": [*HELLO, called(call(arguments='{"a')), RESULT], "tools": TOOLS}, None),
    (StrictDeepSeek, "a schema", {"response_format": SCHEMA}, (400, "This response_format type is unavailable now")),
    (StrictDeepSeek, "a picture", {"messages": [user([{"type": "image_url"}])]}, (422, "unknown variant `image_url`")),
    (StrictDeepSeek, "no reasoning", ROUND | {"model": "deepseek-reasoner"}, (400, "Missing `reasoning_content` field")),
    (
        StrictDeepSeek,
        "reasoning given back",
        ROUND | {"model": "deepseek-reasoner", "messages": [*HELLO, called(reasoning_content="Hm."), RESULT]},
        None,
    ),
    (StrictGemini, "no signature", ROUND, (400, "Function call is missing a thought_signature")),
    (StrictMistral, "user after tool", {"messages": [*HELLO, called(), RESULT, *HELLO]}, (400, "role 'user' after role 'tool'")),
    (StrictMistral, "assistant last", {"messages": [*HELLO, said()]}, (400, "Expected last role User or Tool")),
    (StrictMistral, "effort", {"reasoning_effort": "low"}, (400, "reasoning_effort is not enabled for this model")),
    (StrictGroq, "effort", {"reasoning_effort": "low"}, (400, "`reasoning_effort` is not supported with this model")),
    (StrictAzure, "another deployment", {"deployment": "o_series%2Fdep"}, (404, "DeploymentNotFound")),
    (StrictAzure, "a schema", {"response_format": SCHEMA}, None),
    (StrictAzure, "a schema long ago", {"response_format": SCHEMA, "api_version": "2024-06-01"}, (400, "only for api versions")),
    (
        StrictAzure,
        "required long ago",
        {"tools": TOOLS, "tool_choice": "required", "api_version": "2024-05-01-preview"},
        (400, "Supported values are: 'none' and 'auto'."),
    ),
]  # fmt: skip


def ids(rows: list) -> list[str]:
    return [f"{kind.__name__.removeprefix('Strict')}: {name}" for kind, name, *_ in rows]


def check(mock: Strict, body: dict, wanted: tuple[int, str] | None) -> None:
    answer = ask(mock, **body)
    if wanted is None:
        assert answer.status_code == 200, answer.text
        assert mock.refused == []
    else:
        status, words = wanted
        said = (words, json.dumps(words)[1:-1])
        assert answer.status_code == status and any(form in answer.text for form in said), answer.text
        assert len(mock.refused) == 1 and mock.refused[0].startswith(str(status))


@pytest.mark.parametrize("double, name, body, wanted", CHAT_ROWS, ids=ids(CHAT_ROWS), indirect=["double"])
def test_a_chat_api_refuses_what_the_real_one_refuses(double, name, body, wanted):
    check(double, body, wanted)


USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
USED = {"type": "tool_result", "tool_use_id": "t1", "content": "3C"}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}
FORGED = {"type": "thinking", "thinking": "Hm.", "signature": ""}
TOP = [{"name": "a", "input_schema": {"type": "object", "anyOf": [{}]}}]
MARK = {"cache_control": {"type": "ephemeral"}}


def turns(*contents: Any, **more: Any) -> dict:
    """Turns of user and assistant, with tools."""
    roles = ["user", "assistant"] * len(contents)
    return {"messages": [{"role": role, "content": content} for role, content in zip(roles, contents)], "tools": ITS_TOOLS} | more


ANTHROPIC_ROWS: list[tuple[str, dict, str | None]] = [
    ("plain", {}, None),
    ("a round of tools", turns("a", [USE], [USED]), None),
    ("a text after the result", turns("a", [USE], [USED, {"type": "text", "text": "and?"}]), None),
    ("two turns of the user", {"messages": [*HELLO, *HELLO]}, None),
    ("thinking", THINKING, None),
    ("no limit", {"max_tokens": ...}, "max_tokens: Field required"),
    ("a system role", {"messages": [{"role": "system", "content": "a"}, *HELLO]}, 'Unexpected role "system"'),
    ("a system role later", {"messages": [*HELLO, {"role": "system", "content": "a"}]}, None),
    ("a thread", {"thread": {"type": "create"}}, "this request cannot be part of a thread"),
    ("a tool role", {"messages": [*HELLO, RESULT]}, "messages.1.role: Input should be 'user' or 'assistant'"),
    ("a member of chat", {"messages": [*HELLO, said(tool_calls=None), *HELLO]}, "messages.1.tool_calls: Extra inputs"),
    ("a parameter of chat", {"n": 1}, "n: Extra inputs are not permitted"),
    ("LiteLLM's switch", {"modify_params": True}, "modify_params: Extra inputs are not permitted"),
    ("tools of chat", {"tools": TOOLS}, "tools.0: Input tag 'function' found"),
    ("temperature 2", {"temperature": 2}, "temperature: Input should be less than or equal to 1"),
    ("an empty text", turns([{"type": "text", "text": ""}]), "text content blocks must be non-empty"),
    ("a blank text", turns([{"type": "text", "text": " \n"}]), "text content blocks must contain non-whitespace text"),
    ("an empty turn", turns("", "a", "b"), "all messages must have non-empty content"),
    ("an empty result", turns("a", [USE], [USED | {"content": [{"type": "text", "text": ""}]}]), "must be non-empty"),
    ("no result", turns("a", [USE], "b"), "`tool_use` ids were found without `tool_result` blocks immediately after: t1"),
    ("no result at the end", turns("a", [USE]), "`tool_use` ids were found without `tool_result` blocks"),
    ("no call", turns("a", "b", [USED]), "unexpected `tool_use_id` found in `tool_result` blocks: t1"),
    ("two results", turns("a", [USE], [USED, USED]), "each tool_use must have a single result"),
    ("a text before the result", turns("a", [USE], [{"type": "text", "text": "b"}, USED]), "must come before any other content"),
    ("an id twice", turns("a", [USE], [USED], [USE], [USED]), "`tool_use` ids must be unique"),
    ("calls without tools", turns("a", [USE], [USED], tools=...), "must define tools"),
    ("arguments as text", turns("a", [USE | {"input": "{}"}], [USED]), "tool_use.input: Input should be a valid dictionary"),
    ("a strange id", turns("a", [USE | {"id": "call:1"}], [USED | {"tool_use_id": "call:1"}]), "tool_use.id: String should"),
    ("a choice as text", {"tools": ITS_TOOLS, "tool_choice": "auto"}, "tool_choice: Input should be a valid dictionary"),
    ("anyOf at the top", {"tools": TOP}, "input_schema does not support oneOf, allOf, or anyOf at the top level"),
    ("five cache marks", turns([{"type": "text", "text": "a"} | MARK] * 5), "A maximum of 4 blocks with cache_control"),
    ("a large budget", {"thinking": THINKING["thinking"]}, "`max_tokens` must be greater than `thinking.budget_tokens`"),
    ("thinking with temperature", THINKING | {"temperature": 0.2}, "`temperature` may only be set to 1 when thinking is enabled"),
    ("thinking with top_k", THINKING | {"top_k": 4}, "`top_k` must be unset when thinking is enabled"),
    (
        "thinking with a forced tool",
        THINKING | {"tools": ITS_TOOLS, "tool_choice": {"type": "any"}},
        "Thinking may not be enabled when tool_choice forces tool use",
    ),
    ("an unsigned thought", turns("a", [FORGED, {"type": "text", "text": "b"}], "c"), "Invalid `signature` in `thinking` block"),
    ("a call without its thought", turns("a", [USE], [USED]) | THINKING, "but found `tool_use`"),
    ("an earlier call without its thought", turns("a", [USE], [USED], "b", "c") | THINKING, None),
]  # fmt: skip


@pytest.mark.parametrize("name, body, words", ANTHROPIC_ROWS, ids=[row[0] for row in ANTHROPIC_ROWS])
def test_anthropic_refuses_what_the_real_one_refuses(mocks, name, body, words):
    check(mocks(StrictAnthropic), body, words and (400, words))


OLLAMA_ROWS: list[tuple[str, dict, str | None]] = [
    ("plain", {}, None),
    ("tools", {"tools": TOOLS}, None),
    ("thinking", {"model": "qwen3", "think": True}, None),
    ("thinking of a model that does not", {"think": True}, '"llama3.2" does not support thinking'),
    ("tools of a model without", {"model": "llama2", "tools": TOOLS}, "llama2:latest does not support tools"),
    ("parts", {"messages": [user([{"type": "text", "text": "hi"}])]}, "cannot unmarshal array"),
    ("arguments as text", {"messages": [*HELLO, called(content="")]}, "cannot unmarshal string"),
    ("developer", DEVELOPER, "invalid role developer"),
    ("a parameter of chat", {"temperature": 1}, "unknown members ['temperature']"),
]


@pytest.mark.parametrize("name, body, words", OLLAMA_ROWS, ids=[row[0] for row in OLLAMA_ROWS])
def test_ollama_refuses_what_the_real_one_refuses(mocks, name, body, words):
    mock = mocks(StrictOllama)
    answer = ask(mock, **body)
    assert answer.status_code == (400 if words else 200), answer.text
    assert words is None or words in answer.json()["error"]
    assert len(mock.refused) == (words is not None)


# ------------------------------------------------------------------------------------------------------------ what they answer


def joined(mock: Strict, answer: httpx.Response) -> dict:
    """The message of a stream of chunks."""
    message: dict = {"content": "", "calls": {}, "reasoning": ""}
    for chunk in chunks_of(answer.content):
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get(mock.reasoning_member) or ""
            for piece in delta.get("tool_calls") or []:
                held = message["calls"].setdefault(piece["index"], [piece.get("id"), "", ""])
                held[1] += piece["function"].get("name", "")
                held[2] += piece["function"].get("arguments", "")
            message["finish"] = choice["finish_reason"]
    return message


@pytest.mark.parametrize("double", CHAT, ids=lambda kind: kind.__name__, indirect=True)
def test_a_conversation_with_tools_goes_on_to_its_end_streamed_and_not(double):
    double.rounds = 2
    messages = [*HELLO]
    names = []
    while True:
        answer = ask(double, messages=messages, tools=TOOLS).json()["choices"][0]["message"]
        if not answer.get("tool_calls"):
            break
        streamed = joined(double, ask(double, messages=messages, tools=TOOLS, stream=True))
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in answer["tool_calls"]]
        assert [tuple(call[1:]) for call in streamed["calls"].values()] == calls
        assert streamed["finish"] == double.finish_of_calls
        names.append([call[0] for call in calls])
        kept = {name: value for name, value in answer.items() if name in ("role", "content", "tool_calls")}
        messages.append(kept)
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": "3C"} for call in answer["tool_calls"]]
    assert names == [["weather", "time"], ["weather"]]
    assert answer["content"] == double.text == joined(double, ask(double, messages=messages, stream=True))["content"]
    assert double.refused == []


def test_what_anthropic_signed_is_taken_back_and_nothing_else(mocks):
    mock = mocks(StrictAnthropic)
    answer = ask(mock, tools=ITS_TOOLS, **THINKING).json()
    assert [block["type"] for block in answer["content"]] == ["thinking", "tool_use", "tool_use"]
    results = [USED | {"tool_use_id": block["id"]} for block in answer["content"][1:]]
    assert ask(mock, **turns("hi", answer["content"], results), **THINKING).json()["content"][1]["text"] == mock.text
    answer["content"][0]["thinking"] += "!"
    check(mock, turns("hi", answer["content"], results) | THINKING, (400, "Invalid `signature`"))


def test_deepseek_and_vllm_think_under_their_own_names(mocks):
    deepseek = mocks(StrictDeepSeek)
    answer = ask(deepseek, model="deepseek-reasoner", stream=True)
    assert answer.text.startswith(": keep-alive\n\n") and joined(deepseek, answer)["reasoning"].startswith("The user asks")
    answer = ask(mocks(StrictVllm), reasoning_effort="low").json()
    assert answer["choices"][0]["message"]["reasoning"].startswith("The user asks")


def test_google_ends_its_lines_with_both_and_its_errors_are_lists(mocks):
    mock = mocks(StrictGemini)
    assert b"\r\n\r\n" in ask(mock, stream=True).content
    assert ask(mock, store=True).json()[0]["error"]["status"] == "INVALID_ARGUMENT"
    mock.script(mock.error("rate_limit"))
    assert ask(mock).json()[0]["error"] == {
        "code": 429,
        "message": "Rate limit reached for requests.",
        "status": "RESOURCE_EXHAUSTED",
    }


def test_a_schema_is_filled_through_its_references(mocks):
    inner = {"type": "object", "properties": {"n": {"type": "integer"}, "kind": {"enum": ["a", "b"]}}}
    schema = {"type": "object", "properties": {"all": {"type": "array", "items": {"$ref": "#/$defs/I"}}}, "$defs": {"I": inner}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = ask(mocks(StrictOpenAi), response_format=form).json()
    assert answer["choices"][0]["message"]["content"] == '{"all": [{"n": 3, "kind": "a"}]}'


def test_ollama_and_anthropic_streams_say_what_their_answers_say(mocks):
    mock = mocks(StrictOllama)
    lines = [httpx.Response(200, content=line).json() for line in ask(mock, tools=TOOLS, stream=True).content.splitlines()]
    names = [call["function"]["name"] for line in lines for call in line["message"].get("tool_calls", [])]
    assert names == ["weather", "time"] and lines[-1]["done"] is True
    mock = mocks(StrictAnthropic)
    events = [name for name, _ in events_of(ask(mock, stream=True).content)]
    assert events[0] == "message_start" and events[-1] == "message_stop" and "ping" in events


def test_clearing_forgets_refusals(mocks):
    mock = mocks(StrictOpenAi)
    ask(mock, top_k=1)
    assert mock.refused == ["400 Unrecognized request argument supplied: top_k"]
    assert mock.clear().refused == []

"""Other APIs of OpenAI's format, each with its own refusals: Azure, Gemini, DeepSeek, Groq, Mistral, vLLM."""

from __future__ import annotations

import base64
import json
from typing import Any

from ..openai_wire import AzureMock
from ..server import Answer, Recorded
from .chat import CORE, OPENAI, StrictOpenAi
from .model import Refusal, Turn

PLAIN_ROLES = ("system", "user", "assistant", "tool")


class StrictAzure(StrictOpenAi):
    """An Azure OpenAI resource: what a deployment is called says nothing of the model behind it."""

    wire = "azure"
    brand = "azure"
    default_key = AzureMock.default_key
    route = AzureMock.route
    authorize = AzureMock.authorize
    error_answer = AzureMock.error_answer

    def __init__(self, *arguments: Any, deployments: dict[str, str] | None = None, **named: Any) -> None:
        self.deployments = deployments or {"dep": "gpt-4o"}
        """The model behind each deployment."""
        self._asked: Recorded | None = None
        super().__init__(*arguments, **named)

    @property
    def base(self) -> str:
        return self.origin

    def params(self, model: str = "dep") -> dict:
        return super().params(model) | {"api_version": "2024-10-21"}

    def answer(self, request: Recorded) -> Any:
        self._asked = request
        return super().answer(request)

    def model(self, body: dict) -> str:
        name = self._asked.path.split("/")[3]
        if name not in self.deployments:
            message = "The API deployment for this resource does not exist."
            raise Refusal(404, message, {"error": {"code": "DeploymentNotFound", "message": message}})
        return self.deployments[name]

    def check_tools(self, body: dict) -> None:
        super().check_tools(body)
        if body.get("tool_choice") == "required" and self._asked.query["api-version"] < "2024-06":
            self.refuse("Invalid value: 'required'. Supported values are: 'none' and 'auto'.", "invalid_value", "tool_choice")

    def check_schema(self, form: dict, body: dict) -> None:
        if self._asked.query["api-version"] < "2024-08":
            message = "response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later"
            self.refuse(message, "BadRequest")
        super().check_schema(form, body)


NOBODYS = base64.b64encode(b"skip_thought_signature_validator").decode()
"""What Google takes for the signature of a call that another model has made."""


class StrictGemini(StrictOpenAi):
    """Google's OpenAI-compatible API with a model that signs its tool calls. A stream that calls tools ends with `stop`."""

    wire = "gemini"
    brand = "gemini"
    default_key = "gemini-mock-key-41"
    roles = PLAIN_ROLES
    empty_members: dict = {}
    empty_delta: dict = {}
    parts = ("text", "image_url", "input_audio")
    newline = "\r\n"
    finish_of_calls = "stop"
    parameters = CORE | {
        "extra_body", "frequency_penalty", "max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls",
        "presence_penalty", "reasoning_effort", "service_tier", "stream_options",
    }  # fmt: skip

    @property
    def base(self) -> str:
        return f"{self.origin}/v1beta/openai"

    def route(self, request: Recorded) -> str:
        if not request.path.startswith("/v1beta/openai/"):
            raise Refusal(404, "Not Found", [{"error": {"code": 404, "message": "Not Found", "status": "NOT_FOUND"}}])
        return request.path.removeprefix("/v1beta/openai")

    def params(self, model: str = "gemini-3-pro-preview") -> dict:
        return super().params(model)

    def refuse(self, message: str, code: str | None = None, param: str | None = None, status: int = 400) -> Any:
        # Google wraps its errors in a list.
        raise Refusal(status, message, [{"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}])

    def refusal(self, code: int, message: str) -> Any:
        return [{"error": {"code": code, "message": message, "status": "INVALID_ARGUMENT"}}]

    def error_answer(self, kind: str) -> tuple[int, Any]:
        code, body = super().error_answer(kind)
        names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
        status = names | {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}
        return code, [{"error": {"code": code, "message": body["error"]["message"], "status": status[code]}}]

    def unknown_parameter(self, name: str) -> Any:
        self.refuse(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')

    def bad_role(self, index: int, role: Any) -> Any:
        self.refuse("Please use a valid role: user, model.")

    def check_model(self, body: dict, given: set[str], model: str) -> None:
        """It has none of OpenAI's models."""

    def check_history(self, body: dict, model: str) -> None:
        """The first call of each step of the turn that is on must carry its signature."""
        messages = body["messages"]
        began = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
        for at, message in enumerate(messages[began:], began):
            calls = message.get("tool_calls") or []
            if not calls:
                continue
            google = ((calls[0].get("extra_content") or {}).get("google")) or {}
            name = calls[0]["function"]["name"]
            if not google.get("thought_signature"):
                message = (
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools to work "
                )
                message += "correctly, and missing thought_signature may lead to degraded model performance. Additional data, "
                self.refuse(f"{message}function call `default_api:{name}` , position {at + 1}.")
            if google["thought_signature"] not in (self.sign("call", name), NOBODYS):
                self.refuse("Invalid thought signature.")

    def call(self, turn: Turn, at: int) -> dict:
        call = super().call(turn, at)
        if at == 0:
            call["extra_content"] = {"google": {"thought_signature": self.sign("call", call["function"]["name"])}}
        return call

    def call_pieces(self, turn: Turn, at: int) -> list[dict]:
        # Google sends a call whole.
        return [self.call(turn, at) | {"index": at}]


class StrictDeepSeek(StrictOpenAi):
    """DeepSeek. It passes over members it does not know, and wants the reasoning of a turn back while its tools run."""

    wire = "deepseek"
    brand = "deepseek"
    default_key = "sk-deepseek-mock-key-09"
    roles = PLAIN_ROLES
    empty_members: dict = {}
    empty_delta: dict = {}
    parts = ("text",)
    parameters = None
    takes_json_schema = False
    comment = "keep-alive"

    @property
    def base(self) -> str:
        return f"{self.origin}/beta"

    def route(self, request: Recorded) -> str:
        if not request.path.startswith("/beta/"):
            raise Refusal(404, "Not Found", {"error_msg": "Not Found. Please check the configuration."})
        return request.path.removeprefix("/beta")

    def params(self, model: str = "deepseek-chat") -> dict:
        return super().params(model)

    def refuse(self, message: str, code: str | None = None, param: str | None = None, status: int = 400) -> Any:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_request_error"}
        raise Refusal(status, message, {"error": error})

    def malformed(self, what: str) -> Any:
        self.refuse(f"Failed to deserialize the JSON body into the target type: {what} at line 1 column 100", status=422)

    def bad_role(self, index: int, role: Any) -> Any:
        allowed = ", ".join(f"`{name}`" for name in self.roles)
        self.malformed(f"messages[{index}].role: unknown variant `{role}`, expected one of {allowed}")

    def check_part(self, where: str, role: str, part: dict) -> None:
        if part.get("type") not in self.parts:
            self.malformed(f"{where}: unknown variant `{part.get('type')}`, expected `text`")

    def check_model(self, body: dict, given: set[str], model: str) -> None:
        """It has none of OpenAI's models."""

    def thinks(self, body: dict, model: str) -> bool:
        return model == "deepseek-reasoner" or (body.get("thinking") or {}).get("type") == "enabled"

    def check_history(self, body: dict, model: str) -> None:
        if not self.thinks(body, model):
            return
        messages = body["messages"]
        began = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
        for at, message in enumerate(messages[began:], began):
            if message.get("tool_calls") and not message.get("reasoning_content"):
                text = f"Missing `reasoning_content` field in the assistant message at message index {at}."
                self.refuse(f"{text} For more information, please refer to the guide of the thinking mode.")


class StrictGroq(StrictOpenAi):
    """Groq: nothing it does not know, and no nulls in messages."""

    wire = "groq"
    brand = "groq"
    default_key = "gsk-mock-key-73"
    roles = PLAIN_ROLES
    empty_members: dict = {}
    empty_delta: dict = {}
    parts = ("text", "image_url")
    parameters = OPENAI - {"audio", "logit_bias", "logprobs", "modalities", "prediction", "store", "top_logprobs", "verbosity",
                           "web_search_options", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}  # fmt: skip
    members = {
        "system": {"role", "content", "name"},
        "user": {"role", "content", "name"},
        "assistant": {"role", "content", "name", "tool_calls", "function_call", "reasoning"},
        "tool": {"role", "content", "name", "tool_call_id"},
    }

    @property
    def base(self) -> str:
        return f"{self.origin}/openai/v1"

    def route(self, request: Recorded) -> str:
        if not request.path.startswith("/openai/v1/"):
            self.refuse(f"Unknown request URL: POST {request.path}.", "unknown_url", status=404)
        return request.path.removeprefix("/openai/v1")

    def params(self, model: str = "llama-3.3-70b-versatile") -> dict:
        return super().params(model)

    def unknown_parameter(self, name: str) -> Any:
        self.refuse(f"property '{name}' is unsupported")

    def bad_role(self, index: int, role: Any) -> Any:
        self.refuse(f"'messages.{index}' : discriminator property 'role' has invalid value")

    def check_model(self, body: dict, given: set[str], model: str) -> None:
        if "reasoning_effort" in given and not ("gpt-oss" in model or "qwen3" in model):
            self.refuse("`reasoning_effort` is not supported with this model")
        if (body.get("n") or 1) > 1:
            self.refuse("'n' : number must be at most 1")

    def check_message(self, index: int, role: str, message: dict) -> None:
        where = f"'messages.{index}' : for 'role:{role}' the following must be satisfied"
        for name, value in message.items():
            if name not in self.members[role]:
                self.refuse(f"{where}[('messages.{index}' : property '{name}' is unsupported)]")
            if value is None and name != "content":
                self.refuse(f"{where}[('messages.{index}.{name}' : Value is not nullable)]")
            self.check_markers(index, value)
        for at, call in enumerate(message.get("tool_calls") or []):
            for name in sorted(call.keys() - {"id", "type", "function"}):
                self.refuse(f"{where}[('messages.{index}.tool_calls.{at}' : property '{name}' is unsupported)]")
        super().check_message(index, role, message)

    def check_markers(self, index: int, content: Any) -> None:
        for at, part in enumerate(content if isinstance(content, list) else []):
            if isinstance(part, dict) and "cache_control" in part:
                self.refuse(f"'messages.{index}.content.{at}' : property 'cache_control' is unsupported")

    def check_tools(self, body: dict) -> None:
        for index, tool in enumerate(body.get("tools") or []):
            if "cache_control" in tool:
                self.refuse(f"'tools.{index}' : property 'cache_control' is unsupported")
        super().check_tools(body)


class StrictMistral(StrictOpenAi):
    """Mistral: extra members are forbidden everywhere, and after a tool only the assistant may speak."""

    wire = "mistral"
    brand = "mistral"
    default_key = "mistral-mock-key-58"
    roles = PLAIN_ROLES
    empty_members = {"tool_calls": None, "prefix": False}
    empty_delta: dict = {}
    choices = ("none", "auto", "any", "required")
    parameters = (CORE - {"seed"}) | {
        "frequency_penalty", "guardrails", "max_tokens", "metadata", "n", "parallel_tool_calls", "prediction", "presence_penalty",
        "prompt_cache_key", "prompt_mode", "random_seed", "reasoning_effort", "safe_prompt",
    }  # fmt: skip
    members = {
        "system": {"role", "content"},
        "user": {"role", "content"},
        "assistant": {"role", "content", "tool_calls", "prefix"},
        "tool": {"role", "content", "name", "tool_call_id"},
    }

    def params(self, model: str = "mistral-large-latest") -> dict:
        return super().params(model)

    def stream(self, head: dict, turn: Turn, body: dict, usage: dict) -> Answer:
        # The usage comes unasked.
        return super().stream(head, turn, body | {"stream_options": {"include_usage": True}}, usage)

    def extra(self, *where: Any) -> Any:
        detail = {"type": "extra_forbidden", "loc": ["body", *where], "msg": "Extra inputs are not permitted", "input": None}
        self.invalid(detail)

    def invalid(self, detail: dict) -> Any:
        message = json.dumps({"detail": [detail]})
        body = {"object": "error", "message": {"detail": [detail]}, "type": "invalid_request_error", "param": None, "code": None}
        raise Refusal(422, message, body)

    def refuse(self, message: str, code: str | None = None, param: str | None = None, status: int = 400) -> Any:
        body = {"object": "error", "message": message, "type": "invalid_request_error", "param": None, "code": code}
        raise Refusal(status, message, body)

    def unknown_parameter(self, name: str) -> Any:
        self.extra(name)

    def bad_role(self, index: int, role: Any) -> Any:
        allowed = ", ".join(f"'{name}'" for name in self.roles)
        text = f"Input tag '{role}' found using 'role' does not match any of the expected tags: {allowed}"
        self.invalid({"type": "union_tag_invalid", "loc": ["body", "messages", index], "msg": text, "input": {"role": role}})

    def check_model(self, body: dict, given: set[str], model: str) -> None:
        if "reasoning_effort" in given and not model.startswith("magistral"):
            self.refuse("reasoning_effort is not enabled for this model", "3051")

    def check_messages(self, messages: Any) -> None:
        for index, message in enumerate(messages):
            role = message.get("role")
            for name, value in message.items():
                if name not in self.members.get(role, {name}):
                    self.extra("messages", index, role, name)
                for at, part in enumerate(value if isinstance(value, list) else []):
                    if "cache_control" in part:
                        self.extra("messages", index, role, name, at, "cache_control")
        super().check_messages(messages)
        for before, after in zip(messages, messages[1:]):
            if before["role"] == "tool" and after["role"] not in ("tool", "assistant"):
                self.refuse(f"Unexpected role '{after['role']}' after role 'tool'", "3230")
        if messages[-1]["role"] not in ("user", "tool") and not messages[-1].get("prefix"):
            text = "Expected last role User or Tool (or Assistant with prefix True) for serving but got"
            self.refuse(f"{text} {messages[-1]['role']}", "3230")

    def check_tools(self, body: dict) -> None:
        for index, tool in enumerate(body.get("tools") or []):
            if "cache_control" in tool:
                self.extra("tools", index, "cache_control")
        super().check_tools(body)


class StrictVllm(StrictOpenAi):
    """A vLLM server: members it does not know are passed over, messages go through the model's template."""

    wire = "vllm"
    brand = "hosted_vllm"
    default_key = "vllm-mock-key-12"
    roles = PLAIN_ROLES
    empty_members: dict = {}
    empty_delta: dict = {}
    parts = ("text", "image_url", "input_audio")
    parameters = None
    reasoning_member = "reasoning"

    def params(self, model: str = "qwen3-32b") -> dict:
        return super().params(model)

    def refuse(self, message: str, code: str | None = None, param: str | None = None, status: int = 400) -> Any:
        raise Refusal(status, message, {"error": {"message": message, "type": "BadRequestError", "param": param, "code": status}})

    def bad_role(self, index: int, role: Any) -> Any:
        self.refuse("Unexpected message role.")

    def check_model(self, body: dict, given: set[str], model: str) -> None:
        """None of OpenAI's models is served here."""

    def check_call(self, where: str, call: dict) -> None:
        super().check_call(where, call)
        # The template gets the arguments as an object.
        try:
            json.loads(call["function"]["arguments"])
        except ValueError as wrong:
            self.refuse(str(wrong))

    def thinks(self, body: dict, model: str) -> bool:
        return "qwen3" in model and bool(body.get("reasoning_effort"))

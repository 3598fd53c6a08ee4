"""A text generation inference server, as Hugging Face runs it: one prompt in, one text out."""

from __future__ import annotations

import json

from .model import COMPLETION_TOKENS, PROMPT_TOKENS, cut, need, parse_object
from .server import Answer, Mock, Recorded


class GenerateMock(Mock):
    """POST / with `inputs` and `parameters`, buffered and streamed."""

    wire = "generate"
    default_key = "hf_mock_key_31aa"

    PARAMETERS = {
        "best_of", "decoder_input_details", "details", "do_sample", "frequency_penalty", "max_new_tokens",
        "repetition_penalty", "return_full_text", "seed", "stop", "temperature", "top_k", "top_n_tokens", "top_p",
        "truncate", "typical_p", "watermark",
    }  # fmt: skip

    @property
    def base(self) -> str:
        return self.origin

    def params(self, model: str = "mosaicml/mpt-7b") -> dict:
        return {"model": f"huggingface/{model}", "api_base": self.base, "api_key": self.key}

    def answer(self, request: Recorded) -> Answer:
        need(request.method == "POST" and request.path == "/", "Not found", 404)
        need(request.header("authorization") == f"Bearer {self.key}", "Invalid credentials", 401)
        body = parse_object(request)
        extra = body.keys() - {"inputs", "parameters", "stream"}
        need(not extra, f"unknown field {sorted(extra)}", 422)
        need(isinstance(body.get("inputs"), str) and body["inputs"], "`inputs` must have at least 1 token", 422)
        parameters = body.get("parameters") or {}
        extra = parameters.keys() - self.PARAMETERS
        need(not extra, f"unknown parameter {sorted(extra)}", 422)
        need(parameters.get("temperature", 1) > 0, "`temperature` must be strictly positive", 422)
        details = {"finish_reason": "stop", "generated_tokens": COMPLETION_TOKENS, "input_length": PROMPT_TOKENS, "seed": None}
        if not body.get("stream"):
            full = details | {"prefill": [], "tokens": []}
            return Answer(200, json.dumps([{"generated_text": self.text, "details": full}], ensure_ascii=False).encode())
        pieces = cut(self.text, 5)
        frames = []
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            event = {"index": index + 1, "token": {"id": index, "text": piece, "logprob": -0.5, "special": False}}
            event |= {"generated_text": self.text if last else None, "details": details if last else None}
            frames.append(f"data:{json.dumps(event, ensure_ascii=False)}\n\n".encode())
        return Answer(200, frames, "text/event-stream")

    def refusal(self, code: int, message: str) -> dict:
        return {"error": message, "error_type": "validation"}

    def error_answer(self, kind: str) -> tuple[int, dict]:
        rows = {
            "bad_request": (422, "Input validation error: `temperature` must be strictly positive", "validation"),
            "context_window": (
                422,
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000 `inputs` tokens",
                "validation",
            ),
            "auth": (401, "Invalid credentials in Authorization header", "authentication"),
            "rate_limit": (429, "Model is overloaded", "overloaded"),
            "server": (500, "Request failed during generation", "generation"),
            "unavailable": (503, "Model is currently loading", "loading"),
        }
        code, message, type_ = rows[kind]
        return code, {"error": message, "error_type": type_}

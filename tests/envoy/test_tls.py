"""Providers over TLS: whose certificates are believed, and HTTP/2 where the provider picks it."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway import Gateway, chunks_of, deployment, text_of
from mock_provider import AnthropicMock, Authority, OpenAiMock, reset, trailers

KINDS = {"http/1.1": ("http/1.1",), "h2": ("h2", "http/1.1")}
VERSIONS = {"http/1.1": "HTTP/1.1", "h2": "HTTP/2"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def secure(authority):
    """Providers with certificates of our authority; `stranger` has one for another name."""
    made = {kind: OpenAiMock(name=kind, tls=authority.server(protocols=protocols)) for kind, protocols in KINDS.items()}
    made["stranger"] = OpenAiMock(name="stranger", tls=authority.server("DNS:elsewhere.example"))
    made["anthropic"] = AnthropicMock(name="anthropic h2", tls=authority.server(protocols=KINDS["h2"]))
    yield made
    for mock in made.values():
        mock.stop()


def config_of(secure: dict) -> dict:
    models = []
    for name, mock in secure.items():
        by_name = mock.params() | {"api_base": mock.base.replace("127.0.0.1", "localhost")}
        models += [
            deployment(name, mock.params()),
            deployment(f"{name} by name", by_name),
            deployment(f"{name} unverified", mock.params() | {"ssl_verify": False}),
        ]
    return {"model_list": models, "router_settings": {"num_retries": 0, "disable_cooldowns": True}}


@pytest.fixture(scope="module")
def trusting(secure, authority, tmp_path_factory):
    """A gateway that believes our authority."""
    gateway = Gateway(tmp_path_factory.mktemp("trusting"), config_of(secure), env={"SSL_CERT_FILE": str(authority.file)})
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def doubting(secure, tmp_path_factory):
    """A gateway that believes the authorities of some other company."""
    directory = tmp_path_factory.mktemp("doubting")
    gateway = Gateway(directory, config_of(secure), env={"SSL_CERT_FILE": str(Authority(directory, "theirs").file)})
    yield gateway
    gateway.stop()


@pytest.fixture(autouse=True)
def fresh(secure):
    for mock in secure.values():
        mock.clear()


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_known_authority_is_believed(trusting, secure, kind, stream):
    for name in (kind, f"{kind} by name"):
        answer = trusting.chat(name, stream=stream)
        assert answer.status_code == 200, answer.text
        text = text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
        assert text == secure[kind].text
        assert secure[kind].last.version == VERSIONS[kind]


@pytest.mark.parametrize("name", ["http/1.1", "h2", "h2 by name"])
def test_an_unknown_authority_is_refused(doubting, secure, name):
    answer = doubting.chat(name)
    assert answer.status_code == 500
    assert "litellm.APIConnectionError" in answer.json()["error"]["message"]
    assert not any(mock.requests for mock in secure.values()), "no key has gone to somebody who could be anybody"


@pytest.mark.parametrize("name", ["stranger", "stranger by name"])
def test_a_certificate_for_another_name_is_refused(trusting, secure, name):
    assert trusting.chat(name).status_code == 500
    assert not secure["stranger"].requests


def test_ssl_verify_false_believes_everybody(trusting, doubting):
    for gateway in (trusting, doubting):
        for kind in (*KINDS, "stranger"):
            assert gateway.chat(f"{kind} unverified").status_code == 200


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("wire", ["h2", "anthropic"])
def test_trailers_over_http2(trusting, secure, wire, stream, api):
    """With trailers, no part of the body says that it is the last."""
    secure[wire].script(trailers(("x-checksum", "abc")))
    answer = getattr(trusting, api)(wire, stream=stream)
    assert answer.status_code == 200, answer.text
    if not stream:
        said = answer.json()["choices"][0]["message"]["content"] if api == "chat" else answer.json()["content"][0]["text"]
        assert said == secure[wire].text
    elif api == "chat":
        assert text_of(chunks_of(answer.content)) == secure[wire].text
    else:
        assert answer.text.rstrip().endswith('{"type":"message_stop"}') or '"message_stop"' in answer.text[-80:]
    assert secure[wire].last.version == "HTTP/2"


@pytest.mark.parametrize("wire", ["h2", "anthropic"])
def test_a_large_body_and_a_large_answer_over_http2(trusting, secure, wire):
    text = "0123456789abcdef" * (64 * 1024) + "end"
    secure[wire].text = text
    answer = trusting.chat(wire, text)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == text
    assert text in secure[wire].last.body.decode()


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_a_stream_reset_over_http2_never_looks_whole(trusting, secure, api):
    secure["h2"].script(reset("stream", after=5))
    body = {"model": "h2", "max_tokens": 50, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    received = b""
    path = "/v1/chat/completions" if api == "chat" else "/v1/messages"
    with pytest.raises(httpx.RemoteProtocolError), trusting.client.stream("POST", path, json=body) as answer:
        call_id = answer.headers["x-litellm-call-id"]
        for piece in answer.iter_raw():
            received += piece
    assert b"Hello" in received.replace(b'"}}]}', b"") and b"[DONE]" not in received and b"message_stop" not in received
    assert trusting.access_record(call_id)["code_details"] == "upstream_reset_after_response_started{remote_reset}"
    # The others on this connection do not notice.
    assert trusting.chat("h2").status_code == 200


@pytest.mark.parametrize("when", ["request", "headers"])
def test_a_reset_before_the_answer_over_http2_is_retried_elsewhere(trusting, secure, when):
    secure["h2"].script(reset(when))
    answer = trusting.chat("h2", fallbacks=["anthropic"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-litellm-model-group"] == "anthropic"
    assert json.loads(secure["anthropic"].last.body)["messages"]

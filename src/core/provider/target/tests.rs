//! Tests of URLs and credentials, through configurations as people write them.

use super::*;
use crate::core::{
    config::load,
    format::{Ref, chat, completions, embeddings, generate, messages, ollama, spoken},
    operation,
    provider::{auth, url::path_segment},
};

const CHAT: Ref = &chat::Format;
const COMPLETIONS: Ref = &completions::Format;
const EMBEDDINGS: Ref = &embeddings::Format;
const MESSAGES: Ref = &messages::Format;
const OLLAMA: Ref = &ollama::Format;
const GENERATE: Ref = &generate::Format;

fn deployment(params: &str) -> Deployment {
    let text = format!("model_list:\n- model_name: m\n  litellm_params: {{{params}}}\n");
    let mut config = load(&text, &|_| None, &|_| None).unwrap_or_else(|p| panic!("{p:?}")).config;
    config.deployments.pop().unwrap_or_else(|| panic!("{params}: {:?}", config.unavailable))
}

fn target(d: &Deployment, format: Ref, model: &str, api_version: Option<&str>) -> Target {
    let (leaf, headers) = (format.path(), format.headers());
    super::target(&Call { deployment: d, leaf, headers, model, api_version })
}

fn url(params: &str, format: Ref) -> String {
    let d = deployment(params);
    let target = target(&d, format, &d.model, None);
    format!("{}{}", target.authority, target.path)
}

fn header(target: &Target, name: &str) -> Option<String> {
    let mut values = target.headers.iter().filter(|(n, _)| *n == name);
    let value = values.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
    assert!(values.next().is_none(), "{name} twice");
    value
}

#[test]
fn urls_of_every_family() {
    let azure = "model: azure/d, api_base: 'https://a.openai.azure.com/', api_version";
    let rows: &[(&str, Ref, &str)] = &[
        ("model: gpt-4o", CHAT, "api.openai.com/v1/chat/completions"),
        ("model: openai/x, api_base: 'http://h:81/'", EMBEDDINGS, "h:81/embeddings"),
        ("model: openai/x, api_base: 'http://h/v1/chat/completions'", CHAT, "h/v1/chat/completions"),
        ("model: groq/x", CHAT, "api.groq.com/openai/v1/chat/completions"),
        ("model: mistral/x, api_base: 'https://m.example'", CHAT, "m.example/v1/chat/completions"),
        ("model: ollama/x", CHAT, "localhost:11434/v1/chat/completions"),
        ("model: ollama_chat/x, api_base: 'http://o:1'", EMBEDDINGS, "o:1/v1/embeddings"),
        ("model: ollama_chat/x", OLLAMA, "localhost:11434/api/chat"),
        ("model: ollama_chat/x, api_base: 'http://o:1/v1/'", OLLAMA, "o:1/api/chat"),
        ("model: ollama_chat/x, api_base: 'http://o:1/api/chat'", OLLAMA, "o:1/api/chat"),
        ("model: gemini/g", CHAT, "generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        ("model: gpt-3.5-turbo-instruct", COMPLETIONS, "api.openai.com/v1/completions"),
        ("model: claude-3", MESSAGES, "api.anthropic.com/v1/messages"),
        ("model: anthropic/c, api_base: 'https://p/v1/messages'", MESSAGES, "p/v1/messages"),
        ("model: anthropic/c, api_base: 'https://p/v1'", MESSAGES, "p/v1/messages"),
        (
            "model: azure/d, api_base: 'https://a.openai.azure.com/'",
            CHAT,
            "a.openai.azure.com/openai/deployments/d/chat/completions?api-version=2025-02-01-preview",
        ),
        (
            &format!("{azure}: '2023-05-15'"),
            EMBEDDINGS,
            "a.openai.azure.com/openai/deployments/d/embeddings?api-version=2023-05-15",
        ),
        (&format!("{azure}: v1"), CHAT, "a.openai.azure.com/openai/v1/chat/completions"),
        (
            &format!("{azure}: preview"),
            CHAT,
            "a.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        ),
        (
            &format!("{azure}: latest"),
            CHAT,
            "a.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        ),
        (
            "model: azure/d, api_version: x, api_base: 'https://a/openai/deployments/other'",
            CHAT,
            "a/openai/deployments/other/chat/completions?api-version=x",
        ),
        (
            "model: azure/d, api_base: 'https://a/openai/deployments/o/chat/completions?api-version=own&z=1'",
            CHAT,
            "a/openai/deployments/o/chat/completions?api-version=own&z=1",
        ),
        (
            "model: azure/d, api_version: x, api_base: 'https://gateway.ai.cloudflare.com/v1/acc/gw/azure-openai/res'",
            CHAT,
            "gateway.ai.cloudflare.com/v1/acc/gw/azure-openai/res/d/chat/completions?api-version=x",
        ),
        (
            "model: azure_ai/m, api_base: 'https://r.services.ai.azure.com'",
            CHAT,
            "r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        ),
        (
            "model: azure_ai/m, api_base: 'https://m.eastus.models.ai.azure.com/v1'",
            CHAT,
            "m.eastus.models.ai.azure.com/v1/chat/completions",
        ),
        ("model: huggingface/o/m, api_base: 'http://tgi:80'", CHAT, "tgi/v1/chat/completions"),
        ("model: huggingface/o/m, api_base: 'http://tgi/v1'", CHAT, "tgi/v1/chat/completions"),
        ("model: huggingface/o/m", CHAT, "router.huggingface.co/v1/chat/completions"),
        ("model: huggingface/o/m, api_base: 'http://tgi:80/', bos_token: x", GENERATE, "tgi/"),
        ("model: huggingface/o/m, api_base: 'http://tgi/generate', bos_token: x", GENERATE, "tgi/generate"),
    ];
    for (params, wire, wanted) in rows {
        assert_eq!(url(params, *wire), *wanted, "{params}");
    }
}

#[test]
fn the_clients_api_version_wins() {
    let d = deployment("model: azure/d, api_version: x, api_base: 'https://a?api-version=old'");
    let path = target(&d, CHAT, "d", Some("2024-10-21")).path;
    assert_eq!(path, "/openai/deployments/d/chat/completions?api-version=2024-10-21");
    let path = target(&d, CHAT, "d", Some("a b&c=d\r\n")).path;
    assert_eq!(path, "/openai/deployments/d/chat/completions?api-version=a%20b%26c%3Dd%0D%0A");
}

#[test]
fn a_model_stays_inside_its_segment() {
    let rows = [
        ("my-gpt_4.1~x:1", "my-gpt_4.1~x:1"),
        ("..", "%252E%252E"),
        (".", "%252E"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("a%2Fb", "a%252Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("a b\r\nx: y", "a%20b%0D%0Ax:%20y"),
        ("é\0", "%C3%A9%00"),
        ("a;b\\c", "a%3Bb%5Cc"),
    ];
    let d = deployment("model: 'azure/*', api_base: 'https://a', api_version: x");
    for (model, wanted) in rows {
        assert_eq!(path_segment(model), wanted);
        let path = target(&d, CHAT, model, None).path;
        assert_eq!(path, format!("/openai/deployments/{wanted}/chat/completions?api-version=x"));
    }
}

#[test]
fn credentials_by_family() {
    let of = |params: &str| {
        let d = deployment(params);
        let mut target = target(&d, spoken(&d, &operation::CHAT).unwrap(), &d.model, None);
        auth::sign(&d, &mut target.headers);
        target
    };
    let openai = of("model: gpt-4o, api_key: k, organization: org");
    assert_eq!(header(&openai, "authorization").as_deref(), Some("Bearer k"));
    assert_eq!(header(&openai, "openai-organization").as_deref(), Some("org"));
    assert!(of("model: gpt-4o").headers.is_empty());

    let azure = of("model: azure/d, api_base: 'https://a', api_key: k, azure_ad_token: t");
    assert_eq!(header(&azure, "api-key").as_deref(), Some("k"));
    assert_eq!(header(&azure, "authorization"), None);
    let azure = of("model: azure/d, api_base: 'https://a', azure_ad_token: t");
    assert_eq!(header(&azure, "authorization").as_deref(), Some("Bearer t"));

    let anthropic = of("model: claude-3, api_key: k");
    assert_eq!(header(&anthropic, "x-api-key").as_deref(), Some("k"));
    assert_eq!(header(&anthropic, "anthropic-version").as_deref(), Some("2023-06-01"));
    assert_eq!(header(&anthropic, "authorization"), None);

    let vllm = of("model: hosted_vllm/m, api_base: 'http://v'");
    assert_eq!(header(&vllm, "authorization").as_deref(), Some("Bearer fake-api-key"));
    let foundry = of("model: azure_ai/m, api_key: k, api_base: 'https://r.services.ai.azure.com'");
    assert_eq!(header(&foundry, "api-key").as_deref(), Some("k"));

    let own =
        of("model: gpt-4o, api_key: k, headers: {Authorization: Basic x, X-A: 1}, extra_headers: {x-a: 2}");
    assert_eq!(header(&own, "authorization").as_deref(), Some("Basic x"));
    assert_eq!(header(&own, "x-a").as_deref(), Some("2"));
}

#[test]
fn wire_formats() {
    let rows: &[(&str, [Option<Ref>; 4])] = &[
        ("model: gpt-4o", [Some(CHAT), Some(CHAT), Some(EMBEDDINGS), Some(CHAT)]),
        (
            "model: gpt-3.5-turbo-instruct",
            [Some(COMPLETIONS), Some(COMPLETIONS), Some(EMBEDDINGS), Some(COMPLETIONS)],
        ),
        ("model: claude-3", [Some(MESSAGES), Some(MESSAGES), None, Some(MESSAGES)]),
        (
            "model: hosted_vllm/m, api_base: 'http://v'",
            [Some(CHAT), Some(COMPLETIONS), Some(EMBEDDINGS), Some(CHAT)],
        ),
        (
            "model: azure/gpt-35-instruct, api_base: 'https://a'",
            [Some(CHAT), Some(COMPLETIONS), Some(EMBEDDINGS), Some(CHAT)],
        ),
        ("model: ollama_chat/m", [Some(OLLAMA), Some(OLLAMA), Some(EMBEDDINGS), Some(OLLAMA)]),
        (
            "model: huggingface/o/m, api_base: 'http://t', eos_token: x",
            [Some(GENERATE), Some(GENERATE), Some(EMBEDDINGS), Some(GENERATE)],
        ),
    ];
    for (params, wanted) in rows {
        let d = deployment(params);
        for (api, wanted) in operation::APIS.into_iter().zip(wanted) {
            assert_eq!(spoken(&d, api).ok(), *wanted, "{params} {api:?}");
        }
    }
    for (params, counts) in [("model: claude-3", true), ("model: gpt-4o", false), ("model: groq/m", false)] {
        let format = spoken(&deployment(params), &operation::COUNT_TOKENS).ok();
        assert_eq!(format.map(|format| format.name()), counts.then_some("count_tokens"), "{params}");
    }
    let refused = spoken(&deployment("model: claude-3"), &operation::EMBEDDINGS).unwrap_err();
    assert_eq!(refused.status(), 400);
}

#[test]
fn hugging_faces_router_takes_the_provider_behind_the_model() {
    let router = deployment("model: huggingface/together/org/m");
    assert_eq!(body_model(&router, &router.model), "org/m:together");
    assert_eq!(body_model(&router, "org/m"), "org/m");
    let own = deployment("model: huggingface/a/b/c, api_base: 'http://tgi'");
    assert_eq!(body_model(&own, "a/b/c"), "a/b/c");
}

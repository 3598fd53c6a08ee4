//! Numbers keep their digits, whichever formats they go between.

use serde_json::json;

use super::{
    FORMATS,
    pipeline::Pipeline,
    prepare::Prepare,
    response::ResponseIds,
    spoken,
    translate::{self, Translated},
};
use crate::core::{
    codec::{json::Object, sse},
    config::load,
    model::{accepts::Accepts, terms::Terms},
    operation::{self, ApiRef, Dialect},
};

/// Numbers that mean the same when written otherwise, and are not the same.
const NUMBERS: &str =
    "[1e2,1.0,-0,0.1000,1E-7,12345678901234567890,123456789012345678901,1e309,3.14159265358979323846]";

/// One deployment for each format that providers speak.
const FILE: &str = r#"
model_list:
  - {model_name: chat, litellm_params: {model: openai/m, api_base: "http://a.test/v1"}}
  - {model_name: messages, litellm_params: {model: anthropic/m, api_base: "http://b.test"}}
  - {model_name: completions, litellm_params: {model: text-completion-openai/m, api_base: "http://c.test/v1"}}
  - {model_name: generate, litellm_params: {model: huggingface/m, api_base: "http://d.test", eos_token: x}}
  - {model_name: ollama, litellm_params: {model: ollama_chat/m, api_base: "http://e.test"}}
"#;

/// A request of a client with the numbers wherever one may stand.
fn request(api: ApiRef) -> String {
    let schema = format!(r#"{{"type":"object","properties":{{"a":{{"enum":{NUMBERS}}}}}}}"#);
    let own = match api.dialect {
        Dialect::Completions => r#""prompt":"Hi""#.to_owned(),
        Dialect::Messages => format!(
            r#""max_tokens":5,"tools":[{{"name":"f","input_schema":{schema}}}],"messages":[{{"role":"user","content":"Hi"}},
            {{"role":"assistant","content":[{{"type":"tool_use","id":"c","name":"f","input":{{"a":{NUMBERS}}}}}]}},
            {{"role":"user","content":[{{"type":"tool_result","tool_use_id":"c","content":"x"}}]}}]"#
        ),
        _ => {
            let arguments = json!(format!(r#"{{"a":{NUMBERS}}}"#));
            format!(
                r#""tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}],"logit_bias":{{"1":1e2}},
                "messages":[{{"role":"user","content":"Hi"}},{{"role":"assistant","content":null,"tool_calls":[
                {{"id":"c","type":"function","function":{{"name":"f","arguments":{arguments}}}}}]}},
                {{"role":"tool","tool_call_id":"c","content":"x"}}]"#
            )
        }
    };
    format!(
        r#"{{"model":"m",{own},"temperature":0.7000,"top_p":5e-1,"own":{NUMBERS},"allowed_openai_params":["own"],"extra_body":{{"more":{NUMBERS}}}}}"#
    )
}

/// A request of a client as each provider gets it.
fn each(api: ApiRef, mut found: impl FnMut(&str, Translated)) {
    let config = load(FILE, &|_| None, &|_| None).unwrap_or_else(|p| panic!("{p:?}")).config;
    for deployment in &config.deployments {
        let to = spoken(deployment, api).unwrap();
        let prepare = Prepare {
            deployment,
            model: "m",
            from: super::of(api),
            to,
            streaming: false,
            drop_params: true,
            accepts: Accepts::ALL,
            api_version: "v1",
        };
        let body = request(api);
        let object = Object::parse(body.as_bytes()).unwrap();
        found(
            to.name(),
            translate::request(object, &prepare, false, true).unwrap_or_else(|e| panic!("{e:?}")),
        );
    }
}

#[test]
fn requests_keep_the_digits_of_every_number() {
    let mut formats = Vec::new();
    for api in [&operation::CHAT, &operation::COMPLETIONS, &operation::MESSAGES] {
        each(api, |format, translated| {
            let body = String::from_utf8(translated.body).unwrap();
            // Written as text in text, quotes apart, the numbers are the same.
            let times = body.matches(NUMBERS).count();
            let tells_tools =
                ["chat", "messages", "ollama"].contains(&format) && api.dialect != Dialect::Completions;
            assert_eq!(times, if tells_tools { 4 } else { 2 }, "{api:?} to {format}: {body}");
            assert!(body.contains("0.7000") && body.contains("5e-1"), "{api:?} to {format}: {body}");
            formats.push(format.to_owned());
        });
    }
    let spoken = FORMATS.iter().filter(|format| !["embeddings", "count_tokens"].contains(&format.name()));
    assert!(spoken.clone().all(|format| formats.iter().any(|name| name == format.name())), "{formats:?}");
}

/// A response with the numbers in the arguments of a call, whole and as a stream's events.
fn response(format: &str) -> Option<(String, Vec<String>)> {
    let arguments = format!(r#"{{"a":{NUMBERS}}}"#);
    let text = json!(arguments);
    Some(match format {
        "chat" => {
            let call = format!(
                r#"{{"index":0,"id":"c","type":"function","function":{{"name":"f","arguments":{text}}}}}"#
            );
            (
                format!(
                    r#"{{"id":"i","choices":[{{"index":0,"finish_reason":"tool_calls","message":{{"role":"assistant","tool_calls":[{call}]}}}}]}}"#
                ),
                vec![
                    format!(
                        r#"{{"id":"i","choices":[{{"index":0,"delta":{{"role":"assistant","tool_calls":[{call}]}}}}]}}"#
                    ),
                    r#"{"id":"i","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#
                        .to_owned(),
                ],
            )
        }
        "messages" => {
            let block = format!(r#"{{"type":"tool_use","id":"c","name":"f","input":{arguments}}}"#);
            (
                format!(r#"{{"id":"i","type":"message","content":[{block}],"stop_reason":"tool_use"}}"#),
                vec![
                    r#"{"type":"message_start","message":{"id":"i"}}"#.to_owned(),
                    format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#),
                    r#"{"type":"content_block_stop","index":0}"#.to_owned(),
                    r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#.to_owned(),
                    r#"{"type":"message_stop"}"#.to_owned(),
                ],
            )
        }
        "ollama" => {
            let message = format!(
                r#"{{"role":"assistant","content":"","tool_calls":[{{"function":{{"name":"f","arguments":{arguments}}}}}]}}"#
            );
            let whole = format!(r#"{{"message":{message},"done":true,"eval_count":1}}"#);
            (whole.clone(), vec![whole])
        }
        _ => return None,
    })
}

#[test]
fn responses_keep_the_digits_of_every_number() {
    let ids = ResponseIds { id: "chatcmpl-1".to_owned(), created: 1, model: "m".to_owned() };
    for api in [&operation::CHAT, &operation::MESSAGES] {
        each(api, |format, translated| {
            let Some((whole, _)) = response(format) else { return };
            let mut pipeline = Pipeline::new(translated.back, Terms::default(), &ids);
            let out = pipeline.whole(whole.as_bytes()).unwrap().unwrap_or(whole.into_bytes());
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains(NUMBERS), "{format} to {api:?}: {out}");
        });
        each(api, |format, translated| {
            let Some((_, events)) = response(format) else { return };
            let mut pipeline = Pipeline::new(translated.back, Terms::default(), &ids);
            let mut out = Vec::new();
            for event in &events {
                let name: Option<String> = Object::parse(event.as_bytes()).unwrap().read("type");
                let mut bytes = Vec::new();
                match format {
                    "ollama" => bytes.extend_from_slice(format!("{event}\n").as_bytes()),
                    _ => sse::write(&mut bytes, name.as_deref(), event.as_bytes()),
                }
                pipeline.chunk(&bytes, &mut out).unwrap();
            }
            pipeline.end(&mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains(NUMBERS), "{format} to {api:?}: {out}");
        });
    }
}

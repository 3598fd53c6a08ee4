//! Golden cases of the request translations: `{"options", "request"}` in, `{"request", "memo"}` or `{"error"}` out.

use serde_json::{Map, Value, json};

use crate::core::{
    error::Error,
    format::{Context, generate::Requested, golden, params::wants_usage},
    model::{accepts::Accepts, brand::Quirks, template::PromptTemplate},
};

/// A request translation: the request it makes, and what the response will be read by where that is told.
pub(in crate::core::format) type Translate =
    fn(Map<String, Value>, &Context<'_>) -> Result<(Map<String, Value>, Requested), Error>;

/// Compares every case of a folder with what `translate` makes of it.
pub(in crate::core::format) fn walk(folder: &str, translate: Translate) {
    golden::walk(folder, |case| run(case, translate));
}

/// Runs `translate` on every case with any one value inside replaced by an odd one: it may refuse, never fail.
pub(in crate::core::format) fn mutate(folder: &str, translate: Translate) {
    let odd = [json!(null), json!(-1), json!(""), json!([]), json!({}), json!([[]]), json!(true)];
    golden::each(folder, |case| {
        golden::mutants(&case["request"], &odd, &mut |mutant| {
            let case = json!({"options": case["options"], "request": mutant});
            if let Some(error) = run(&case, translate).get("error") {
                assert_eq!(error["status"], 400, "{mutant}: {error}");
            }
        });
    });
}

fn run(case: &Value, translate: Translate) -> Value {
    let template = case["options"].get("template").map(template);
    let allowed: Vec<String> =
        serde_json::from_value(case["options"]["allowed_params"].clone()).unwrap_or_default();
    let request = case["request"].as_object().cloned().unwrap_or_default();
    let asks_for_usage = wants_usage(&request);
    let context = Context {
        model: case["options"]["model"].as_str().unwrap_or("target-model"),
        brand: "acme",
        quirks: Quirks::default(),
        accepts: Accepts::ALL,
        drop_params: case["options"]["drop_params"] == true,
        modify_params: false,
        include_usage: asks_for_usage,
        allowed_params: &allowed,
        defaults: None,
        template: template.as_ref(),
    };
    match translate(request, &context) {
        Ok((request, requested)) => json!({"memo": {
            "include_usage": asks_for_usage || wants_usage(&request),
            "marks": requested.strip_tokens,
            "prompt_tokens": requested.prompt_tokens,
        }, "request": request}),
        Err(error) => {
            json!({"error": {"status": error.status(), "message": error.message, "param": error.param}})
        }
    }
}

/// A template as it stands in `config.yaml`.
fn template(settings: &Value) -> PromptTemplate {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let roles = settings["roles"].as_object().into_iter().flatten();
    PromptTemplate {
        initial: text(settings, "initial_prompt_value"),
        last: text(settings, "final_prompt_value"),
        bos: text(settings, "bos_token"),
        eos: text(settings, "eos_token"),
        roles: roles
            .map(|(role, texts)| (role.clone(), (text(texts, "pre_message"), text(texts, "post_message"))))
            .collect(),
    }
}

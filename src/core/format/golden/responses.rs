//! Golden cases of the response translations: `{"memo", "answer"}` or `{"memo", "chunks"}` in, what the client reads out.

use serde_json::{Value, json};

use crate::core::{
    error::Error,
    format::{generate::Requested, golden, response::ResponseIds},
};

/// What responses without names of their own are called in every case.
pub(in crate::core::format) fn ids() -> ResponseIds {
    ResponseIds { id: "chatcmpl-stamp".into(), created: 1_700_000_000, model: "stamped-model".into() }
}

/// Compares every buffered response of a folder with what `translate` makes of it, and tries it with odd values.
pub(in crate::core::format) fn whole(
    folder: &str,
    translate: fn(&Value, Requested, &ResponseIds) -> Result<Value, Error>,
) {
    let run = |case: &Value| match translate(&case["answer"], requested(case), &ids()) {
        Ok(answer) => json!({"answer": answer}),
        Err(error) => json!({"error": {"status": error.status(), "message": error.message}}),
    };
    golden::walk(folder, run);
    golden::each(folder, |case| {
        golden::mutants(&case["answer"], &odd(), &mut |mutant| {
            run(&json!({"memo": case["memo"], "answer": mutant}));
        });
    });
}

/// Compares every stream of a folder with what `translate` makes of its chunks, and tries it with odd values. `translate` is
/// told whether the client asked for the usage.
pub(in crate::core::format) fn streams(
    folder: &str,
    translate: impl Fn(&[Value], Requested, bool) -> (Vec<Value>, Result<(), Error>),
) {
    let run = |chunks: &Value, case: &Value| {
        let include_usage = case["memo"]["include_usage"] == true;
        match translate(chunks.as_array().unwrap(), requested(case), include_usage) {
            (out, Ok(())) => json!({"out": out}),
            (out, Err(error)) => {
                json!({"out": out, "error": {"status": error.status(), "message": error.message}})
            }
        }
    };
    golden::walk(folder, |case| run(&case["chunks"], case));
    golden::each(folder, |case| {
        golden::mutants(&case["chunks"], &odd(), &mut |mutant| {
            if mutant.is_array() {
                run(mutant, case);
            }
        });
    });
}

/// What a client reads of chat chunks: without the usage when it did not ask for it.
pub(in crate::core::format) fn seen(mut chunks: Vec<Value>, include_usage: bool) -> Vec<Value> {
    chunks.retain(|chunk| include_usage || !chunk["usage"].is_object());
    chunks
}

fn odd() -> [Value; 7] {
    [json!(null), json!(-1), json!(u64::MAX), json!("x"), json!([]), json!({}), json!(true)]
}

fn requested(case: &Value) -> Requested {
    Requested {
        strip_tokens: serde_json::from_value(case["memo"]["marks"].clone()).unwrap_or_default(),
        prompt_tokens: case["memo"]["prompt_tokens"].as_u64().unwrap_or(0),
    }
}

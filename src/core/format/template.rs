//! Chat messages as one prompt text: the templates of `config.yaml`, and those of well-known model families.

use serde_json::{Map, Value};

use super::{Context, path::Path};
use crate::core::{error::Error, model::template::PromptTemplate};

/// Takes the messages out of a chat request and makes one prompt of them: with the template, else their texts are joined. A
/// history with tool calls cannot be told as text; with `drop_params` the calls are left out.
pub fn take_prompt(
    chat: &mut Map<String, Value>,
    template: Option<&PromptTemplate>,
    context: &Context<'_>,
) -> Result<String, Error> {
    let path = Path::top("messages");
    let messages = path.list(chat.shift_remove("messages").unwrap_or_default())?;
    if messages.is_empty() {
        return Err(path.wrong("a list of at least one message"));
    }
    let with_calls = |message: &Value| {
        message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty())
    };
    if let Some(at) = messages.iter().position(with_calls).filter(|_| !context.drop_params) {
        return Err(path.item(at).member("tool_calls").wrong(
            "absent: this model completes text and knows no tools; `drop_params: true` leaves them out",
        ));
    }
    match template {
        Some(template) => render(&messages, template),
        None => join(&messages),
    }
}

/// The prompt: `bos` and `initial`; each message between its role's texts, with `eos` after an assistant turn and `bos`
/// again before the system or user turn that follows it; `last`. A role the template does not name stands bare.
fn render(messages: &[Value], template: &PromptTemplate) -> Result<String, Error> {
    let mut prompt = format!("{}{}", template.bos, template.initial);
    let mut after_assistant = false;
    for (at, message) in messages.iter().enumerate() {
        let role = role_of(message);
        if after_assistant && matches!(role, "system" | "user" | "human") {
            prompt.push_str(&template.bos);
            after_assistant = false;
        }
        let (before, after) =
            template.roles.get(role).map_or(("", ""), |(before, after)| (before.as_str(), after.as_str()));
        prompt.push_str(before);
        prompt.push_str(&text_of(message, at)?);
        prompt.push_str(after);
        if role == "assistant" {
            prompt.push_str(&template.eos);
            after_assistant = true;
        }
    }
    prompt.push_str(&template.last);
    Ok(prompt)
}

/// The prompt without a template: the messages' texts, a space between two.
fn join(messages: &[Value]) -> Result<String, Error> {
    let texts = messages.iter().enumerate().map(|(at, message)| text_of(message, at));
    let mut texts = texts.collect::<Result<Vec<_>, _>>()?;
    texts.retain(|text| !text.is_empty());
    Ok(texts.join(" "))
}

/// The template that models of this name were trained with, when the family is a known one.
pub fn for_model(model: &str) -> Option<PromptTemplate> {
    let model = model.to_ascii_lowercase();
    FAMILIES.iter().find(|family| family.has(&model)).map(Family::template)
}

/// A family of models that share a template.
struct Family {
    /// Any of these in the model's name …
    names: &'static [&'static str],
    /// … together with any of these; none means the name is enough.
    kinds: &'static [&'static str],
    initial: &'static str,
    last: &'static str,
    bos: &'static str,
    eos: &'static str,
    /// Role, text before, text after.
    roles: &'static [(&'static str, &'static str, &'static str)],
}

/// First match wins.
const FAMILIES: [Family; 8] = [
    Family {
        names: &["llama-3", "llama3"],
        kinds: &["instruct", "chat"],
        initial: "<|begin_of_text|>",
        last: "<|start_header_id|>assistant<|end_header_id|>\n\n",
        bos: "",
        eos: "",
        roles: &[
            ("system", "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
            ("user", "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
            ("assistant", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
            ("tool", "<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>"),
        ],
    },
    Family {
        names: &["llama-2", "llama2", "codellama"],
        kinds: &["chat", "instruct"],
        initial: "",
        last: "",
        bos: "<s>",
        eos: "</s>",
        roles: &[
            ("system", "[INST] <<SYS>>\n", "\n<</SYS>>\n [/INST]\n"),
            ("user", "[INST] ", " [/INST]\n"),
            ("assistant", "", "\n"),
        ],
    },
    Family {
        names: &["mistral", "mixtral"],
        kinds: &["instruct"],
        // Its tokenizer wants the opening token once, not before every turn.
        initial: "<s>",
        last: "",
        bos: "",
        eos: "</s>",
        roles: &[
            ("system", "[INST] ", " [/INST]\n"),
            ("user", "[INST] ", " [/INST]"),
            ("assistant", " ", ""),
        ],
    },
    Family {
        names: &["zephyr"],
        kinds: &[],
        initial: "",
        last: "<|assistant|>\n",
        bos: "",
        eos: "",
        roles: &[
            ("system", "<|system|>\n", "</s>\n"),
            ("user", "<|user|>\n", "</s>\n"),
            ("assistant", "<|assistant|>\n", "</s>\n"),
        ],
    },
    Family {
        names: &["alpaca", "wizardcoder"],
        kinds: &[],
        initial: "",
        last: "### Response:\n",
        bos: "",
        eos: "",
        roles: &[
            ("system", "", "\n\n"),
            ("user", "### Instruction:\n", "\n\n"),
            ("assistant", "### Response:\n", "\n\n"),
        ],
    },
    Family {
        names: &["falcon-180b"],
        kinds: &["chat"],
        initial: "",
        last: "Falcon:",
        bos: "",
        eos: "",
        roles: &[("system", "System: ", "\n"), ("user", "User: ", "\n"), ("assistant", "Falcon: ", "\n")],
    },
    Family {
        names: &["falcon"],
        kinds: &["instruct", "chat"],
        initial: "",
        last: "Assistant:",
        bos: "",
        eos: "",
        roles: &[("system", "", "\n\n"), ("user", "User: ", "\n\n"), ("assistant", "Assistant: ", "\n\n")],
    },
    Family {
        names: &["chatml", "openhermes", "hermes-2", "dolphin", "qwen"],
        kinds: &[],
        initial: "",
        last: "<|im_start|>assistant\n",
        bos: "",
        eos: "",
        roles: &[
            ("system", "<|im_start|>system\n", "<|im_end|>\n"),
            ("user", "<|im_start|>user\n", "<|im_end|>\n"),
            ("assistant", "<|im_start|>assistant\n", "<|im_end|>\n"),
        ],
    },
];

impl Family {
    fn has(&self, model: &str) -> bool {
        self.names.iter().any(|name| model.contains(name))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| model.contains(kind)))
    }

    fn template(&self) -> PromptTemplate {
        let roles = self.roles.iter();
        PromptTemplate {
            initial: self.initial.into(),
            last: self.last.into(),
            bos: self.bos.into(),
            eos: self.eos.into(),
            roles: roles
                .map(|(role, before, after)| {
                    ((*role).to_owned(), ((*before).to_owned(), (*after).to_owned()))
                })
                .collect(),
        }
    }
}

fn role_of(message: &Value) -> &str {
    match message.get("role").and_then(Value::as_str) {
        // Models that take a prompt know the older name only.
        Some("developer") => "system",
        Some(role) => role,
        None => "",
    }
}

/// The text of a message; parts other than text are refused, since the model could not see them.
fn text_of(message: &Value, at: usize) -> Result<String, Error> {
    let path = Path::top("messages");
    let path = path.item(at);
    let path = path.member("content");
    match message.get("content") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for (at, part) in parts.iter().enumerate() {
                match part.get("text").and_then(Value::as_str).or(part.as_str()) {
                    Some(piece) => text.push_str(piece),
                    None => return Err(path.item(at).wrong("a text part: this model completes text")),
                }
            }
            Ok(text)
        }
        Some(_) => Err(path.wrong("a string or a list of text parts")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn history() -> Vec<Value> {
        vec![
            json!({"role": "system", "content": "S"}),
            json!({"role": "user", "content": "U"}),
            json!({"role": "assistant", "content": "A"}),
            json!({"role": "user", "content": [{"type": "text", "text": "V"}, {"type": "text", "text": "W"}]}),
        ]
    }

    #[test]
    fn known_families() {
        let rows = [
            (
                "meta-llama/Meta-Llama-3-8B-Instruct",
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nVW<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            (
                "meta-llama/Llama-2-7b-chat-hf",
                "<s>[INST] <<SYS>>\nS\n<</SYS>>\n [/INST]\n[INST] U [/INST]\nA\n</s><s>[INST] VW [/INST]\n",
            ),
            (
                "mistralai/Mistral-7B-Instruct-v0.1",
                "<s>[INST] S [/INST]\n[INST] U [/INST] A</s>[INST] VW [/INST]",
            ),
            (
                "HuggingFaceH4/zephyr-7b-beta",
                "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nVW</s>\n<|assistant|>\n",
            ),
            (
                "tatsu-lab/alpaca-7b",
                "S\n\n### Instruction:\nU\n\n### Response:\nA\n\n### Instruction:\nVW\n\n### Response:\n",
            ),
            ("tiiuae/falcon-180B-chat", "System: S\nUser: U\nFalcon: A\nUser: VW\nFalcon:"),
            ("tiiuae/falcon-7b-instruct", "S\n\nUser: U\n\nAssistant: A\n\nUser: VW\n\nAssistant:"),
            (
                "Qwen/Qwen2-7B-Instruct",
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n\
                 <|im_start|>user\nVW<|im_end|>\n<|im_start|>assistant\n",
            ),
        ];
        for (model, prompt) in rows {
            assert_eq!(render(&history(), &for_model(model).unwrap()).unwrap(), prompt, "{model}");
        }
    }

    #[test]
    fn models_without_a_chat_template_have_none() {
        for model in ["bigcode/starcoder", "tiiuae/falcon-7b", "meta-llama/Llama-2-7b-hf", ""] {
            assert_eq!(for_model(model), None, "{model}");
        }
    }

    #[test]
    fn the_opening_token_comes_again_after_an_assistant_turn() {
        let template = PromptTemplate { bos: "<".into(), eos: ">".into(), ..PromptTemplate::default() };
        let turns = |roles: &[&str]| -> Vec<Value> {
            roles.iter().map(|role| json!({"role": role, "content": role.get(..1)})).collect()
        };
        for (roles, prompt) in [
            (&["user", "user"][..], "<uu"),
            (&["user", "assistant", "user"], "<ua><u"),
            (&["assistant", "assistant", "system"], "<a>a><s"),
            (&["assistant", "tool", "user", "user"], "<a>t<uu"),
            (&["user", "assistant"], "<ua>"),
        ] {
            assert_eq!(render(&turns(roles), &template).unwrap(), prompt, "{roles:?}");
        }
    }

    #[test]
    fn without_a_template_texts_are_joined() {
        let messages =
            [json!({"content": "a"}), json!({"content": null}), json!({"content": ["b", {"text": "c"}]})];
        assert_eq!(join(&messages).unwrap(), "a bc");
        let error = join(&[json!({"content": [{"type": "image_url"}]})]).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("messages[0].content[0]"));
    }
}

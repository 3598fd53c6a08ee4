//! Real errors of providers.

use super::*;
use crate::core::{
    format::{chat, failure, messages},
    headers::Headers,
};

fn class(status: u16, body: &str) -> Class {
    failure::read(&chat::Format, Status::new(status), &Headers::default(), body.as_bytes(), 0).class
}

#[test]
fn prompts_that_are_too_long() {
    #[rustfmt::skip]
    let rows = [
        ("OpenAI", 400, r#"{"error":{"message":"This model's maximum context length is 128000 tokens. However, your messages resulted in 202868 tokens (202767 in the messages, 101 in the functions). Please reduce the length of the messages or functions.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#),
        ("OpenAI, newer", 400, r#"{"error":{"message":"Your input exceeds the context window of this model. Please adjust your input and try again.","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}"#),
        ("OpenAI, its text alone", 400, r#"{"error":{"message":"Your input exceeds the context window of this model.","type":null,"code":null}}"#),
        ("OpenAI, embeddings", 400, r#"{"error":{"message":"This model's maximum context length is 8192 tokens, however you requested 10346 tokens (10346 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.","type":"invalid_request_error","param":null,"code":null}}"#),
        ("Google", 400, r#"[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#),
        ("Google, an object", 400, r#"{"error":{"code":400,"message":"The input token count (134123) exceeds the maximum number of tokens allowed (131072).","status":"INVALID_ARGUMENT"}}"#),
        ("xAI", 400, r#"{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 136973 tokens."}"#),
        ("Mistral", 400, r#"{"object":"error","message":"Prompt contains 300000 tokens and 0 draft tokens, too large for model with 131072 maximum context length","type":"invalid_request_message_order","param":null,"code":"3051"}"#),
        ("Cohere", 400, r#"{"message":"too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292. Try using a shorter prompt, or enabling prompt truncating."}"#),
        ("Groq", 400, r#"{"error":{"message":"Please reduce the length of the messages or completion.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#),
        ("Cerebras", 400, r#"{"message":"Please reduce the length of the messages or completion. Current length is 12000 while limit is 8192","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}"#),
        ("OpenRouter", 400, r#"{"error":{"message":"This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 tokens (42832 of text input). Please reduce the length of either one, or use the \"middle-out\" transform to compress your prompt automatically.","code":400}}"#),
        ("Together", 422, r#"{"error":{"message":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and 512 `max_new_tokens`","type":"invalid_request_error","param":"max_tokens","code":null}}"#),
        ("Together, newer", 400, r#"{"error":{"message":"Input length (265330) exceeds model's maximum context length (262144).","type":"invalid_request_error"}}"#),
        ("Fireworks", 400, r#"{"error":{"object":"error","type":"invalid_request_error","message":"The prompt is too long: 262377, model maximum context length: 262143"}}"#),
        ("DeepSeek", 400, r#"{"error":{"message":"This model's maximum context length is 65536 tokens. However, you requested 69648 tokens (69648 in the messages, 0 in the completion). Please reduce the length of the messages or completion.","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#),
        ("vLLM", 400, r#"{"object":"error","message":"The decoder prompt (length 10127) is longer than the maximum model length of 8192. Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens.","type":"BadRequestError","param":null,"code":400}"#),
        ("vLLM, older", 400, r#"{"object":"error","message":"This model's maximum context length is 16384 tokens. However, you requested 19591 tokens (9591 in the messages, 10000 in the completion). Please reduce the length of the messages or completion. None","type":"BadRequestError","param":null,"code":400}"#),
        ("vLLM, images", 400, r#"{"object":"error","message":"The prompt (total length 25938) is too long to fit into the model (context length 4096). Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens.","type":"BadRequestError","param":null,"code":400}"#),
        ("vLLM, max_tokens", 400, r#"{"error":{"message":"'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is 4096 tokens and your request has 2104 input tokens (2000 > 4096 - 2104).","type":"BadRequestError","param":null,"code":400}}"#),
        ("SGLang", 400, r#"{"object":"error","message":"The input (61709 tokens) is longer than the model's context length (40960 tokens).","type":"BadRequestError","param":null,"code":400}"#),
        ("SGLang, both", 400, r#"{"object":"error","message":"Requested token count exceeds the model's maximum context length of 32768 tokens. You requested a total of 70000 tokens: 6000 tokens from the input messages and 64000 tokens for the completion.","type":"BadRequestError","param":null,"code":400}"#),
        ("SGLang, memory", 400, r#"{"object":"error","message":"Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens). Use a shorter input or enable --allow-auto-truncate.","type":"BadRequestError","param":null,"code":400}"#),
        ("TGI", 422, r#"{"error":"Input validation error: `inputs` must have less than 4096 tokens. Given: 4545","error_type":"validation"}"#),
        ("TGI, both", 422, r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3474 `inputs` tokens and 60 `max_new_tokens`","error_type":"validation"}"#),
        ("llama.cpp", 400, r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":14429,"n_ctx":8192}}"#),
        ("llama.cpp, numbers", 400, r#"{"error":{"code":400,"message":"request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"other"}}"#),
        ("llama.cpp, 500", 500, r#"{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}"#),
        ("llama-cpp-python", 400, r#"{"error":{"message":"Requested tokens (2285) exceed context window of 2048","type":"invalid_request_error","param":"messages","code":null}}"#),
        ("Ollama", 400, r#"{"error":{"message":"the input length exceeds the context length","type":"invalid_request_error","param":null,"code":null}}"#),
        ("Ollama's cloud", 400, r#"{"error":"prompt too long; exceeded max context length by 17 tokens (ref: 00000000-0000)"}"#),
        ("LM Studio", 400, r#"{"error":"The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 5453>= n_ctx: 4096). Try to load the model with a larger context length, or provide a shorter input."}"#),
        ("DashScope", 400, r#"{"error":{"code":"invalid_parameter_error","param":null,"message":"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 983616]","type":"invalid_request_error"}}"#),
        ("Moonshot", 400, r#"{"error":{"message":"Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)","type":"invalid_request_error"}}"#),
        ("Moonshot, bytes", 400, r#"{"error":{"message":"total message size 2100954 exceeds limit 2097152","type":"invalid_request_error"}}"#),
        ("MiniMax", 400, r#"{"error":{"message":"invalid params, context window exceeds limit (2013)","type":"bad_request_error"}}"#),
        ("GitHub Models", 413, r#"{"error":{"code":"tokens_limit_reached","message":"Request body too large for gpt-4o model. Max size: 8000 tokens.","details":"Request body too large for gpt-4o model. Max size: 8000 tokens."}}"#),
        ("Bedrock", 400, r#"{"message":"Input is too long for requested model."}"#),
        ("Bedrock, by characters", 400, r#"{"message":"Malformed input request: expected maxLength: 50000, actual: 63000, please reformat your input and try again."}"#),
        ("Bedrock, its OpenAI API", 400, r#"{"error":{"code":"validation_error","message":"Too many input tokens. Max input tokens: 8192, request input token count: 9001","type":"invalid_request_error"}}"#),
        ("a proxy", 400, r#"{"detail":"upstream: {'code': 'context_length_exceeded'}"}"#),
    ];
    for (who, status, body) in rows {
        assert_eq!(class(status, body), Class::ContextWindowExceeded, "{who}: {status} {body}");
        // A limit of requests is none of the prompt, whatever it says.
        assert_eq!(class(429, body), Class::RateLimit, "{who}");
    }
}

#[test]
fn refused_prompts() {
    #[rustfmt::skip]
    let rows = [
        ("OpenAI", 400, r#"{"error":{"message":"Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a different prompt.","type":"invalid_request_error","param":null,"code":"invalid_prompt"}}"#),
        ("OpenAI, images", 400, r#"{"error":{"code":"content_policy_violation","message":"Your request was rejected as a result of our safety system.","param":null,"type":"invalid_request_error"}}"#),
        ("Azure", 400, r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#),
        ("DeepSeek", 400, r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#),
        ("DashScope", 400, r#"{"error":{"code":"data_inspection_failed","param":null,"message":"Input data may contain inappropriate content.","type":"data_inspection_failed"}}"#),
        ("DashScope, a text", 400, r#"{"error":{"message":"<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.","code":null}}"#),
        ("Moonshot", 400, r#"{"error":{"message":"The request was rejected because it was considered high risk","type":"content_filter"}}"#),
        ("xAI", 403, r#"{"code":"The caller does not have permission to execute the specified operation","error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}"#),
        ("OpenRouter", 403, r#"{"error":{"code":403,"message":"Input was flagged","metadata":{"reasons":["violence"],"flagged_input":"…","provider_name":"OpenAI","model_slug":"openai/gpt-4"}}}"#),
        ("Volcengine", 400, r#"{"error":{"code":"InputTextSensitiveContentDetected","message":"The request failed because the input text may contain sensitive information.","param":"","type":"BadRequest"}}"#),
        ("Google", 400, r#"[{"error":{"code":400,"message":"The response was blocked.","status":"INVALID_ARGUMENT"}}]"#),
    ];
    for (who, status, body) in rows {
        assert_eq!(class(status, body), Class::ContentPolicyViolation, "{who}: {status} {body}");
    }
}

#[test]
fn limits_keys_and_models_under_other_statuses() {
    #[rustfmt::skip]
    let rows = [
        ("Groq", 413, r#"{"error":{"message":"Request too large for model `llama-3.3-70b-versatile` in organization `org_1` service tier `on_demand` on tokens per minute (TPM): Limit 12000, Requested 14137, please reduce your message size and try again.","type":"tokens","code":"rate_limit_exceeded"}}"#, Class::RateLimit),
        ("Bedrock", 400, r#"{"__type":"com.amazon.coral.service#ThrottlingException","message":"Too many tokens, please wait before trying again."}"#, Class::RateLimit),
        ("xAI", 400, r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai."}"#, Class::Authentication),
        ("Google", 400, r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]"#, Class::Authentication),
        ("OpenAI", 401, r#"{"error":{"message":"Incorrect API key provided: sk-***.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#, Class::Authentication),
        ("OpenAI", 404, r#"{"error":{"message":"The model `x` does not exist or you do not have access to it.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#, Class::NotFound),
        ("Mistral", 400, r#"{"object":"error","message":"Invalid model: x","type":"invalid_model","param":null,"code":"1500"}"#, Class::NotFound),
        ("OpenRouter", 400, r#"{"error":{"message":"x/y is not a valid model ID","code":400}}"#, Class::NotFound),
        ("OpenAI", 429, r#"{"error":{"message":"Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 61337. The input or output tokens must be reduced in order to run successfully.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#, Class::RateLimit),
        ("nginx", 413, "<html><head><title>413 Request Entity Too Large</title></head></html>", Class::BadRequest),
        ("OpenAI", 500, r#"{"error":{"message":"Rate limit reached","type":"server_error"}}"#, Class::RateLimit),
    ];
    for (who, status, body, expected) in rows {
        assert_eq!(class(status, body), expected, "{who}: {status} {body}");
    }
}

/// A server that quotes the request in its error must not let a caller put the deployment to rest.
#[test]
fn a_caller_cannot_word_itself_a_rate_limit_or_a_wrong_key() {
    let quoted = "Rate limit reached, rate_limit_exceeded, ThrottlingException, Request too large for model on tokens per minute (TPM)";
    for status in [400, 413, 422] {
        let body = format!(
            r#"{{"object":"error","message":"[{{'type': 'missing', 'input': '{quoted}'}}]","type":"BadRequestError","code":400}}"#
        );
        assert_eq!(class(status, &body), Class::BadRequest, "{status}");
    }
}

#[test]
fn ordinary_mistakes_stay_what_they_are() {
    for body in [
        r#"{"error":{"message":"max_tokens is too large: 200000. This model supports at most 16384 completion tokens, whereas you provided 200000.","type":"invalid_request_error","param":"max_tokens","code":"invalid_value"}}"#,
        r#"{"error":{"message":"Invalid 'messages[0].content': string too short.","code":"invalid_value"}}"#,
        r#"{"error":{"message":"The input token count is fine. Something else exceeds the maximum number of tools."}}"#,
        r#"{"error":{"message":"bad"}}"#,
        "{}",
        "[]",
        "",
        "\u{fffd}",
    ] {
        assert_eq!(class(400, body), Class::BadRequest, "{body}");
    }
}

#[test]
fn anthropic_has_no_table_of_its_own() {
    #[rustfmt::skip]
    let rows = [
        (400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 219898 tokens > 200000 maximum"},"request_id":"req_1"}"#, Class::ContextWindowExceeded),
        (400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length or `max_tokens` and try again"}}"#, Class::ContextWindowExceeded),
        (413, r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#, Class::ContextWindowExceeded),
        (400, r#"{"type":"error","error":{"details":null,"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}"#, Class::ContentPolicyViolation),
        // Others that speak Anthropic's format.
        (400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)"}}"#, Class::ContextWindowExceeded),
        (400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"Content Exists Risk"}}"#, Class::ContentPolicyViolation),
        (413, "<html>413 Request Entity Too Large</html>", Class::BadRequest),
        (400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 9 > 8, which is the maximum allowed number of output tokens"}}"#, Class::BadRequest),
    ];
    for (status, body, expected) in rows {
        let failure =
            failure::read(&messages::Format, Status::new(status), &Headers::default(), body.as_bytes(), 0);
        assert_eq!(failure.class, expected, "{status} {body}");
    }
}

#[test]
fn every_row_says_where_it_comes_from_and_can_be_met() {
    for row in ROWS.iter().chain(CODES) {
        assert!(!row.from.is_empty());
        let (text, codes) = match &row.by {
            Code(code) => (String::new(), vec![*code]),
            Words(pieces) => (pieces.join(" 7 "), Vec::new()),
        };
        assert_eq!(text, text.to_lowercase());
        assert!(codes.iter().all(|code| *code == code.to_lowercase()));
        let of = |status| Class::of(&Said::new(status, codes.iter().copied(), &text));
        assert!([None, Status::new(400)].map(of).contains(&row.class), "{}", row.from);
    }
}

#[test]
fn a_status_leaves_room_for_what_says_more() {
    for (status, code, text, expected) in [
        (Some(429), "context_length_exceeded", "", Class::RateLimit),
        (Some(401), "rate_limit_error", "", Class::Authentication),
        (Some(500), "rate_limit_error", "", Class::RateLimit),
        (Some(500), "", "Service tier capacity exceeded", Class::RateLimit),
        (Some(503), "overloaded_error", "", Class::InternalServer),
        (Some(529), "overloaded_error", "", Class::InternalServer),
        (Some(529), "", "", Class::Api),
        (Some(429), "overloaded_error", "", Class::RateLimit),
        (Some(404), "invalid_request_error", "", Class::NotFound),
        (Some(418), "invalid_request_error", "", Class::Api),
        // Words do not say whose key is wrong, nor that there are too many requests.
        (None, "", "Incorrect API key provided. Rate limit reached.", Class::InternalServer),
        (None, "", "x is not a valid model ID", Class::InternalServer),
        (None, "", "maximum context length is 4097", Class::ContextWindowExceeded),
        (None, "something_new", "", Class::InternalServer),
    ] {
        let said = Said::new(status.and_then(Status::new), std::iter::once(code), text);
        assert_eq!(Class::of(&said), expected, "{status:?} {code} {text}");
    }
}

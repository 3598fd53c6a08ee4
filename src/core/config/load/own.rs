//! Members of `litellm_params` that LiteLLM keeps for itself: none goes into requests, and each has a verdict of its own.

use serde_json::{Value, json};

use super::load;

/// What LiteLLM 1.110 takes for itself, but for prices.
#[rustfmt::skip]
const OWN: &[&str] = &[
    "_agentic_loop_depth", "_router_weights", "_websearch_interception_stream_options", "adaptive_router_config", "adaptive_router_default_model", "allow_client_keepalive_override",
    "allowed_model_region", "allowed_openai_params", "anthropic_disable_workload_identity_federation", "anthropic_federation_rule_id", "anthropic_federation_workspace_id",
    "anthropic_identity_source", "anthropic_identity_token", "anthropic_identity_token_file", "anthropic_issuer_audience", "anthropic_issuer_signing_key_ref", "anthropic_issuer_subject",
    "anthropic_issuer_ttl_seconds", "anthropic_issuer_url", "anthropic_keycloak_auth_method", "anthropic_keycloak_client_id", "anthropic_keycloak_client_secret_ref",
    "anthropic_keycloak_scope", "anthropic_keycloak_token_url", "anthropic_organization_id", "anthropic_service_account_id", "api_base", "api_key", "api_version", "arize_api_key",
    "arize_space_id", "arize_space_key", "assistant_continue_message", "auto_router_config", "auto_router_config_path", "auto_router_default_model", "auto_router_embedding_model",
    "auto_router_max_input_chars", "auto_router_model_compression", "auto_router_routing_compression", "aws_batch_role_arn", "aws_bedrock_control_plane_endpoint", "azure",
    "azure_ad_token_provider", "azure_password", "azure_scope", "azure_username", "base_model", "bedrock_tags", "bos_token", "budget_duration", "cache", "cache_key", "caching",
    "caching_groups", "chatgpt_auth_file", "client", "client_id", "client_secret", "complete_response", "complexity_router_config", "complexity_router_default_model",
    "configurable_clientside_auth_params", "context_window_fallback_dict", "cooldown_time", "custom_llm_provider", "custom_prompt_dict", "daily_reset_time", "data_residency",
    "dd_agent_host", "dd_api_key", "dd_site", "default_api_key_rpm_limit", "default_api_key_tpm_limit", "disable_add_transform_inline_image_block", "enable_json_schema_validation",
    "enable_prompt_caching", "enable_tag_filtering", "ensure_alternating_roles", "eos_token", "fallbacks", "fastest_response", "final_prompt_value", "fireworks_forward_user_id",
    "force_timeout", "gcs_bucket_name", "gcs_path_service_account", "github_copilot_auth_type", "github_copilot_host", "guardrails", "headers", "hf_model_name", "humanloop_api_key", "id",
    "initial_prompt_value", "itpm", "keepalive_seconds", "kubernetes_pod_discovery", "langfuse_environment", "langfuse_host", "langfuse_prompt_version", "langfuse_public_key",
    "langfuse_secret", "langfuse_secret_key", "langsmith_api_key", "langsmith_base_url", "langsmith_project", "langsmith_sampling_rate", "langsmith_tenant_id", "litellm_call_id",
    "litellm_credential_name", "litellm_disabled_callbacks", "litellm_metadata", "litellm_request_debug", "litellm_session_id", "litellm_system_prompt", "litellm_trace_id",
    "log_client_error_tracebacks", "logger_fn", "max_agentic_loops", "max_budget", "max_fallbacks", "max_file_size_mb", "max_parallel_requests", "max_retries",
    "merge_reasoning_content_in_choices", "metadata", "mock_response", "mock_timeout", "model_alias_map", "model_config", "model_info", "model_list", "modify_params", "newrelic_api_key",
    "no-log", "num_retries", "openai_identity_provider_id", "openai_identity_token_file", "openai_service_account_id", "order", "otpm", "output_vector_size", "posthog_api_key",
    "preset_cache_key", "prompt_environment", "prompt_id", "prompt_label", "prompt_variables", "prompt_version", "provider_affinity_header", "provider_specific_header",
    "proxy_server_request", "quality_router_config", "quality_router_default_model", "region_name", "request_timeout", "responses_api_version", "retry_policy", "retry_strategy", "roles",
    "routing_strategy", "rpd", "rpm", "s3_access_key_id", "s3_bucket_name", "s3_bucket_owner", "s3_encryption_key_id", "s3_endpoint_url", "s3_output_bucket_name", "s3_region_name",
    "s3_secret_access_key", "search_tool_name", "shared_session", "signoz_ingestion_key", "silent_model", "ssl_verify", "stream_chunk_size", "stream_timeout",
    "stream_timeout_by_service_tier", "supports_system_message", "switchyard_router_config", "tag_regex", "tags", "tenant_id", "thought_signature_in_tool_call_id", "tiered_pricing",
    "timeout_by_service_tier", "token_exchange_audience", "token_exchange_endpoint", "token_exchange_profile", "token_exchange_scope", "tpd", "tpm", "ttl", "turn_off_message_logging",
    "use_chat_completions_api", "use_in_pass_through", "use_litellm_proxy", "use_xai_oauth", "user_continue_message", "vector_store_id", "verbose", "wandb_api_key", "weave_project_id",
    "weight",
];

/// Of these a text is no value.
const TEXTS_ARE_WRONG: &[&str] = &["custom_llm_provider", "api_base", "litellm_credential_name"];

#[test]
fn what_is_litellms_own_is_never_sent_to_a_provider_and_a_check_says_what_becomes_of_it() {
    for name in OWN.iter().filter(|name| !TEXTS_ARE_WRONG.contains(name)) {
        for value in [json!(true), json!("x-7"), json!(7), json!({"a": "b"})] {
            let params = json!({"model": "openai/a", "api_key": "k", *name: value, "top_k": 3});
            let yaml = json!({"model_list": [{"model_name": "m", "litellm_params": params}]}).to_string();
            // What has the wrong kind is refused, which is no member that is sent either.
            let Ok(loaded) = load(&yaml, &|_| None, &|_| None) else { continue };
            for deployment in &loaded.config.deployments {
                let sent: Vec<&String> = deployment.defaults.keys().collect();
                assert_eq!(sent, ["top_k"], "{name}");
            }
            let row = format!("model_list[0].litellm_params.{name}");
            let row = loaded.report.rows.iter().find(|other| other.path == row);
            assert!(row.is_some_and(|row| row.verdict.name() != "unknown"), "{name}: {row:?}");
        }
    }
}

#[test]
fn modify_params_of_a_deployment_stands_over_the_configurations() {
    for (litellm, params, expected) in
        [("{}", "", None), ("{modify_params: true}", ", modify_params: false", Some(false))]
    {
        let yaml = format!(
            "model_list: [{{model_name: m, litellm_params: {{model: openai/a, api_key: k{params}}}}}]\nlitellm_settings: {litellm}"
        );
        let loaded = load(&yaml, &|_| None, &|_| None).unwrap();
        assert_eq!(loaded.config.deployments[0].modify_params, expected);
        assert_eq!(Value::Object(loaded.config.deployments[0].defaults.clone()), json!({}));
    }
}

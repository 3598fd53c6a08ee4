//! Every setting LiteLLM knows, and what becomes of it here: the one table that the report, the "did you mean" and the
//! split of `litellm_params` into settings and default parameters come from.

use std::borrow::Cow;

use serde_json::Value;

/// What happens to a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The setting does what it does in LiteLLM.
    Used,
    /// The setting has an effect that is not quite LiteLLM's: how.
    Approximated(Cow<'static, str>),
    /// The setting is known and has no effect so far: what is missing.
    NotYet(Cow<'static, str>),
    /// The setting has no effect and needs none, or cannot have one: why.
    Ignored(Cow<'static, str>),
    /// The setting names something that is not there, such as an environment variable that is not set: what, and what that means.
    Missing(Cow<'static, str>),
    /// The setting is neither LiteLLM's nor the gateway's.
    Unknown {
        /// The known name that looks most like it.
        did_you_mean: Option<&'static str>,
    },
}

impl Verdict {
    /// The verdict in a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Used => "used",
            Verdict::Approximated(_) => "approximated",
            Verdict::NotYet(_) => "not yet",
            Verdict::Ignored(_) => "ignored",
            Verdict::Missing(_) => "missing",
            Verdict::Unknown { .. } => "unknown",
        }
    }

    /// How, what, why or the suggestion; empty when the name says it all.
    pub fn text(&self) -> String {
        match self {
            Verdict::Used | Verdict::Unknown { did_you_mean: None } => String::new(),
            Verdict::Approximated(text)
            | Verdict::NotYet(text)
            | Verdict::Ignored(text)
            | Verdict::Missing(text) => text.to_string(),
            Verdict::Unknown { did_you_mean: Some(name) } => format!("did you mean {name}?"),
        }
    }
}

/// Settings of one section that share a verdict.
pub struct Group {
    /// Where they stand: `router_settings`, `model_list[].litellm_params`, empty for the top level.
    pub section: &'static str,
    /// What happens to them.
    pub verdict: Verdict,
    /// The settings' names.
    pub names: &'static [&'static str],
}

/// The table.
#[rustfmt::skip]
pub static SETTINGS: &[Group] = &[
    // Top level. Sections are walked into; these are verdicts for what is no section (or an empty one).
    used("", &["model_list", "litellm_settings", "router_settings", "general_settings", "environment_variables", "tollgate_settings", "include", "credential_list"]),
    not_yet("", "guardrails", &["guardrails"]),
    not_yet("", "the files, batches and fine-tuning APIs", &["files_settings", "finetune_settings", "batch_settings"]),
    not_yet("", "callbacks by team", &["default_team_settings"]),
    not_yet("", "pass-through endpoints", &["pass_through_endpoints"]),
    not_yet("", "MCP", &["mcp_servers", "mcp_aliases"]),
    not_yet("", "vector stores", &["vector_store_registry", "search_tools"]),
    not_yet("", "managed prompts", &["prompts"]),
    not_yet("", "callbacks", &["callback_settings", "litellm_callback_settings"]),

    // model_list
    used("model_list[]", &["model_name", "litellm_params", "model_info"]),
    used("model_list[]", &["rpm", "tpm"]),
    used(PARAMS, &[
        "model", "api_key", "api_base", "base_url", "api_version", "organization", "custom_llm_provider", "timeout", "request_timeout", "stream_timeout",
        "num_retries", "rpm", "tpm", "weight", "cooldown_time", "drop_params", "additional_drop_params", "allowed_openai_params", "headers", "extra_headers",
        "extra_body", "mock_response", "mock_timeout", "initial_prompt_value", "roles", "final_prompt_value", "bos_token", "eos_token", "azure_ad_token",
        "litellm_credential_name", "base_model", "ssl_verify", "max_parallel_requests", "tags", "region_name", "modify_params",
    ]),
    not_yet(PARAMS, "the reasoning stays in reasoning_content, beside the content", &["merge_reasoning_content_in_choices"]),
    ignored(PARAMS, "retries happen in the router, in LiteLLM too: use num_retries", &["max_retries"]),
    ignored(PARAMS, "changes logging inside LiteLLM only", &["litellm_trace_id", "litellm_session_id", "logger_fn", "verbose", "no-log", "litellm_request_debug"]),
    ignored(PARAMS, "a parameter of LiteLLM's own HTTP client", &["client", "stream_chunk_size", "shared_session", "use_litellm_proxy"]),
    approximated(PARAMS, "with enable_pre_call_checks the lowest are tried first, and the others when those have failed", &["order"]),
    not_yet(PARAMS, "limits of keys by deployment: give keys model_rpm_limit and model_tpm_limit", &["default_api_key_tpm_limit", "default_api_key_rpm_limit"]),
    not_yet(PARAMS, "tags by pattern; tags work", &["tag_regex"]),
    approximated(PARAMS, BY_THE_CALENDAR, &["max_budget", "budget_duration"]),
    not_yet(PARAMS, "credentials from the client, deployment by deployment", &["configurable_clientside_auth_params"]),
    not_yet(PARAMS, "pass-through endpoints", &["use_in_pass_through", "use_chat_completions_api"]),
    not_yet(PARAMS, "cache control injection", &["cache_control_injection_points"]),
    not_yet(PARAMS, "AWS providers", &[
        "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region_name", "aws_role_name", "aws_session_name", "aws_profile_name",
        "aws_web_identity_token", "aws_sts_endpoint", "aws_external_id", "aws_bedrock_runtime_endpoint", "aws_bedrock_client", "aws_batch_role_arn", "aws_sagemaker_allow_zero_temp",
        "model_id", "guardrailConfig", "performanceConfig", "hf_model_name", "s3_bucket_name", "s3_region_name", "s3_encryption_key_id",
        "aws_session_tags", "aws_bedrock_control_plane_endpoint", "aws_bedrock_project_id", "bedrock_tags", "s3_access_key_id", "s3_bucket_owner", "s3_endpoint_url", "s3_output_bucket_name",
        "s3_secret_access_key", "bucket_name",
    ]),
    not_yet(PARAMS, "tokens fetched from Microsoft Entra; azure_ad_token and api_key work", &[
        "tenant_id", "client_id", "client_secret", "azure_username", "azure_password", "azure_scope", "azure_ad_token_provider", "azure_credential",
    ]),
    not_yet(PARAMS, "Vertex AI", &["vertex_project", "vertex_location", "vertex_credentials", "vertex_ai_project", "vertex_ai_location", "vertex_ai_credentials", "gcs_bucket_name"]),
    not_yet(PARAMS, "watsonx", &["watsonx_region_name", "project_id", "space_id", "wx_project_id"]),
    not_yet(PARAMS, "fallbacks of one deployment: put them into router_settings", &["fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "context_window_fallback_dict", "default_fallbacks", "retry_policy", "retry_strategy"]),
    not_yet(PARAMS, "caching", &["cache", "caching", "ttl", "cache_params", "enable_prompt_caching", "caching_groups", "cache_key", "preset_cache_key"]),
    not_yet(PARAMS, "guardrails", &["guardrails"]),
    not_yet(PARAMS, "managed prompts", &["custom_prompt_dict", "prompt_id", "prompt_variables", "prompt_label", "prompt_version", "prompt_environment"]),
    not_yet(PARAMS, "mocked tool calls", &["mock_tool_calls"]),
    not_yet(PARAMS, "callbacks", &[
        "callbacks", "success_callback", "failure_callback", "langfuse_public_key", "langfuse_secret", "langfuse_secret_key", "langfuse_host", "langsmith_api_key", "langsmith_project", "turn_off_message_logging",
        "langfuse_environment", "langfuse_prompt_version", "langfuse_span_scope", "langsmith_base_url", "langsmith_sampling_rate", "langsmith_tenant_id", "arize_api_key", "arize_space_id", "arize_space_key",
        "arize_error_sampling_rate", "arize_otlp_protocol", "arize_success_sampling_rate", "dd_agent_host", "dd_agent_port", "dd_api_key", "dd_site", "humanloop_api_key", "newrelic_api_key", "newrelic_region",
        "posthog_api_key", "posthog_api_url", "signoz_ingestion_endpoint", "signoz_ingestion_key", "wandb_api_key", "weave_project_id", "gcs_path_service_account",
    ]),
    not_yet(PARAMS, "prices that are not plain numbers", &["tiered_pricing"]),
    not_yet(PARAMS, "schema checks of answers", &["enable_json_schema_validation"]),
    not_yet(PARAMS, "requests are amended with modify_params alone, and in words of the gateway's", &[
        "supports_system_message", "ensure_alternating_roles", "user_continue_message", "assistant_continue_message", "litellm_system_prompt", "disable_add_transform_inline_image_block",
    ]),
    not_yet(PARAMS, "limits by the day, and of one direction", &["rpd", "tpd", "itpm", "otpm", "daily_reset_time", "max_file_size_mb"]),
    not_yet(PARAMS, "time-outs by service tier", &["timeout_by_service_tier", "stream_timeout_by_service_tier", "force_timeout", "keepalive_seconds", "allow_client_keepalive_override"]),
    not_yet(PARAMS, "models that choose among others", &[
        "auto_router_config_path", "auto_router_config", "auto_router_default_model", "auto_router_embedding_model", "auto_router_max_input_chars", "auto_router_routing_compression",
        "auto_router_model_compression", "complexity_router_config", "complexity_router_default_model", "adaptive_router_config", "adaptive_router_default_model", "quality_router_config",
        "quality_router_default_model", "switchyard_router_config", "silent_model", "provider_affinity_header", "kubernetes_pod_discovery", "allowed_model_region",
    ]),
    not_yet(PARAMS, "keys that have to be fetched", &[
        "anthropic_federation_rule_id", "anthropic_organization_id", "anthropic_service_account_id", "anthropic_federation_workspace_id", "anthropic_identity_token_file", "anthropic_identity_token",
        "anthropic_identity_source", "anthropic_issuer_url", "anthropic_issuer_subject", "anthropic_issuer_audience", "anthropic_issuer_ttl_seconds", "anthropic_issuer_signing_key_ref",
        "anthropic_keycloak_token_url", "anthropic_keycloak_client_id", "anthropic_keycloak_auth_method", "anthropic_keycloak_client_secret_ref", "anthropic_keycloak_scope",
        "anthropic_disable_workload_identity_federation", "openai_identity_provider_id", "openai_service_account_id", "openai_identity_token_file", "use_xai_oauth", "chatgpt_auth_file",
        "github_copilot_auth_type", "github_copilot_host", "github_copilot_user_session", "token_exchange_endpoint", "token_exchange_profile", "token_exchange_scope", "token_exchange_audience",
    ]),
    not_yet(PARAMS, "headers for one provider of several: use extra_headers", &["provider_specific_header"]),
    not_yet(PARAMS, "the responses API", &["responses_api_version"]),
    not_yet(PARAMS, "vector stores", &[
        "vector_store_id", "milvus_db_name", "milvus_partition_names", "milvus_text_field", "valkey_embedding_field", "valkey_host", "valkey_password", "valkey_port", "valkey_ssl", "valkey_text_field",
    ]),
    ignored(PARAMS, "of calls, not of models: LiteLLM does not send it to providers either", &["metadata", "id", "azure", "model_list", "model_alias_map", "complete_response", "output_vector_size"]),
    ignored(PARAMS, "a switch of LiteLLM's own internals", &[
        "max_agentic_loops", "max_fallbacks", "enable_tag_filtering", "routing_strategy", "search_tool_name", "log_client_error_tracebacks", "thought_signature_in_tool_call_id",
        "fireworks_forward_user_id", "data_residency", "model_config", "rust", "use_client",
    ]),
    not_yet(PARAMS, "prices by region", &[
        "regional_endpoint_uplift_multiplier", "regional_processing_uplift_multiplier_eu", "regional_processing_uplift_multiplier_us", "fedramp_uplift_multiplier",
    ]),
    ignored(PARAMS, "only sent by a client", &["mock_testing_fallbacks", "mock_testing_context_fallbacks", "mock_testing_content_policy_fallbacks", "mock_testing_rate_limit_error", "fastest_response", "user_config", "disable_fallbacks", "litellm_metadata", "model_info", "proxy_server_request", "priority"]),
    used(INFO, &["id", "base_model", "description"]),
    approximated(INFO, "chooses the health check; the API of a call is chosen by its path", &["mode"]),
    ignored(INFO, "shown by /model/info", &[
        "db_model", "version", "created_at", "created_by", "updated_at", "updated_by", "litellm_provider", "key", "display_name", "direct_access", "metadata",
    ]),
    used(INFO, &["access_groups", "team_id", "team_public_model_name", "supported_environments", "rpm", "tpm"]),
    not_yet(INFO, "models of several teams, and of tiers", &["access_via_team_ids", "tier"]),
    used(INFO, &["health_check_timeout", "disable_background_health_check", "health_check_max_tokens"]),
    approximated(INFO, "for models with `*`; others are asked for their own model", &["health_check_model"]),
    not_yet(INFO, "the audio APIs", &["health_check_voice"]),
    used(INFO, &["max_input_tokens"]),
    ignored(INFO, "shown by /model/info; max_input_tokens is what enable_pre_call_checks compares", &["max_tokens", "max_output_tokens"]),
    not_yet(INFO, "prices that are not plain numbers", &["tiered_pricing"]),

    // litellm_settings
    used(LITELLM, &[
        "drop_params", "modify_params", "num_retries", "request_timeout", "allowed_fails", "max_fallbacks", "fallbacks", "context_window_fallbacks",
        "content_policy_fallbacks", "default_fallbacks", "model_alias_map", "ssl_verify", "require_auth_for_metrics_endpoint", "cooldown_time",
    ]),
    not_yet(LITELLM, "functions written into the prompt for models that take none", &["add_function_to_prompt"]),
    approximated(LITELLM, "the access log is JSON in any case", &["json_logs"]),
    ignored(LITELLM, "logging inside LiteLLM; use --debug", &["set_verbose", "suppress_debug_info", "log_raw_request_response"]),
    ignored(LITELLM, "nothing is ever reported home", &["telemetry"]),
    ignored(LITELLM, "Envoy resolves both address families and uses what works", &["force_ipv4"]),
    ignored(LITELLM, "a switch of LiteLLM's own internals", &[
        "num_retries_per_request", "aiohttp_trust_env", "disable_aiohttp_transport", "disable_aiohttp_trust_env", "use_aiohttp_transport", "enable_preview_features", "disable_hf_tokenizer_download",
        "disable_token_counter", "enable_azure_ad_token_refresh", "client_session", "aclient_session", "in_memory_llm_clients_cache", "ssl_security_level", "ssl_certificate",
    ]),
    used(LITELLM, &[
        "max_budget", "budget_duration", "max_internal_user_budget", "internal_user_budget_duration", "default_max_internal_user_budget", "max_end_user_budget", "max_end_user_budget_id",
        "default_internal_user_params", "default_team_params", "default_key_generate_params", "upperbound_key_generate_params", "key_generation_settings", "timezone",
    ]),
    not_yet(LITELLM, "spend of end users is always kept", &["disable_end_user_cost_tracking", "disable_end_user_cost_tracking_prometheus_only"]),
    not_yet(LITELLM, "priorities", &["priority_reservation", "priority_reservation_settings"]),
    not_yet(LITELLM, "the user interface", &["max_ui_session_budget"]),
    not_yet(LITELLM, "the model hub, callbacks by team, user headers for providers", &["public_model_groups", "public_model_groups_links", "default_team_settings", "add_user_information_to_llm_headers"]),
    not_yet(LITELLM, "caching", &["cache", "cache_params", "enable_caching_on_provider_specific_optional_params", "enable_redis_auth_cache"]),
    not_yet(LITELLM, "callbacks", &[
        "callbacks", "success_callback", "failure_callback", "service_callback", "input_callback", "audit_log_callbacks", "callback_settings", "turn_off_message_logging", "redact_user_api_key_info", "redact_messages_in_exceptions",
        "langfuse_default_tags", "s3_callback_params", "s3_callback_params_v2", "prometheus_metrics_config", "custom_prometheus_metadata_labels", "custom_prometheus_tags", "prometheus_initialize_budget_metrics",
        "prometheus_metrics_include_labels", "datadog_params", "gcs_pub_sub_use_v1", "argilla_transformation_object", "generic_logger_headers", "store_audit_logs", "global_disable_no_log_param",
        "standard_logging_payload_excluded_fields", "langsmith_default_run_name", "arize_config", "datadog_llm_observability_params",
    ]),
    not_yet(LITELLM, "guardrails", &["guardrails", "post_call_rules", "pre_call_rules", "openai_moderations_model_name", "google_moderation_confidence_threshold", "llamaguard_model_name", "llamaguard_unsafe_content_categories", "blocked_user_list", "banned_keywords_list", "presidio_ad_hoc_recognizers", "output_parse_pii", "secret_detection_params"]),
    not_yet(LITELLM, "schema checks of answers", &["enable_json_schema_validation"]),
    not_yet(LITELLM, "client headers by model group; general_settings.forward_client_headers_to_llm_api works for all", &["model_group_settings"]),
    not_yet(LITELLM, "trace headers", &["forward_traceparent_to_llm_provider"]),
    not_yet(LITELLM, "cost in the stream's usage, margins and discounts", &["include_cost_in_streaming_usage", "cost_margin_config", "cost_discount_config"]),
    not_yet(LITELLM, "MCP", &["mcp_aliases", "mcp_semantic_tool_filter"]),
    not_yet(LITELLM, "budgets of tags, and tags out of other headers", &["tag_budget_config", "extra_spend_tag_headers"]),
    not_yet(LITELLM, "custom providers", &["custom_provider_map"]),
    not_yet(LITELLM, "defaults of end users; max_end_user_budget works", &["default_end_user_params"]),
    not_yet(LITELLM, "credentials that are not in litellm_params", &["api_base", "api_key", "openai_key", "azure_key", "anthropic_key", "organization", "headers", "aws_sqs_callback_params", "vertex_project", "vertex_location", "credential_list"]),

    // router_settings
    used(ROUTER, &[
        "num_retries", "max_fallbacks", "timeout", "stream_timeout", "allowed_fails", "allowed_fails_policy", "cooldown_time",
        "disable_cooldowns", "fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "model_group_alias", "default_litellm_params",
    ]),
    approximated(ROUTER, "a refused connection has the retries of a time-out: Envoy retries both without asking", &["retry_policy", "model_group_retry_policy"]),
    approximated(ROUTER, "whole seconds, and up to half as long again; after an answer, not after a time-out", &["retry_after"]),
    used(ROUTER, &["routing_strategy", "routing_strategy_args"]),
    used(ROUTER, &["redis_host", "redis_url", "redis_port", "redis_username", "redis_password", "redis_db", "redis_ssl", "cache_kwargs"]),
    not_yet(ROUTER, "caching", &["cache_responses", "caching_groups"]),
    approximated(ROUTER, "tokens are estimated: a prompt is refused when it is too long by half, and goes to the longest window when that is not certain", &["enable_pre_call_checks", "enable_pre_call_check"]),
    used(ROUTER, &["optional_pre_call_checks"]),
    not_yet(ROUTER, "prompts stay for five minutes with the deployment that has them cached", &["deployment_affinity_ttl_seconds"]),
    used(ROUTER, &["enable_tag_filtering", "tag_filtering_match_any"]),
    used(ROUTER, &["default_max_parallel_requests"]),
    not_yet(ROUTER, "priorities", &["default_priority", "polling_interval", "priority_reservation"]),
    approximated(ROUTER, BY_THE_CALENDAR, &["provider_budget_config"]),
    not_yet(ROUTER, "alerting", &["alerting_config"]),
    ignored(ROUTER, "no setting of LiteLLM's router; a request without a model goes to the first one", &["default_model"]),
    ignored(ROUTER, "connections are Envoy's, and are reused", &["client_ttl"]),
    ignored(ROUTER, "logging inside LiteLLM; use --debug", &["set_verbose", "debug_level"]),
    ignored(ROUTER, "always so, as in LiteLLM's proxy", &["ignore_invalid_deployments"]),
    ignored(ROUTER, "a switch of LiteLLM's own internals", &["router_general_settings", "assistants_config", "guardrail_list", "search_tools"]),
    used(ROUTER, &["health_check_ignore_transient_errors"]),
    approximated(ROUTER, "on with `background_health_checks`, unless it is false", &["enable_health_check_routing"]),
    approximated(ROUTER, "what was found counts for three intervals", &["health_check_staleness_threshold"]),

    // general_settings
    used(GENERAL, &[
        "master_key", "completion_model", "max_request_size_mb", "litellm_key_header_name", "forward_client_headers_to_llm_api", "keys", "database_url", "database_connection_pool_limit",
        "store_model_in_db", "disable_spend_logs", "disable_error_logs", "maximum_spend_logs_retention_period", "maximum_spend_logs_retention_interval", "user_api_key_cache_ttl", "allow_requests_on_db_unavailable",
        "disable_reset_budget", "proxy_batch_write_at", "proxy_budget_rescheduler_min_time", "proxy_budget_rescheduler_max_time", "max_parallel_requests", "global_max_parallel_requests",
        "dangerously_permit_weak_or_unset_master_key", "token_rate_limit_type", "enforce_user_param", "enforced_params", "allowed_routes", "admin_only_routes", "public_routes", "allowed_ips", "use_x_forwarded_for", "user_header_name",
    ]),
    not_yet(GENERAL, "endpoints and keys from the client: such requests are refused", &["allow_client_side_credentials"]),
    not_yet(GENERAL, "prompts in spend records: they are never kept", &["store_prompts_in_spend_logs"]),
    not_yet(GENERAL, "spend is always recorded", &["disable_spend_updates"]),
    not_yet(GENERAL, "a choice of where and how the ledger keeps its data", &["database_type", "database_args", "disable_adding_master_key_hash_to_db", "disable_master_key_return", "supported_db_objects"]),
    not_yet(GENERAL, "the user interface and single sign-on", &["custom_ui_sso_sign_in_handler", "custom_sso", "ui_access_mode", "enable_public_model_hub", "auto_redirect_ui_login_to_sso"]),
    not_yet(GENERAL, "roles of your own making", &["custom_key_generate", "default_team_disabled", "role_permissions"]),
    ignored(GENERAL, "the ledger waits for its database as long as it must", &["database_connection_timeout", "database_socket_timeout"]),
    ignored(GENERAL, "usage goes to the ledger directly", &["proxy_batch_polling_interval", "use_redis_transaction_buffer"]),
    not_yet(GENERAL, "limits of answers", &["max_response_size_mb"]),
    not_yet(GENERAL, "pass-through endpoints", &["pass_through_endpoints", "forward_openai_org_id"]),
    approximated(GENERAL, "used up budgets are told to `webhook` and `slack`; other alerts are not given", &["alerting"]),
    not_yet(GENERAL, "alerting", &["alert_types", "alert_to_webhook_url", "alerting_threshold", "alerting_args", "spend_report_frequency"]),
    used(GENERAL, &["background_health_checks", "health_check_interval", "health_check_details", "health_check_ignore_transient_errors"]),
    approximated(GENERAL, "on with `background_health_checks`, unless it is false", &["enable_health_check_routing"]),
    approximated(GENERAL, "what was found counts for three intervals", &["health_check_staleness_threshold"]),
    not_yet(GENERAL, "checks that several ledgers share; ten deployments at a time are called", &["use_shared_health_check", "health_check_concurrency"]),
    not_yet(GENERAL, "access rules", &["user_header_mappings", "block_robots", "reject_clientside_metadata_tags", "allowed_model_region"]),
    not_yet(GENERAL, "one interval for all: maximum_spend_logs_retention_interval", &["maximum_spend_logs_cleanup_cron"]),
    approximated(GENERAL, "the access log is JSON in any case", &["json_logs"]),
    not_yet(GENERAL, "callbacks", &["otel"]),
    ignored(GENERAL, "it belongs into litellm_settings, in LiteLLM too", &["default_key_generate_params", "default_internal_user_params", "default_team_params"]),
    ignored(GENERAL, "the ledger waits for its database as long as it must", &["database_statement_timeout", "database_lock_timeout", "database_idle_in_transaction_session_timeout"]),
    not_yet(GENERAL, "JWT, OAuth2 and custom authentication", &["enable_jwt_auth", "litellm_jwtauth", "enable_oauth2_auth", "enable_oauth2_proxy_auth", "oauth2_config_mappings", "custom_auth", "custom_auth_run_common_checks", "custom_auth_settings"]),
    not_yet(GENERAL, "key managers; use environment variables", &["key_management_system", "key_management_settings", "use_google_kms", "use_azure_key_vault"]),
    not_yet(GENERAL, "the provider's usage is always asked for, and hidden from clients that did not ask", &["always_include_stream_usage"]),
    not_yet(GENERAL, "models found by asking the providers", &["infer_model_from_keys"]),
    not_yet(GENERAL, "batches and files", &["enable_loadbalancing_on_batch_endpoints", "managed_files_settings"]),
    not_yet(GENERAL, "MCP", &["mcp_internal_ip_ranges", "mcp_client_side_auth_header_name", "mcp_trusted_proxy_ranges"]),
    ignored(GENERAL, "for a hosted LiteLLM", &["control_plane_url", "dynamo_db_table", "proxy_base_url", "litellm_license", "experimental_ui_login"]),

    // Smaller sections
    used("general_settings.keys[]", &[
        "token", "key_alias", "models", "max_budget", "budget_duration", "soft_budget", "tpm_limit", "rpm_limit", "max_parallel_requests", "model_rpm_limit", "model_tpm_limit",
        "model_max_budget", "budget_limits", "expires", "duration", "aliases", "metadata", "user_id", "team_id", "allowed_routes", "enforced_params", "blocked",
    ]),
    used("tollgate_settings", &["key_cache_size", "max_held_answer_bytes", "request_body_buffer_limit_bytes", "access_log", "drain_timeout", "ledger_url", "allow_client_mocks", "max_client_retries", "xff_num_trusted_hops", "upload_timeout", "max_memory_bytes", "host"]),
    used("credential_list[]", &["credential_name", "credential_values"]),
    ignored("credential_list[]", "a remark", &["credential_info"]),
    not_yet("guardrails[]", "guardrails", &["guardrail_name", "litellm_params", "guardrail_info", "guardrail_id"]),
    not_yet("files_settings[]", "the files API", CREDENTIALS),
    not_yet("finetune_settings[]", "the fine-tuning API", CREDENTIALS),
    not_yet("default_team_settings[]", "callbacks by team", TEAM),
    not_yet("litellm_settings.default_team_settings[]", "callbacks by team", TEAM),
    not_yet("general_settings.pass_through_endpoints[]", "pass-through endpoints", PASS_THROUGH),
    not_yet("pass_through_endpoints[]", "pass-through endpoints", PASS_THROUGH),
    not_yet("litellm_settings.cache_params", "caching", &[
        "type", "host", "port", "password", "username", "url", "namespace", "ttl", "mode", "supported_call_types", "redis_startup_nodes", "service_name", "sentinel_nodes", "sentinel_password", "ssl",
        "similarity_threshold", "redis_semantic_cache_embedding_model", "redis_semantic_cache_index_name", "qdrant_api_base", "qdrant_api_key", "qdrant_collection_name", "qdrant_quantization_config",
        "qdrant_semantic_cache_embedding_model", "s3_bucket_name", "s3_region_name", "s3_api_version", "s3_use_ssl", "s3_verify", "s3_endpoint_url", "s3_aws_access_key_id", "s3_aws_secret_access_key",
        "s3_aws_session_token", "s3_config", "s3_path", "disk_cache_dir", "default_in_memory_ttl", "default_in_redis_ttl", "default_in_memory_max_size", "redis_flush_size", "max_connections", "gcp_service_account", "gcs_bucket_name", "gcs_path", "db",
    ]),
    not_yet("litellm_settings.cache", "caching", &["type", "host", "port", "password", "namespace", "ttl", "supported_call_types", "s3_bucket_name", "s3_region_name", "similarity_threshold", "params"]),
];

/// Variables of LiteLLM's that say how it is run: those that are set have a row in the report, too.
#[rustfmt::skip]
pub(super) static ENVIRONMENT: &[Group] = &[
    used("", &[
        "LITELLM_MASTER_KEY", "LITELLM_SALT_KEY", "STORE_MODEL_IN_DB", "DATABASE_URL", "DATABASE_HOST", "DATABASE_PORT", "DATABASE_USER", "DATABASE_USERNAME", "DATABASE_PASSWORD", "DATABASE_NAME",
        "DATABASE_SCHEMA", "LITELLM_ENVIRONMENT", "REQUEST_TIMEOUT", "SSL_VERIFY", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY",
    ]),
    approximated("", "DEBUG is --debug", &["LITELLM_LOG"]),
    approximated("", "with another value than DEV, `.env` is not read", &["LITELLM_MODE"]),
    not_yet("", "paths below a prefix: let what is in front of the gateway take it away", &["SERVER_ROOT_PATH"]),
    not_yet("", "a read replica of the database", &["DATABASE_URL_READ_REPLICA"]),
    not_yet("", "the user interface and single sign-on", &["UI_USERNAME", "UI_PASSWORD", "GOOGLE_CLIENT_ID", "MICROSOFT_CLIENT_ID", "GENERIC_CLIENT_ID", "PROXY_ADMIN_ID"]),
    ignored("", "links are relative to where the gateway is called", &["PROXY_BASE_URL", "LITELLM_UI_API_DOC_BASE_URL"]),
    ignored("", "prices come with the gateway", &["LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_MODEL_COST_MAP_URL"]),
    ignored("", "for a licensed LiteLLM", &["LITELLM_LICENSE"]),
    ignored("", "the ledger brings its tables up to date by itself", &["DISABLE_SCHEMA_UPDATE", "USE_PRISMA_MIGRATE", "DIRECT_URL"]),
];

/// Parameters of the APIs themselves: as defaults in `litellm_params` they go into requests.
#[rustfmt::skip]
static API_PARAMETERS: &[&str] = &[
    "audio", "best_of", "dimensions", "echo", "encoding_format", "frequency_penalty", "function_call", "functions", "include", "input", "input_type", "instructions", "logit_bias", "logprobs",
    "max_completion_tokens", "max_output_tokens", "max_tokens", "messages", "min_p", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
    "quality", "reasoning", "reasoning_effort", "repetition_penalty", "response_format", "safety_identifier", "safety_settings", "seed", "service_tier", "size", "speed", "stop", "store", "stream",
    "stream_options", "style", "suffix", "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "truncation", "user", "verbosity", "voice", "web_search_options",
    "num_ctx", "num_predict", "keep_alive", "mirostat", "repeat_penalty", "task", "provider", "transforms", "route", "models", "format", "language", "stop_sequences", "betas", "background",
];

const BY_THE_CALENDAR: &str = "spend starts again with the calendar: `1d` at midnight, `1h` at the full hour";
const PARAMS: &str = "model_list[].litellm_params";
const INFO: &str = "model_list[].model_info";
const LITELLM: &str = "litellm_settings";
const ROUTER: &str = "router_settings";
const GENERAL: &str = "general_settings";
const CREDENTIALS: &[&str] = &["custom_llm_provider", "api_key", "api_base", "api_version", "organization"];
const TEAM: &[&str] = &[
    "team_id",
    "success_callback",
    "failure_callback",
    "langfuse_public_key",
    "langfuse_secret",
    "langfuse_secret_key",
    "langfuse_host",
    "langsmith_api_key",
    "langsmith_project",
    "gcs_bucket_name",
    "gcs_path_service_account",
];
const PASS_THROUGH: &[&str] = &[
    "path",
    "target",
    "headers",
    "forward_headers",
    "auth",
    "include_subpath",
    "cost_per_request",
    "merge_query_params",
    "custom_auth_parser",
    "default_query_params",
    "guardrails",
    "methods",
    "id",
];

/// Whether a place holds settings rather than being one.
pub(super) fn is_section(pattern: &str) -> bool {
    pattern == "environment_variables" || SETTINGS.iter().any(|group| group.section == pattern)
}

/// The verdict for a setting with a value.
pub(super) fn verdict(section: &str, name: &str, value: &Value) -> Verdict {
    if section == "environment_variables" {
        return Verdict::Used;
    }
    let group = SETTINGS.iter().find(|group| group.section == section && group.names.contains(&name));
    match group.map(|group| &group.verdict) {
        Some(_) if name == "routing_strategy" => routing_strategy(value),
        Some(_) if name == "optional_pre_call_checks" => optional_checks(value),
        Some(_) if name == "cache_kwargs" => redis_arguments(value),
        Some(Verdict::NotYet(_))
            if section == LITELLM && name.ends_with("callback") || name == "callbacks" =>
        {
            callbacks(value)
        }
        // Switching off what is not there is no gap.
        Some(Verdict::NotYet(_)) if is_off(value) => Verdict::Used,
        Some(verdict) => verdict.clone(),
        None if is_priced(section) && is_price(name) => Verdict::Used,
        None if section == PARAMS && API_PARAMETERS.contains(&name) => Verdict::Used,
        None if section == PARAMS && is_internal(name) => {
            Verdict::Ignored("a switch of LiteLLM's own internals".into())
        }
        None => match (section, closest(section, name)) {
            (PARAMS, None) => Verdict::Used,
            (INFO, None) => Verdict::Ignored("a remark: shown by /model/info".into()),
            (_, did_you_mean) => Verdict::Unknown { did_you_mean },
        },
    }
}

/// Which of the checks of a list are there. Budgets of deployments and providers are always checked.
fn optional_checks(value: &Value) -> Verdict {
    let known = ["prompt_caching", "router_budget_limiting"];
    let other =
        value.as_array().into_iter().flatten().filter_map(Value::as_str).find(|name| !known.contains(name));
    match other {
        None => Verdict::Used,
        Some(name) => Verdict::NotYet(format!("the check `{name}`; the others work").into()),
    }
}

/// Which arguments of a Redis client are known.
fn redis_arguments(value: &Value) -> Verdict {
    let known = ["username", "password", "port", "db", "ssl"];
    let other = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .find(|name| !known.contains(&name.as_str()));
    match other {
        None => Verdict::Used,
        Some(name) => {
            Verdict::NotYet(format!("the argument `{name}` of a Redis client; the others work").into())
        }
    }
}

/// Which of the callbacks of a list are there.
fn callbacks(value: &Value) -> Verdict {
    let single = std::slice::from_ref(value);
    let list = value.as_array().map_or(single, Vec::as_slice);
    let names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    if is_off(value) {
        return Verdict::Used;
    }
    if names.iter().any(|name| name.contains('.')) {
        return Verdict::NotYet(
            "callbacks; one in Python cannot run here: send what it needs to a webhook".into(),
        );
    }
    if !names.is_empty() && names.iter().all(|name| name.starts_with("prometheus")) {
        return Verdict::Approximated("metrics are always at /metrics, under names of this gateway".into());
    }
    Verdict::NotYet("callbacks; metrics are at /metrics without one".into())
}

/// What a strategy does differently.
fn routing_strategy(value: &Value) -> Verdict {
    match value.as_str() {
        Some("usage-based-routing" | "usage-based-routing-v2") => Verdict::Approximated(
            "a minute begins with a deployment's first request; what requests in flight will use counts too"
                .into(),
        ),
        Some("latency-based-routing") => {
            Verdict::Approximated("the newest answers are remembered; a full list drops its oldest".into())
        }
        _ => Verdict::Used,
    }
}

/// Whether a member of `litellm_params` goes into requests: everything that is neither a setting nor a price.
pub(super) fn is_default_parameter(name: &str) -> bool {
    let setting = SETTINGS.iter().any(|group| group.section == PARAMS && group.names.contains(&name));
    !setting && !is_price(name) && !is_internal(name)
}

/// Whether LiteLLM itself writes a parameter of this name for itself.
fn is_internal(name: &str) -> bool {
    name.starts_with('_') || name.starts_with("litellm_")
}

/// Whether a name is one of the many price fields (`input_cost_per_token`, `cache_read_input_token_cost`, …).
pub(super) fn is_price(name: &str) -> bool {
    name.contains("cost_per_")
        || name.ends_with("_cost")
        || name.contains("_cost_above_")
        || name.contains("_cost_")
}

fn is_priced(section: &str) -> bool {
    section == PARAMS || section == INFO
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.eq_ignore_ascii_case("false"),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The known name of a section that an unknown one may stand for.
pub(super) fn suggestion(section: &str, name: &str) -> Option<&'static str> {
    match verdict(section, name, &Value::Bool(true)) {
        Verdict::Unknown { did_you_mean } => did_you_mean,
        _ => None,
    }
}

/// The known name of a section that is at most a third of its letters away. In open sections at most three letters count:
/// an unknown name is likely meant there.
fn closest(section: &str, name: &str) -> Option<&'static str> {
    let here = SETTINGS.iter().filter(|group| group.section == section).flat_map(|group| group.names);
    let parameters = API_PARAMETERS.iter().filter(|_| section == PARAMS);
    let most = if is_priced(section) { (name.len() / 3).clamp(2, 3) } else { (name.len() / 3).clamp(1, 4) };
    let near = here.chain(parameters).copied().filter_map(|known| {
        let enough = known.len() > 3 && known.len().abs_diff(name.len()) <= most;
        let distance = if enough { distance(known, name) } else { usize::MAX };
        (distance <= most).then_some((distance, known))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// How many letters must be added, removed, changed or swapped with their neighbour to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

const fn group(section: &'static str, verdict: Verdict, names: &'static [&'static str]) -> Group {
    Group { section, verdict, names }
}

const fn used(section: &'static str, names: &'static [&'static str]) -> Group {
    group(section, Verdict::Used, names)
}

const fn approximated(section: &'static str, how: &'static str, names: &'static [&'static str]) -> Group {
    group(section, Verdict::Approximated(Cow::Borrowed(how)), names)
}

const fn not_yet(section: &'static str, what: &'static str, names: &'static [&'static str]) -> Group {
    group(section, Verdict::NotYet(Cow::Borrowed(what)), names)
}

const fn ignored(section: &'static str, why: &'static str, names: &'static [&'static str]) -> Group {
    group(section, Verdict::Ignored(Cow::Borrowed(why)), names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_setting_stands_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for group in SETTINGS {
            for name in group.names {
                assert!(seen.insert((group.section, *name)), "{}.{name}", group.section);
            }
        }
        for name in API_PARAMETERS {
            assert!(is_default_parameter(name), "{name} is both");
        }
    }

    #[test]
    fn verdicts_look_at_values() {
        assert_eq!(verdict(ROUTER, "routing_strategy", &json!("simple-shuffle")), Verdict::Used);
        assert_eq!(verdict(ROUTER, "routing_strategy", &json!("least-busy")), Verdict::Used);
        assert_eq!(
            verdict(ROUTER, "routing_strategy", &json!("latency-based-routing")).name(),
            "approximated"
        );
        assert_eq!(verdict(ROUTER, "cache_kwargs", &json!({"username": "u", "db": 1})), Verdict::Used);
        assert_eq!(verdict(ROUTER, "cache_kwargs", &json!({"db": 1, "startup_nodes": []})).name(), "not yet");
        assert_eq!(verdict(LITELLM, "cache", &json!(false)), Verdict::Used);
        assert_eq!(verdict(LITELLM, "cache", &json!(true)).name(), "not yet");
        assert_eq!(verdict(LITELLM, "callbacks", &json!(["prometheus"])).name(), "approximated");
        assert_eq!(
            verdict(LITELLM, "success_callback", &json!(["langfuse", "prometheus"])).name(),
            "not yet"
        );
        assert_eq!(verdict(LITELLM, "callbacks", &json!([])), Verdict::Used);
        assert_eq!(verdict(INFO, "description", &json!("x")), Verdict::Used);
        assert_eq!(verdict(PARAMS, "temperature", &json!(1)), Verdict::Used);
        assert_eq!(verdict(PARAMS, "some_provider_thing", &json!(1)), Verdict::Used);
        assert_eq!(verdict(INFO, "input_cost_per_token", &json!(1)), Verdict::Used);
    }

    #[test]
    fn typing_errors_get_a_suggestion() {
        let rows = [
            (ROUTER, "num_retires", Some("num_retries")),
            (GENERAL, "masterkey", Some("master_key")),
            (PARAMS, "api_bsae", Some("api_base")),
            (PARAMS, "temprature", Some("temperature")),
            ("", "modellist", Some("model_list")),
            ("", "model_lst", Some("model_list")),
            ("model_list[]", "litelm_params", Some("litellm_params")),
            (PARAMS, "max_retry", Some("max_retries")),
            (LITELLM, "zzz", None),
        ];
        for (section, name, wanted) in rows {
            let found = verdict(section, name, &json!(1));
            assert_eq!(found, Verdict::Unknown { did_you_mean: wanted }, "{name}");
        }
    }
}

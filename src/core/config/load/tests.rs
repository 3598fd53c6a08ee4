//! Tests of loading as a whole. Long, because each shows on a whole configuration what one section does to another.

use serde_json::json;

use super::*;
use crate::core::{
    config::HealthChecks,
    model::{failure::Class, fallback::Fallback},
};

const SEED: &str = include_str!("../../../../tests/fixtures/config/proxy_server_config.yaml");

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let unseal = |text: &str| text.strip_prefix("ok+").map(str::to_owned);
    load(text, &env, &unseal)
}

fn loaded(text: &str) -> Loaded {
    load_with(text, &[]).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn config(text: &str) -> Config {
    loaded(text).config
}

fn problems(text: &str) -> Vec<String> {
    load_with(text, &[]).unwrap_err().iter().map(Problem::to_string).collect()
}

/// A configuration of one entry with these `litellm_params`.
fn entry(params: &str) -> String {
    format!("model_list:\n- model_name: m\n  litellm_params: {{{params}}}\n")
}

fn only(text: &str, env: &[(&str, &str)]) -> Deployment {
    let mut config = load_with(text, env).unwrap_or_else(|problems| panic!("{problems:?}")).config;
    assert_eq!(config.deployments.len(), 1);
    config.deployments.remove(0)
}

#[test]
fn the_seed_loads_and_nothing_in_it_is_unknown() {
    let Loaded { config, report } =
        load_with(SEED, &[("OPENAI_API_KEY", "sk-o"), ("AZURE_API_KEY", "az")]).unwrap();
    assert_eq!(report.count(|verdict| verdict.name() == "unknown"), 0, "{report}");
    assert!(report.rows.iter().all(|row| row.line.is_some()));
    let line = |path: &str| report.rows.iter().find(|row| row.path == path).unwrap().line;
    assert_eq!(line("model_list[3].litellm_params.timeout"), Some(25));
    assert_eq!(line("router_settings.model_group_alias"), Some(189));

    assert_eq!(config.groups["gpt-3.5-turbo-end-user-test"].len(), 2);
    assert_eq!(config.default_model.as_deref(), Some("gpt-3.5-turbo-end-user-test"));
    assert!(config.unavailable["sagemaker-completion-model"].contains("sagemaker"));
    assert!(config.unavailable.contains_key("bedrock/*"));
    let patterns: Vec<&str> = config.wildcards.iter().map(|w| w.pattern.as_str()).collect();
    assert_eq!(patterns, ["anthropic/*", "bedrock/*", "groq/*", "*"]);
    let large = &config.deployments[config.groups["gpt-3.5-turbo-large"][0]];
    assert_eq!(
        (large.rpm, large.timeout_ms, large.stream_timeout_ms),
        (Some(480), Some(300_000), Some(60_000))
    );
    assert_eq!(large.api_key.as_ref().unwrap().reveal(), "sk-o");
    assert_eq!(config.deployments[config.groups["fake-openai-endpoint-2"][0]].stream_timeout_ms, Some(1));
    assert!(config.deployments[config.groups["bad-model"][0]].mock_timeout);
    assert_eq!((config.router.num_retries, config.router.timeout_ms), (5, 600_000));
    assert!(config.general.drop_params);
    assert_eq!(config.general.master_key.as_ref().unwrap().reveal(), "sk-1234");
    assert_eq!(config.aliases["my-special-fake-model-alias-name"].model, "fake-openai-endpoint-3");
    assert_eq!(
        config.router.context_window_fallbacks.unwrap()["gpt-3.5-turbo"][0].model,
        "gpt-3.5-turbo-large"
    );
}

#[test]
fn every_example_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let Loaded { report, .. } = load_with(&text, &[("AZURE_API_BASE", "https://a.openai.azure.com")])
            .unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
        assert_eq!(report.count(|v| v.name() == "unknown"), 0, "{}\n{report}", path.display());
        assert!(report.rows.iter().all(|row| row.line.is_some()));
        count += 1;
    }
    assert!(count >= 30, "{count}");
}

#[test]
fn loose_types_are_read_like_litellm_reads_them() {
    let text = entry(
        "model: gpt-4o, base_url: 'http://h:1/v1', timeout: '1.5', stream_timeout: os.environ/T, rpm: '60', tpm: 1e3, \
         drop_params: 'True', weight: '2', cooldown_time: 0, num_retries: '4', api_version: 2024, temperature: os.environ/TEMP, \
         max_tokens: 10, input_cost_per_token: 0.00000015, output_cost_per_token: '3e-06', logit_bias: {12: 1}, ssl_verify: 'false'",
    );
    let d = only(&text, &[("T", "30"), ("TEMP", "0.5"), ("OPENAI_API_KEY", "k\n")]);
    assert_eq!((d.timeout_ms, d.stream_timeout_ms), (Some(1500), Some(30_000)));
    assert_eq!((d.rpm, d.tpm, d.weight), (Some(60), Some(1000), Some(2.0)));
    assert_eq!((d.drop_params, d.num_retries, d.cooldown_ms), (Some(true), Some(4), Some(0)));
    assert_eq!((d.endpoint.host.as_str(), d.endpoint.port, d.endpoint.verify), ("h", 1, false));
    assert_eq!(d.api_version.as_deref(), Some("2024"));
    assert_eq!(
        Value::Object(d.defaults),
        json!({"temperature": 0.5, "max_tokens": 10, "logit_bias": {"12": 1}})
    );
    let price = |name: &str| d.prices.iter().find(|(n, _)| n == name).map(|(_, price)| price.as_str());
    assert_eq!(price("input_cost_per_token"), Some("0.00000015"));
    assert_eq!(price("output_cost_per_token"), Some("0.000003"));
    assert_eq!(d.api_key.unwrap().reveal(), "k");
}

#[test]
fn references() {
    let text = "
environment_variables: {OPENAI_API_KEY: from-file, PORT: 1, EMPTY: null, COPY: os.environ/OUTSIDE}
model_list:
- model_name: a
  litellm_params: {model: gpt-4o}
- model_name: b
  litellm_params: {model: gpt-4o, api_key: os.environ/NOBODY, organization: os.environ/COPY}
- model_name: c
  litellm_params: {model: gpt-4o, api_key: sealed/ok+sk-9}
";
    let config = load_with(text, &[("OPENAI_API_KEY", "from-env"), ("OUTSIDE", "org")]).unwrap().config;
    let key = |at: usize| config.deployments[at].api_key.as_ref().unwrap().reveal();
    assert_eq!((key(0), key(1), key(2)), ("from-file", "from-file", "sk-9"));
    assert_eq!(config.deployments[1].organization.as_deref(), Some("org"));
    let found = problems(&text.replace("sealed/ok+", "sealed/"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("line 9: `model_list[2].litellm_params.api_key`: expected a sealed"),
        "{found:?}"
    );
}

#[test]
fn a_master_key_that_is_not_set_shuts_everybody_out() {
    let text = "general_settings:\n  master_key: os.environ/NOBODY\n";
    let Loaded { config, report } = loaded(text);
    assert!(config.general.master_key.unwrap().reveal().contains('\0'));
    assert!(report.rows[0].note.contains("NOBODY is not set"), "{report}");
    assert!(loaded("model_list: []").config.general.master_key.is_none());
    let config = load_with(text, &[("LITELLM_MASTER_KEY", "sk-2")]).unwrap().config;
    assert_eq!(config.general.master_key.unwrap().reveal(), "sk-2");
}

#[test]
fn an_empty_master_key_is_none_of_the_keys_and_no_open_door() {
    let empty = "expected a key, found nothing";
    let rows = [
        ("general_settings: {master_key: ''}", &[][..], "`general_settings.master_key`: "),
        ("general_settings: {master_key: '  '}", &[], "`general_settings.master_key`: "),
        ("general_settings: {master_key: null}", &[], "`general_settings.master_key`: "),
        ("general_settings:\n  master_key:\n", &[], "`general_settings.master_key`: "),
        (
            "general_settings: {master_key: os.environ/KEY}",
            &[("KEY", " ")],
            "`general_settings.master_key`: ",
        ),
        ("model_list: []", &[("LITELLM_MASTER_KEY", "")], "`LITELLM_MASTER_KEY`: "),
        ("environment_variables: {LITELLM_MASTER_KEY: ' '}", &[], "`LITELLM_MASTER_KEY`: "),
    ];
    for (text, env, setting) in rows {
        let found = load_with(text, env).map(|_| ()).unwrap_err();
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let told = found[0].to_string();
        assert!(told.contains(setting) && told.contains(empty), "{text}: {told}");
    }
    let key = |text: &str, env: &[(&str, &str)]| {
        load_with(text, env).unwrap().config.general.master_key.unwrap().reveal().to_owned()
    };
    // The environment's key counts where the file has none.
    assert_eq!(key("general_settings: {master_key: null}", &[("LITELLM_MASTER_KEY", "sk-2")]), "sk-2");
    assert_eq!(key("general_settings: {master_key: sk-1}", &[("LITELLM_MASTER_KEY", "")]), "sk-1");
    // A variable that is empty is like one that is not set: no client gets in.
    assert!(key("general_settings: {master_key: os.environ/KEY}", &[("KEY", "")]).contains('\0'));
    let misspelt = problems("general_settings:\n  masterkey: sk-1\n");
    assert_eq!(misspelt.len(), 1, "{misspelt:?}");
    assert!(
        misspelt[0].contains("`general_settings.masterkey`")
            && misspelt[0].contains("did you mean master_key?")
    );
    assert!(!misspelt[0].contains("sk-1"));
    assert!(load_with("general_settings: {masterkey: x}", &[("LITELLM_MASTER_KEY", "sk-2")]).is_ok());
}

#[test]
fn an_address_that_is_not_set_sends_no_prompt_elsewhere() {
    let by_credential = "
model_list:
- {model_name: a, litellm_params: {model: openai/x, litellm_credential_name: c}}
- {model_name: b, litellm_params: {model: openai/x, litellm_credential_name: c, api_base: 'http://h/v1'}}
credential_list:
- {credential_name: c, credential_values: {api_key: k, api_base: os.environ/NOBODY}}
";
    let by_default = "
model_list:
- {model_name: a, litellm_params: {model: openai/x}}
- {model_name: b, litellm_params: {model: openai/x, api_base: 'http://h/v1'}}
router_settings: {default_litellm_params: {api_base: os.environ/NOBODY}}
";
    for text in [by_credential, by_default] {
        let config = load_with(text, &[("OPENAI_API_BASE", "http://other/v1")]).unwrap().config;
        assert!(config.unavailable["a"].contains("NOBODY is not set"), "{text}");
        let places: Vec<&str> = config.deployments.iter().map(|d| d.endpoint.host.as_str()).collect();
        assert_eq!(places, ["h"], "{text}");
    }
}

#[test]
fn entries_that_litellm_starts_with_are_left_out_and_told() {
    let text = "
model_list:
- model_name: a
  litellm_params: {model: openai/x, tpm: 100_000, drop_params: [tool_choice], api_key: '${OPENAI_API_KEY}'}
- model_name: b
- model_name: c
  litelm_params: {model: openai/x}
litellm_settings: {drop_params: ['tool_choice']}
";
    let Loaded { config, report } = loaded(text);
    assert_eq!(config.deployments.len(), 1);
    assert_eq!((config.deployments[0].tpm, config.deployments[0].drop_params), (Some(100_000), Some(false)));
    assert!(!config.general.drop_params);
    assert_eq!(config.unavailable["b"], "it has no litellm_params");
    let typo = "it has no litellm_params, but `litelm_params`: did you mean litellm_params?";
    assert_eq!(config.unavailable["c"], typo);
    let row = |path: &str| {
        let row = report.rows.iter().find(|row| row.path == path).unwrap();
        (row.verdict.name(), row.note.clone())
    };
    assert_eq!(row("model_list[1].model_name").0, "missing");
    assert_eq!(row("model_list[2].litelm_params"), ("missing", format!("{typo}; the entry is left out")));
    assert_eq!(row("litellm_settings.drop_params").0, "ignored");
    let (verdict, note) = row("model_list[0].litellm_params.api_key");
    assert!(verdict == "missing" && note.ends_with("write os.environ/OPENAI_API_KEY"), "{note}");
}

#[test]
fn the_database_is_named_as_in_litellm() {
    let url = |text: &str, env: &[(&str, &str)]| {
        load_with(text, env)
            .map(|loaded| loaded.config.ledger.database_url.map(|url| url.reveal().to_owned()))
    };
    let parts = [
        ("DATABASE_HOST", "db"),
        ("DATABASE_USERNAME", "u@x"),
        ("DATABASE_PASSWORD", "p/w:d"),
        ("DATABASE_NAME", "n"),
    ];
    let made = Some("postgresql://u%40x:p%2Fw%3Ad@db/n".to_owned());
    assert_eq!(url("", &parts).unwrap(), made);
    let unset = "general_settings: {database_url: os.environ/NOBODY}";
    assert_eq!(url(unset, &parts).unwrap(), made);
    let more = [parts.to_vec(), vec![("DATABASE_PORT", "5433"), ("DATABASE_SCHEMA", "s")]].concat();
    assert_eq!(url("", &more).unwrap().unwrap(), "postgresql://u%40x:p%2Fw%3Ad@db:5433/n?schema=s");
    assert_eq!(url("", &parts[..3]).unwrap(), None);
    let whole = [parts.to_vec(), vec![("DATABASE_URL", "postgres://whole/n")]].concat();
    assert_eq!(url("", &whole).unwrap().unwrap(), "postgres://whole/n");
    for (text, env, setting) in [
        (
            "general_settings: {database_url: 'mysql://u:hidden@h/n'}",
            &[][..],
            "`general_settings.database_url`",
        ),
        ("", &[("DATABASE_URL", "mysql://u:hidden@h/n")], "`DATABASE_URL`"),
    ] {
        let told = url(text, env).unwrap_err()[0].to_string();
        assert!(
            told.contains(setting) && told.contains("postgresql://") && !told.contains("hidden"),
            "{told}"
        );
    }
    let stores =
        |text: &str, env: &[(&str, &str)]| load_with(text, env).unwrap().config.ledger.store_model_in_db;
    assert!(stores("", &[("STORE_MODEL_IN_DB", "True")]));
    assert!(stores("general_settings: {store_model_in_db: true}", &[("STORE_MODEL_IN_DB", "False")]));
    assert!(!stores("", &[("STORE_MODEL_IN_DB", "False")]));
}

#[test]
fn problems_name_line_setting_expectation_and_fix() {
    let rows = [
        (
            "model_list: x",
            "line 1: `model_list`: expected a list, found a text; begin each entry with a dash",
        ),
        (
            "- a",
            "line 1: expected a map with model_list and other settings at the top level; begin the file with `model_list:`",
        ),
        (
            "model_list:\n- model_name: a\n  litellm_params:\n    model: gpt-4o\n    timeout: soon\n",
            "line 5: `model_list[0].litellm_params.timeout`: expected a number of seconds, found a text; write a number that is not negative",
        ),
        (
            "model_list:\n- litellm_params: {model: x}\n",
            "line 2: `model_list[0].model_name`: expected a text; every entry needs a model_name and a litellm_params.model",
        ),
        (
            "router_settings:\n  num_retries: -1\n",
            "line 2: `router_settings.num_retries`: expected a whole number, found a number out of range; write a number that is not negative",
        ),
        (
            "include: [a.yaml]",
            "line 1: `include`: expected the included files' text in place: the filter cannot read files; start with `tollgate --config`, which resolves it, or paste the files in",
        ),
    ];
    for (text, wanted) in rows {
        assert_eq!(problems(text), [wanted]);
    }
    assert!(problems("a: [\n")[0].contains("not valid YAML"));
    assert!(problems(&entry("model: gpt-4o, headers: {\"a b\": c}"))[0].contains("headers.a b"));
    assert!(problems(&entry("model: gpt-4o, api_key: \"a\\nb\""))[0].contains("one line"));
    assert!(!problems(&entry("model: gpt-4o, timeout: sk-secret"))[0].contains("sk-secret"));
}

#[test]
fn ids_and_clusters() {
    let text = "
model_list:
- {model_name: 'GPT 4/o*', litellm_params: {model: gpt-4o, api_key: os.environ/K, organization: [o1, o2]}}
- {model_name: b, litellm_params: {model: gpt-4o}, model_info: {id: 7}}
- {model_name: b, litellm_params: {model: gpt-4o-mini}}
- {model_name: b, litellm_params: {model: gpt-4o-mini}}
";
    let one = config(text);
    let other = load_with(text, &[("K", "changed")]).unwrap().config;
    let names = |config: &Config| -> Vec<(String, String)> {
        config.deployments.iter().map(|d| (d.id.clone(), d.cluster.clone())).collect()
    };
    assert_eq!(names(&one), names(&other), "the environment changes no name");
    assert_eq!(one.deployments[2].id, "7");
    assert_eq!(one.deployments[2].model_info["id"], json!("7"));
    assert_eq!(one.deployments[4].id, format!("{}-2", one.deployments[3].id));
    assert_eq!(one.deployments[0].id.len(), 64);
    assert!(one.deployments[0].cluster.starts_with("gpt-4-o-"), "{}", one.deployments[0].cluster);
    let mut clusters: Vec<&String> = one.deployments.iter().map(|d| &d.cluster).collect();
    clusters.sort();
    clusters.dedup();
    assert_eq!(clusters.len(), 5);
    assert!(one.deployments.iter().map(|d| d.organization.as_deref()).take(2).eq([Some("o1"), Some("o2")]));

    let sealed = entry("model: gpt-4o, api_key: sealed/ok+x");
    let plain = entry("model: gpt-4o, api_key: x");
    assert_eq!(only(&sealed, &[]).id, only(&plain, &[]).id, "sealing changes no id");
    let twice = "model_list:\n- {model_name: a, litellm_params: {model: gpt-4o}, model_info: {id: x}}\n\
                 - {model_name: b, litellm_params: {model: gpt-4o}, model_info: {id: x}}\n";
    assert!(
        problems(twice)[0].starts_with("line 3: `model_list[1].model_info.id`: expected an id of its own")
    );
}

/// While one configuration takes the place of another, both are in use: a cluster's name must not change its meaning.
#[test]
fn a_cluster_is_named_by_what_it_leads_to() {
    let names = |list: &[(&str, &str)]| -> Vec<String> {
        let entries = list.iter().map(|(id, params)| {
            format!(
                "- {{model_name: m, litellm_params: {{model: openai/x, {params}}}, model_info: {{id: {id}}}}}\n"
            )
        });
        let config = config(&format!("model_list:\n{}", entries.collect::<String>()));
        config.deployments.into_iter().map(|d| d.cluster).collect()
    };
    let base = "api_base: 'http://h:1/v1', api_key: k";
    let before = names(&[("a", base), ("b", base)]);
    assert_ne!(before[0], before[1]);
    assert_eq!(names(&[("b", base)]), before[1..], "whatever stands before it");
    assert_eq!(names(&[("a", "api_base: 'http://h:1/v2', api_key: other")]), before[..1]);
    for moved in ["api_base: 'http://h:2/v1'", "api_base: 'https://h:1/v1'", "api_base: 'http://i:1/v1'"] {
        assert_ne!(names(&[("a", moved)]), before[..1], "{moved}");
    }
    let tls = "api_base: 'https://h/v1'";
    assert_ne!(names(&[("a", tls)]), names(&[("a", &format!("{tls}, ssl_verify: false"))]));
}

#[test]
fn a_bare_star_is_one_deployment_for_each_brand() {
    let config = load_with(
        "model_list:\n- model_name: '*'\n  litellm_params: {model: '*'}\n",
        &[("GROQ_API_KEY", "gk"), ("AZURE_API_BASE", "https://me.openai.azure.com")],
    )
    .unwrap()
    .config;
    let of = |name: &str| config.deployments.iter().find(|d| d.brand.name == name);
    assert!(of("openai").is_some() && of("azure").is_some() && of("hosted_vllm").is_none());
    let groq = of("groq").unwrap();
    assert_eq!(groq.api_key.as_ref().unwrap().reveal(), "gk");
    assert!(groq.only_inferred && groq.cluster.ends_with("-groq") && groq.cluster.starts_with("any-"));
    assert!(config.deployments.iter().all(|d| {
        d.cluster.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    }));
}

#[test]
fn credentials_and_default_parameters_go_underneath() {
    let text = "
credential_list:
- credential_name: c
  credential_values: {api_key: os.environ/CK, api_base: 'https://x.openai.azure.com', api_version: v1}
router_settings:
  default_litellm_params: {max_tokens: 5, api_version: v9, temperature: 1}
model_list:
- model_name: a
  litellm_params: {model: azure/d, litellm_credential_name: c, temperature: 0}
";
    let d = only(text, &[("CK", "key")]);
    assert_eq!(d.api_key.unwrap().reveal(), "key");
    assert_eq!((d.api_version.as_deref(), d.endpoint.host.as_str()), (Some("v1"), "x.openai.azure.com"));
    assert_eq!(Value::Object(d.defaults), json!({"temperature": 0, "max_tokens": 5}));
}

#[test]
fn router_settings_before_litellm_settings_before_defaults() {
    let defaults = config("");
    assert_eq!(
        (defaults.router.num_retries, defaults.router.timeout_ms, defaults.router.max_fallbacks),
        (2, 6_000_000, 5)
    );
    assert_eq!((defaults.router.cooldown_ms, defaults.router.allowed_fails), (5_000, None));
    assert_eq!(defaults.general.max_held_answer_bytes, 262_144);
    assert_eq!(defaults.tollgate.access_log, "stdout");

    let text = "
litellm_settings:
  num_retries: 9
  request_timeout: 10
  allowed_fails: 3
  fallbacks: [{a: [b, {model: c, temperature: 0}]}, {a: [never]}]
  default_fallbacks: [d]
  model_alias_map: {old: new}
router_settings:
  num_retries: 1
  retry_after: 2
  retry_policy: {RateLimitErrorRetries: 3, TimeoutErrorRetries: 0}
  model_group_retry_policy: {g: {BadRequestErrorRetries: 1}}
  allowed_fails_policy: {InternalServerErrorAllowedFails: 7}
  content_policy_fallbacks: []
  model_group_alias: {x: y, z: {model: y, hidden: true}}
tollgate_settings: {drain_timeout: 1.5, request_body_buffer_limit_bytes: 1}
";
    let config = config(text);
    let router = &config.router;
    assert_eq!((router.num_retries, router.timeout_ms, router.retry_after_ms), (1, 10_000, 2_000));
    assert_eq!(router.allowed_fails, None, "3 is LiteLLM's default");
    assert_eq!(router.retry_policy[&Class::RateLimit], 3);
    assert_eq!(router.retry_policy[&Class::Timeout], 0);
    assert_eq!(router.model_group_retry_policy["g"][&Class::BadRequest], 1);
    assert_eq!(router.allowed_fails_policy[&Class::InternalServer], 7);
    assert_eq!(router.fallbacks["a"][0], Fallback { model: "b".into(), ..Fallback::default() });
    assert_eq!(router.fallbacks["a"][1].overrides["temperature"], json!(0));
    assert_eq!(router.fallbacks["*"][0].model, "d");
    assert!(router.context_window_fallbacks.is_none());
    assert!(router.content_policy_fallbacks.is_none(), "an empty list counts as none");
    assert_eq!(config.renames["old"], "new");
    assert!(config.aliases["z"].hidden && !config.aliases["x"].hidden);
    assert_eq!(config.tollgate.drain_timeout_ms, 1_500);
}

#[test]
fn what_cannot_be_called_is_left_out_with_a_reason() {
    let rows = [
        ("model: bedrock/x", "not yet", "provider `bedrock` cannot be called yet"),
        ("model: my-model", "ignored", "LLM Provider NOT provided"),
        ("model: azure/x", "ignored", "provider `azure` needs an api_base"),
        ("model: ollama/x, api_base: nonsense", "ignored", "not a URL to call"),
        ("model: os.environ/NOBODY", "missing", "NOBODY is not set, which names its model"),
        (
            "model: openai/x, api_base: os.environ/NOBODY",
            "missing",
            "NOBODY is not set, which names its api_base",
        ),
        (
            "model: openai/x, base_url: os.environ/NOBODY",
            "missing",
            "NOBODY is not set, which names its api_base",
        ),
        ("modle: openai/x", "missing", "it has no litellm_params.model, but `modle`: did you mean model?"),
    ];
    for (params, verdict, reason) in rows {
        let Loaded { config, report } = loaded(&entry(params));
        assert!(config.deployments.is_empty() && config.groups.is_empty());
        assert!(config.unavailable["m"].contains(reason), "{params}");
        let row = report.rows.iter().find(|row| row.note.contains(reason)).unwrap();
        assert_eq!(row.verdict.name(), verdict, "{report}");
        assert!(report.rows.iter().all(|row| row.verdict.name() != "used"), "{report}");
    }
}

#[test]
fn a_variable_that_is_not_set_is_reported() {
    let text = entry("model: gpt-4o, api_key: os.environ/NOBODY, azure_ad_token: oidc/github/x");
    let Loaded { config, report } = loaded(&text);
    assert!(config.deployments[0].api_key.is_none() && config.deployments[0].azure_ad_token.is_none());
    let note = |name: &str| report.rows.iter().find(|row| row.path.ends_with(name)).unwrap().note.as_str();
    assert_eq!(note("api_key"), "environment variable NOBODY is not set: the provider gets no key");
    assert_eq!(note("azure_ad_token"), "tokens fetched from an OIDC provider");
}

#[test]
fn a_prompt_template_is_read() {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/config/proxy_docs_prompt_template.yaml"
    ));
    let d = only(&text.unwrap().replace("<your-api-base>", "http://tgi:80"), &[]);
    let template = d.template.unwrap();
    assert_eq!((template.initial.as_str(), template.bos.as_str()), ("\n", "<s>"));
    assert_eq!(template.roles["user"], ("<|im_start|>user\n".to_owned(), "<|im_end|>".to_owned()));
    assert_eq!(Value::Object(d.defaults), json!({"max_tokens": 4096}));
}

#[test]
fn no_secret_is_ever_shown() {
    let text = "
model_list:
- model_name: a
  litellm_params:
    model: openai/x
    api_key: SECRET
    api_base: https://h/v1?key=SECRET
    organization: os.environ/SECRET_ORG
    aws_access_key_id: SECRET
    vertex_credentials: '{\"x\": \"SECRET\"}'
    extra_headers: {x-key: SECRET}
    extra_body: {user: me, vendor_pass: SECRET, inner: {client_secret: SECRET, os: os.environ/SECRET_2}}
    temperature: 0.1
    api_kye: sk-SECRET
  model_info: {note: os.environ/SECRET_3, secret_key: SECRET, mode: chat}
general_settings: {master_key: SECRET}
";
    let Loaded { config, report } =
        load_with(text, &[("SECRET_ORG", "SECRET"), ("SECRET_2", "SECRET"), ("SECRET_3", "SECRET")]).unwrap();
    let info = config.model_info();
    assert!(!info.to_string().contains("SECRET"), "{info}");
    assert_eq!(info["data"][0]["litellm_params"]["temperature"], json!(0.1));
    // What providers are sent besides may be a key by any name.
    assert_eq!(info["data"][0]["litellm_params"].get("extra_body"), None);
    assert_eq!(info["data"][0]["litellm_params"]["api_base"], json!("https://h/v1"));
    assert_eq!(info["data"][0]["model_info"]["mode"], json!("chat"));
    assert!(!report.table().contains("SECRET"));
    let secrets = format!(
        "{:?} {:?} {:?}",
        config.general, config.deployments[0].api_key, config.deployments[0].headers
    );
    assert!(!secrets.contains("SECRET"), "{secrets}");
}

#[test]
fn model_info_is_completed_from_the_price_data() {
    let text = "model_list:\n- model_name: m\n  litellm_params: {model: gpt-4o, input_cost_per_token: 0.5}\n  \
                model_info: {mode: mine}\n";
    let info = &loaded(text).config.model_info()["data"][0]["model_info"];
    assert_eq!(info["mode"], json!("mine"));
    assert_eq!(info["input_cost_per_token"], json!(0.5));
    assert_eq!(info["output_cost_per_token"], json!(1e-5));
    assert_eq!((&info["max_input_tokens"], &info["litellm_provider"]), (&json!(128_000), &json!("openai")));
}

#[test]
fn the_report_suggests_and_counts() {
    let report =
        loaded("litellm_setings: {}\nrouter_settings:\n  num_retires: 1\n  timeout: 3\nzzzzzz: 1\n").report;
    assert_eq!(report.rows[0].note, "did you mean litellm_settings?");
    assert_eq!(report.rows[1].note, "did you mean num_retries?");
    let table = report.table();
    assert!(table.ends_with("4 settings: 1 used, 3 unknown"), "{table}");
    assert!(
        table.contains("   3  router_settings.num_retires  unknown       did you mean num_retries?"),
        "{table}"
    );
}

#[test]
fn broken_text_is_a_problem_and_never_a_panic() {
    for end in (0..SEED.len()).step_by(97) {
        _ = load_with(&SEED[..end], &[]);
    }
    for (at, byte) in SEED.bytes().enumerate().step_by(61) {
        let mut text = SEED.to_owned().into_bytes();
        text[at] = [b' ', b'-', b':', b'{', b'"', b'#', b'&', b'\n'][at % 8];
        assert!(byte.is_ascii());
        _ = load_with(std::str::from_utf8(&text).unwrap(), &[]);
    }
    for value in ["null", "1", "[]", "{}", "[1, {a: b}]", "'os.environ/X'", "-1.5", "[[[]]]", "\"\\0\""] {
        for section in
            ["model_list", "router_settings", "litellm_settings", "general_settings", "credential_list"]
        {
            _ = load_with(&format!("{section}: {value}"), &[]);
            _ = load_with(&format!("{section}: {{fallbacks: {value}, model_group_alias: {value}}}"), &[]);
            _ = load_with(&format!("{section}:\n- {{model_name: {value}, litellm_params: {value}}}"), &[]);
        }
        for name in ["model", "api_base", "headers", "roles", "timeout", "organization", "extra_body", "rpm"]
        {
            _ = load_with(&entry(&format!("model: gpt-4o, {name}: {value}")), &[]);
        }
    }
}

#[test]
fn health_checks_are_read() {
    let health = |text: &str| config(text).ledger.health;
    let standard = HealthChecks::default();
    assert_eq!(health("model_list: []"), standard);
    assert!(!standard.steer() && standard.details && standard.interval_ms == 300_000);
    let set = health(
        "general_settings: {background_health_checks: true, health_check_interval: 0.5, health_check_details: false,
          enable_health_check_routing: false, health_check_ignore_transient_errors: true}",
    );
    let all = HealthChecks {
        in_background: true,
        interval_ms: 500,
        details: false,
        routing: false,
        ignore_transient: true,
    };
    assert_eq!(set, all);
    assert!(!set.steer());
    assert!(health("general_settings: {background_health_checks: true}").steer());
    let by_router = "general_settings: {background_health_checks: true}
router_settings: {enable_health_check_routing: false, health_check_ignore_transient_errors: true}";
    assert!(!health(by_router).steer() && health(by_router).ignore_transient);
    assert_eq!(health("general_settings: {health_check_interval: 0.001}").interval_ms, 100);
}

#[test]
fn a_wildcard_called_by_its_id_asks_for_its_health_check_model() {
    let with = |model: &str, info: &str| {
        only(
            &format!(
                "model_list:
- {{model_name: '*', litellm_params: {{model: {model}}}, model_info: {{id: i{info}}}}}"
            ),
            &[],
        )
    };
    let rows = [
        ("'groq/*'", ", health_check_model: groq/llama-3", "i", "llama-3"),
        ("'groq/*'", ", health_check_model: llama-3", "i", "llama-3"),
        ("'groq/*'", ", health_check_model: groq/llama-3", "groq/x", "*"),
        ("'groq/*'", "", "i", "*"),
        ("groq/own", ", health_check_model: groq/llama-3", "i", "own"),
    ];
    for (model, info, requested, expected) in rows {
        assert_eq!(with(model, info).model_for(requested, &[]), expected, "{model} {info} {requested}");
    }
}

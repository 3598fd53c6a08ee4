//! Golden file, and validation by a real Envoy.

use std::{env, fs, path::PathBuf, process::Command};

use serde_json::Value;

use super::*;
use crate::control::checked;

fn setup() -> Setup {
    Setup {
        host: "0.0.0.0".to_owned(),
        port: 4000,
        tls: None,
        module: Module::Wasm("/etc/envoy/tollgate.wasm".to_owned()),
        variables: vec!["OPENAI_API_KEY".to_owned(), "TOLLGATE_SEAL_KEY".to_owned()],
        ledger: None,
        admin: Admin::Loopback(9901),
        authorities: "/etc/ssl/certs/ca-certificates.crt".to_owned(),
        max_memory_bytes: None,
    }
}

fn sample_config() -> Config {
    let document = "
model_list:
- {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o, api_base: 'https://api.example.com/v1', api_key: k}}
- {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o, api_base: 'https://10.0.0.7:8443/v1', api_key: k, ssl_verify: false}}
- {model_name: local, litellm_params: {model: openai/llama, api_base: 'http://vllm.internal:8000', api_key: k}}
- {model_name: local6, litellm_params: {model: openai/llama, api_base: 'http://[::1]:8000', api_key: k}}
";
    checked::check_with(document, None, &|_| None).unwrap().config
}

const DOCUMENT: &str = "model_list:\n- model_name: gpt-4o\n";

fn check_golden(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/envoy").join(name);
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        golden == text,
        "{} differs from what is written now; UPDATE=1 rewrites it:\n{text}",
        file.display()
    );
}

#[test]
fn bootstrap_is_golden() {
    let (config, setup) = (sample_config(), setup());
    let gateway =
        Gateway { config: &config, document: DOCUMENT, setup: &setup, access_log: &AccessLog::Stdout };
    check_golden("static.yaml", &serde_yaml::to_string(&bootstrap::fixed(&gateway)).unwrap());
}

fn with_ledger(at: LedgerAddress) -> Setup {
    Setup { ledger: Some(Ledger { at, interval_ms: 250 }), ..setup() }
}

fn remote(url: &str) -> LedgerAddress {
    LedgerAddress::Remote(Endpoint::parse(url).unwrap())
}

#[test]
fn the_way_to_the_ledger_is_golden() {
    let mut text = String::new();
    for at in [
        LedgerAddress::Socket("/run/tollgate/ledger.sock".into()),
        remote("http://10.0.0.9:4001"),
        remote("http://ledger.internal:4001"),
        remote("https://ledger.example.com"),
    ] {
        let cluster = ledger::clusters(&with_ledger(at)).remove(0);
        text += &format!("---\n{}", serde_yaml::to_string(&cluster).unwrap());
    }
    let mut extension = filter::extension(&with_ledger(remote("http://x"))).unwrap();
    // Which is looked at below.
    extension.pointer_mut("/typed_config/config").unwrap().as_object_mut().unwrap().remove("vm_config");
    text += &format!("---\n{}", serde_yaml::to_string(&extension).unwrap());
    check_golden("ledger.yaml", &text);
}

#[test]
fn without_a_ledger_nothing_leads_to_one() {
    let config = sample_config();
    let names = |setup: &Setup| {
        let gateway = Gateway { config: &config, document: DOCUMENT, setup, access_log: &AccessLog::Off };
        let (fixed, served) =
            (bootstrap::fixed(&gateway), bootstrap::served(setup, std::path::Path::new("/s")));
        let listener = listener::listener(&gateway, None).to_string();
        [fixed.to_string(), served.to_string(), listener].map(|text| text.contains("tollgate_ledger"))
    };
    assert_eq!(names(&setup()), [false; 3]);
    assert_eq!(names(&with_ledger(remote("http://x"))), [true; 3]);
}

#[test]
fn all_roles_share_one_vm_config() {
    let (config, setup) = (sample_config(), with_ledger(remote("http://x")));
    let gateway = Gateway { config: &config, document: DOCUMENT, setup: &setup, access_log: &AccessLog::Off };
    let mut found = Vec::new();
    collect(&bootstrap::fixed(&gateway), "vm_config", &mut found);
    assert_eq!(found.len(), 3, "one policy role, one provider role, one sync role");
    let texts: Vec<String> = found.iter().map(Value::to_string).collect();
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn settings_reach_envoy() {
    let setup = Setup { tls: Some(("c.pem".into(), "k.pem".into())), host: "[::]".to_owned(), ..setup() };
    let mut config = sample_config();
    config.tollgate.request_body_buffer_limit_bytes = 64 << 20;
    config.general.max_request_bytes = Some(1 << 10);
    config.router.timeout_ms = 9_000_000;
    let log = AccessLog::File("/var/log/x".to_owned());
    let gateway = Gateway { config: &config, document: DOCUMENT, setup: &setup, access_log: &log };
    let listener = listener::listener(&gateway, None).to_string();
    for expected in [
        r#""request_body_buffer_limit":67108864"#,
        r#""stream_idle_timeout":"9060s""#,
        r#""path":"/var/log/x""#,
        r#""certificate_chain":{"filename":"c.pem"}"#,
        r#""address":"::""#,
    ] {
        assert!(listener.contains(expected), "{expected} is missing in {listener}");
    }
    // Responses are held under the same limit: small requests make no small responses. The filter refuses what is larger.
    config.tollgate.request_body_buffer_limit_bytes = 1 << 20;
    let gateway = Gateway { config: &config, document: DOCUMENT, setup: &setup, access_log: &log };
    let listener = listener::listener(&gateway, None).to_string();
    assert!(listener.contains(r#""request_body_buffer_limit":33554432"#), "{listener}");
}

#[test]
fn envoy_accepts_what_is_written() {
    let Some(envoy) = env::var_os("TOLLGATE_ENVOY") else {
        println!("skipped: TOLLGATE_ENVOY names no Envoy");
        return;
    };
    let folder = env::temp_dir().join(format!("tollgate-validate-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let module = folder.join("empty.wasm");
    fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
    let setup = Setup {
        module: Module::Wasm(module.display().to_string()),
        admin: Admin::Socket(folder.join("admin.sock")),
        ..setup()
    };
    let mut nothing = sample_config();
    nothing.deployments.clear();
    let ledgers = [
        None,
        Some(LedgerAddress::Socket(folder.join("ledger.sock"))),
        Some(remote("http://10.0.0.9:4001")),
        Some(remote("http://ledger.internal:4001")),
        Some(remote("https://ledger.example.com")),
    ];
    let plain = AccessLog::Stdout;
    let samples = ledgers.into_iter().map(|at| (format!("sample, {at:?}"), sample_config(), &plain, at));
    let file = AccessLog::File("/dev/null".to_owned());
    for (name, config, log, at) in samples.chain([("nothing callable".to_owned(), nothing, &file, None)]) {
        let setup = Setup { ledger: at.map(|at| Ledger { at, interval_ms: 250 }), ..setup.clone() };
        let gateway = Gateway { config: &config, document: DOCUMENT, setup: &setup, access_log: log };
        let file = folder.join("envoy.json");
        fs::write(&file, without_plugins(bootstrap::fixed(&gateway)).to_string()).unwrap();
        let output = Command::new(&envoy).args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {log}");
        assert!(!log.to_lowercase().contains("deprecated"), "{name}: {log}");
    }
    fs::remove_dir_all(folder).unwrap();
}

/// Validation loads the module, and an empty one is refused: the filters themselves are looked at by the tests that run
/// the gateway.
fn without_plugins(mut bootstrap: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Array(entries) => {
                entries.retain(|entry| {
                    !entry
                        .get("name")
                        .and_then(Value::as_str)
                        .is_some_and(|name| name.starts_with("tollgate.") || name == "envoy.bootstrap.wasm")
                });
                entries.iter_mut().for_each(walk);
            }
            Value::Object(members) => members.values_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut bootstrap);
    bootstrap
}

fn collect(value: &Value, name: &str, found: &mut Vec<Value>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(name).cloned());
            members.values().for_each(|value| collect(value, name, found));
        }
        Value::Array(entries) => entries.iter().for_each(|value| collect(value, name, found)),
        _ => {}
    }
}

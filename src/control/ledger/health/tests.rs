//! Checks against a gateway that is a thread of the test, and what the ledger says of them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

use serde_json::{Value, json};

use super::*;
use crate::control::ledger::testing::{Ledger, MASTER, on_each};

const MODELS: &str = "
model_list:
  - {model_name: chat, litellm_params: {model: openai/gpt-4o, api_key: sk-of-good, api_base: 'http://good:1/v1'}, model_info: {id: good}}
  - model_name: chat
    litellm_params: {model: openai/gpt-4o, api_key: sk-of-bad, timeout: 5}
    model_info: {id: bad, disable_background_health_check: true}
  - {model_name: words, litellm_params: {model: openai/gpt-3.5-turbo-instruct, api_key: k}, model_info: {id: words}}
  - model_name: numbers
    litellm_params: {model: openai/text-embedding-3-small, api_key: k}
    model_info: {id: numbers, health_check_timeout: 7}
  - {model_name: pictures, litellm_params: {model: openai/x, api_key: k}, model_info: {id: pictures, mode: image_generation}}
  - {model_name: 'groq/*', litellm_params: {model: 'groq/*', api_key: k}, model_info: {id: wild}}
  - model_name: 'xai/*'
    litellm_params: {model: 'xai/*', api_key: k}
    model_info: {id: tame, health_check_model: xai/grok-3, health_check_max_tokens: 2}
  - {model_name: '*', litellm_params: {model: '*'}, model_info: {id: bare}}
";

/// What a gateway of tests is asked: path, headers, body.
type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A gateway that fails `bad` as long as `bad` is true.
fn gateway(bad: &Arc<AtomicBool>) -> (Gateway, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let (heard, bad) = (Arc::clone(&asked), Arc::clone(bad));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &heard, bad.load(Ordering::Relaxed));
        }
    });
    (Gateway::at(&url, false), asked)
}

fn answer(stream: TcpStream, heard: &Asked, bad: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head)?;
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = body["model"].as_str().unwrap_or_default().to_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    if path != "/health/liveliness" {
        heard.lock().unwrap().push((path, head, body));
    }
    let (status, text) = match bad && id == "bad" {
        true => ("500 No", json!({"error": {"message": "litellm.InternalServerError: sk-of-bad broke"}})),
        false => ("200 OK", json!({})),
    };
    let text = text.to_string();
    write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\nx-litellm-model-id: {id}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
}

fn ids(answer: &Value, list: &str) -> Vec<String> {
    let id = |entry: &Value| entry["model_id"].as_str().unwrap_or_default().to_owned();
    answer[list].as_array().unwrap().iter().map(id).collect()
}

fn ready(ledger: &Ledger) -> (Arc<AtomicBool>, Asked) {
    let bad = Arc::new(AtomicBool::new(true));
    let (gateway, asked) = gateway(&bad);
    ledger.app.checks.set_gateway(gateway);
    (bad, asked)
}

#[test]
fn every_deployment_is_called_as_its_mode_has_it() {
    on_each(MODELS, |ledger| async move {
        let (_, asked) = ready(&ledger);
        let answer = ledger.admin("GET", "/health", None).await;
        assert_eq!(ids(&answer, "healthy_endpoints"), ["good", "words", "numbers", "tame"]);
        assert_eq!(ids(&answer, "unhealthy_endpoints"), ["bad"]);
        let unchecked = ids(&answer, "unchecked_endpoints");
        assert_eq!(unchecked[..2], ["pictures", "wild"], "{answer}");
        assert!(unchecked[2].starts_with("bare") && unchecked.len() == 3, "a bare `*` is told of once");
        let counts = ["healthy_count", "unhealthy_count", "unchecked_count"].map(|name| answer[name].clone());
        assert_eq!(counts, [json!(4), json!(1), json!(3)], "what is not checked does not count as failing");
        let error = |list: &str, at: usize| answer[list][at]["error"].as_str().unwrap();
        assert_eq!(error("unhealthy_endpoints", 0), "litellm.InternalServerError: … broke");
        assert_eq!(answer["unhealthy_endpoints"][0]["exception_status"], 500);
        assert!(error("unchecked_endpoints", 0).contains("mode `image_generation`"), "{answer}");
        assert!(error("unchecked_endpoints", 1).contains("`model_info.health_check_model`"), "{answer}");
        let good = json!({"model": "openai/gpt-4o", "api_base": "http://good:1/v1", "model_id": "good"});
        assert_eq!(answer["healthy_endpoints"][0], good);
        assert!(!answer.to_string().contains("sk-of"), "{answer}");

        let mut asked = asked.lock().unwrap().clone();
        asked.sort_by_key(|(_, _, body)| body["model"].to_string());
        let seen: Vec<(&str, &str, f64, &Value)> = asked
            .iter()
            .map(|(path, _, body)| {
                (
                    body["model"].as_str().unwrap(),
                    path.as_str(),
                    body["timeout"].as_f64().unwrap(),
                    &body["max_tokens"],
                )
            })
            .collect();
        let (most, none, two) = (json!(16), Value::Null, json!(2));
        let expected = [
            ("bad", "/v1/chat/completions", 5.0, &most),
            ("good", "/v1/chat/completions", 60.0, &most),
            ("numbers", "/v1/embeddings", 7.0, &none),
            ("tame", "/v1/chat/completions", 60.0, &two),
            ("words", "/v1/completions", 60.0, &most),
        ];
        assert_eq!(seen, expected);
        for (_, head, body) in &asked {
            assert_eq!((&body["num_retries"], &body["disable_fallbacks"]), (&json!(0), &json!(true)));
            assert!(head.contains(&format!("authorization: bearer {MASTER}")), "{head}");
            assert!(head.contains("x-litellm-tags: health_check"), "{head}");
        }
    });
}

#[test]
fn somebody_may_ask_for_less_and_sees_what_is_theirs() {
    on_each(MODELS, |ledger| async move {
        ready(&ledger);
        for (query, healthy, unhealthy) in [
            ("model=good", vec!["good"], vec![]),
            ("model=chat", vec!["good"], vec!["bad"]),
            ("model=openai/gpt-4o", vec!["good"], vec!["bad"]),
            ("model_id=bad", vec![], vec!["bad"]),
            ("model=chat&model_id=good", vec!["good"], vec![]),
        ] {
            let answer = ledger.admin("GET", &format!("/health?{query}"), None).await;
            assert_eq!(ids(&answer, "healthy_endpoints"), healthy, "{query}");
            assert_eq!(ids(&answer, "unhealthy_endpoints"), unhealthy, "{query}");
        }
        let (status, _, answer) = ledger.call("GET", "/health?model=nobody", Some(MASTER), None).await;
        assert_eq!(status, 400);
        assert!(answer.to_string().contains("nobody"), "{answer}");
        let key = ledger.admin("POST", "/key/generate", Some(json!({"models": ["chat"]}))).await;
        ledger.admin("GET", "/health", None).await;
        let (status, _, answer) = ledger.call("GET", "/health", key["key"].as_str(), None).await;
        assert_eq!((status, ids(&answer, "healthy_endpoints")), (200, vec!["good".to_owned()]));
        assert_eq!(answer["healthy_endpoints"][0].get("api_base"), None, "admins see where it is");
        assert_eq!(ledger.call("GET", "/health", None, None).await.0, 401);
    });
}

#[test]
fn without_details_only_models_are_named() {
    let yaml = format!("{MODELS}general_settings: {{health_check_details: false}}");
    on_each(&yaml, |ledger| async move {
        ready(&ledger);
        let answer = ledger.admin("GET", "/health?model=chat", None).await;
        let one = json!([{"model": "openai/gpt-4o"}]);
        assert_eq!((&answer["healthy_endpoints"], &answer["unhealthy_endpoints"]), (&one, &one));
    });
}

#[test]
fn a_ledger_that_does_not_know_its_gateway_says_so() {
    on_each(MODELS, |ledger| async move {
        let (status, _, answer) = ledger.call("GET", "/health", Some(MASTER), None).await;
        assert_eq!(status, 503);
        assert!(answer.to_string().contains("--gateway URL"), "{answer}");
    });
}

#[test]
fn models_of_the_database_are_checked_too() {
    let yaml = format!("{MODELS}general_settings: {{store_model_in_db: true}}");
    on_each(&yaml, |ledger| async move {
        ready(&ledger);
        let params = json!({"model": "openai/gpt-4o", "api_key": "sk-stored"});
        let model = json!({"model_name": "stored", "litellm_params": params, "model_info": {"id": "s1"}});
        ledger.admin("POST", "/model/new", Some(model)).await;
        let answer = ledger.admin("GET", "/health?model=stored", None).await;
        assert_eq!(ids(&answer, "healthy_endpoints"), ["s1"], "{answer}");
        assert!(!answer.to_string().contains("sk-stored"));
    });
}

const BACKGROUND: &str = "general_settings: {background_health_checks: true, health_check_interval: 10}";

#[test]
fn the_background_answers_and_nodes_hear_who_fails() {
    let yaml = format!("{}{BACKGROUND}", MODELS.replace(", disable_background_health_check: true", ""));
    on_each(&yaml, |ledger| async move {
        let (bad, _) = ready(&ledger);
        let app = &ledger.app;
        let health = app.config().ledger.health.clone();
        let told = async || {
            let (status, reply) = ledger.envoy("POST", "/internal/sync", Some(json!({"node": "n"}))).await;
            assert_eq!(status, 200, "{reply}");
            reply["health"].clone()
        };
        assert_eq!(told().await, Value::Null, "nothing was checked yet");
        let answer = ledger.admin("GET", "/health", None).await;
        assert_eq!((&answer["healthy_count"], &answer["unhealthy_count"]), (&json!(0), &json!(0)));

        round(app, app.checks.gateway().unwrap(), &health).await;
        let answer = ledger.admin("GET", "/health?model=chat", None).await;
        assert_eq!(ids(&answer, "unhealthy_endpoints"), ["bad"]);
        // What cannot be checked is not healthy, and keeps its requests. Three intervals, and what a check may take.
        assert_eq!(told().await, json!({"failing": ["bad"], "valid_ms": 35_000}));
        ledger.pass(34_000);
        assert_eq!(told().await, json!({"failing": ["bad"], "valid_ms": 1_000}));
        ledger.pass(1_000);
        assert_eq!(told().await, json!({"failing": [], "valid_ms": 0}), "too long ago");

        bad.store(false, Ordering::Relaxed);
        round(app, app.checks.gateway().unwrap(), &health).await;
        assert_eq!(told().await["failing"], json!([]));
        let answer = ledger.admin("GET", "/health?model=chat", None).await;
        assert_eq!(ids(&answer, "healthy_endpoints"), ["good", "bad"]);
    });
}

#[test]
fn deployments_can_be_left_out_of_the_background() {
    let yaml = format!("{MODELS}{BACKGROUND}");
    on_each(&yaml, |ledger| async move {
        ready(&ledger);
        let app = &ledger.app;
        round(app, app.checks.gateway().unwrap(), &app.config().ledger.health.clone()).await;
        let answer = ledger.admin("GET", "/health?model=chat", None).await;
        assert_eq!(ids(&answer, "healthy_endpoints"), ["good"]);
        assert_eq!(ids(&answer, "unhealthy_endpoints"), Vec::<String>::new());
    });
}

#[test]
fn rounds_begin_when_the_gateway_is_there_and_end_with_the_setting() {
    let yaml = format!("{MODELS}{BACKGROUND}").replace("interval: 10", "interval: 0.1");
    on_each(&yaml, |ledger| async move {
        let (_, asked) = ready(&ledger);
        let app = Arc::clone(&ledger.app);
        let running = tokio::spawn(keep_up(Arc::clone(&app)));
        let await_that = async |condition: &dyn Fn() -> bool| {
            let end = Instant::now() + Duration::from_secs(30);
            while !condition() {
                assert!(Instant::now() < end, "not in time");
                sleep(Duration::from_millis(5)).await;
            }
        };
        let rounds = || asked.lock().unwrap().iter().filter(|(_, _, body)| body["model"] == "good").count();
        await_that(&|| rounds() > 2).await;
        assert!(app.checks.last("good").is_some());
        let off = crate::core::config::load(MODELS, &|_| None, &|_| None).unwrap().config;
        app.set_config(off);
        await_that(&|| app.checks.last("good").is_none()).await;
        running.abort();
    });
}

#[test]
fn others_than_admins_are_told_of_the_last_check_and_call_nobody() {
    on_each(MODELS, |ledger| async move {
        let (_, asked) = ready(&ledger);
        let key = ledger.admin("POST", "/key/generate", Some(json!({"max_budget": 0, "rpm_limit": 1}))).await;
        let body = json!({"user_id": "looks", "user_role": "proxy_admin_viewer"});
        let viewer = ledger.admin("POST", "/user/new", Some(body)).await;
        for somebody in [&key, &viewer] {
            for _ in 0..5 {
                let (status, _, answer) = ledger.call("GET", "/health", somebody["key"].as_str(), None).await;
                assert_eq!((status, &answer["healthy_count"]), (200, &json!(0)), "{answer}");
            }
        }
        assert_eq!(asked.lock().unwrap().len(), 0);
        ledger.admin("GET", "/health", None).await;
        let calls = asked.lock().unwrap().len();
        for somebody in [&key, &viewer] {
            let (_, _, answer) = ledger.call("GET", "/health", somebody["key"].as_str(), None).await;
            assert_eq!(answer["healthy_count"], 4, "{answer}");
        }
        assert_eq!(asked.lock().unwrap().len(), calls);
    });
}

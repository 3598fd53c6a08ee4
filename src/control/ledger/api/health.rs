//! Health: whether deployments answer, and test alerts to the services that are told of used up budgets.
//!
//! Whether the gateway lives and can serve is the filter's to say (`/health/liveliness`, `/health/readiness`), without a ledger too.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    control::ledger::{
        alerts::Receivers,
        api::models::info,
        health::{
            self,
            probe::Outcome,
            targets::{self, Target},
        },
        problem::{ErrorStatus, Problem},
        route::{Access, Answer, Call, Field, Route, Type},
    },
    core::{
        config::Config,
        error::{Error, RequestFault},
    },
};

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: &["/health"],
        tag: "health",
        summary: "Calls every deployment and says which of them answer; others than admins are told what the last check of theirs found.",
        access: Access::AnyKey,
        query: &[
            Field::new("model", Type::Text, "Only this group, model or deployment's id."),
            Field::new("model_id", Type::Text, "Only the deployment with this id."),
        ],
        body: &[],
        handler: |call| Box::pin(deployments(call)),
    },
    Route {
        method: "GET",
        paths: &["/health/services"],
        tag: "health",
        summary: "Sends a test alert to a configured service.",
        access: Access::Viewer,
        query: &[Field::required("service", Type::Text, "slack, slack_budget_alerts or webhook.")],
        body: &[],
        handler: |call| Box::pin(services(call)),
    },
];

/// How long a service may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET /health`.
async fn deployments(call: Call) -> Result<Answer, Problem> {
    let app = &call.app;
    let config = app.config();
    let Some(gateway) = app.checks.gateway() else {
        return Err(Problem::refused(
            ErrorStatus::SERVICE_UNAVAILABLE,
            "this ledger does not know where the gateway is, through which it calls deployments: start it with --gateway URL",
        ));
    };
    let viewer = info::viewer(app, &call.caller).await?;
    let mut targets = targets::all(app, viewer.as_ref()).await?;
    for (name, wanted) in [("model", call.parameter("model")), ("model_id", call.parameter("model_id"))] {
        let Some(wanted) = wanted else { continue };
        targets.retain(|target| target.id == wanted || (name == "model" && is_of(target, wanted, &config)));
        if targets.is_empty() {
            let message = format!(
                "{name} = {wanted} is no deployment that this key may call; GET /model/info lists them"
            );
            return Err(Problem::Detail(400, json!({"error": message})));
        }
    }
    // A check costs money that is nobody's: others than admins are told what the last one found.
    let found = match config.ledger.health.in_background || !call.caller.is_admin() {
        true => {
            let last = |target: Target| app.checks.latest(&target.id).map(|outcome| (target, outcome));
            targets.into_iter().filter_map(last).collect()
        }
        false => health::check(app, gateway, targets).await,
    };
    let details = config.ledger.health.details;
    let (unchecked, checked): (Vec<_>, Vec<_>) =
        found.iter().partition(|(_, outcome)| matches!(outcome, Outcome::Unchecked(_)));
    let (passed, failed): (Vec<_>, Vec<_>) =
        checked.into_iter().partition(|(_, outcome)| *outcome == Outcome::Passed);
    let list = |some: &[&(Target, Outcome)]| -> Vec<Value> {
        let all = call.caller.may_see_all();
        some.iter().map(|(target, outcome)| shown(target, outcome, details, all)).collect()
    };
    let mut answer = json!({
        "healthy_endpoints": list(&passed),
        "unhealthy_endpoints": list(&failed),
        "healthy_count": passed.len(),
        "unhealthy_count": failed.len(),
    });
    // Whoever watches the count of those that fail is not to be woken by those that cannot be checked.
    if let Some(members) = answer.as_object_mut().filter(|_| !unchecked.is_empty()) {
        members.insert("unchecked_endpoints".to_owned(), json!(list(&unchecked)));
        members.insert("unchecked_count".to_owned(), json!(unchecked.len()));
    }
    Ok(Answer::json(&answer))
}

/// Whether a deployment is of a model: by its own, by its group, or by an alias of that.
fn is_of(target: &Target, model: &str, config: &Config) -> bool {
    let alias = config.aliases.get(model).map(|alias| alias.model.as_str());
    target.model == model || target.group == model || alias == Some(target.group.as_str())
}

/// A deployment and what was found. Where it is, is for those to know who see everything.
fn shown(target: &Target, outcome: &Outcome, details: bool, all: bool) -> Value {
    let model = target.shown.get("model").cloned().unwrap_or_else(|| json!(target.group));
    if !details {
        return json!({"model": model});
    }
    let mut shown: Map<String, Value> = target.shown.clone();
    if !all {
        for name in ["api_base", "base_url", "api_version"] {
            shown.remove(name);
        }
    }
    shown.insert("model".to_owned(), model);
    shown.insert("model_id".to_owned(), json!(target.id));
    match outcome {
        Outcome::Passed => {}
        Outcome::Failed { status, error } => {
            shown.insert("error".to_owned(), json!(error));
            shown.insert("exception_status".to_owned(), json!(status));
        }
        Outcome::Unchecked(why) => {
            shown.insert("error".to_owned(), json!(why));
        }
    }
    Value::Object(shown)
}

/// `GET /health/services`.
async fn services(call: Call) -> Result<Answer, Problem> {
    let service = call.parameter("service").unwrap_or_default().to_owned();
    let receivers = Receivers::of(&call.app.config().ledger.alerting, &|name| std::env::var(name).ok());
    tell(&service, receivers).await
}

/// Sends the test alert and says how that went.
async fn tell(service: &str, receivers: Receivers) -> Result<Answer, Problem> {
    let (address, variable, body) = match service {
        "slack" | "slack_budget_alerts" => (
            receivers.slack,
            "SLACK_WEBHOOK_URL",
            json!({"text": "Test alert: budget alerts reach this channel."}),
        ),
        "webhook" => (receivers.webhook, "WEBHOOK_URL", test_event()),
        _ => {
            let message = "`service` must be slack, slack_budget_alerts or webhook";
            return Err(Problem::Detail(400, json!({"error": message})));
        }
    };
    let Some(address) = address else {
        let kind = if service == "webhook" { "webhook" } else { "slack" };
        let message = format!(
            "{service} is not configured: add `{kind}` to `general_settings.alerting` and set {variable} in the environment"
        );
        return Err(Problem::Error(Error::of(RequestFault::NoSuchService, message)));
    };
    let sent = tokio::task::spawn_blocking(move || send(&address, &body)).await;
    match sent.unwrap_or_else(|_| Err("it could not be called".to_owned())) {
        Ok(()) => Ok(Answer::json(&json!({
            "status": "success",
            "message": format!("Test alert sent to {service}: verify that it has arrived"),
        }))),
        Err(why) => Err(Problem::refused(
            ErrorStatus::BAD_GATEWAY,
            format!("the test alert did not reach {service}: {why}"),
        )),
    }
}

/// The error never shows the address: whoever has it may post.
fn send(address: &str, body: &Value) -> Result<(), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    match agent.post(address).send_json(body) {
        Ok(_) => Ok(()),
        Err(ureq::Error::StatusCode(status)) => Err(format!("it answered {status}")),
        Err(ureq::Error::Timeout(_)) => Err("it did not answer in time".to_owned()),
        Err(_) => Err("it cannot be reached; check its address".to_owned()),
    }
}

/// What a webhook gets: an alert with nothing in it.
fn test_event() -> Value {
    json!({
        "spend": 0, "max_budget": 0, "soft_budget": null, "token": "", "customer_id": null, "user_id": null,
        "team_id": null, "team_alias": null, "user_email": null, "key_alias": null,
        "projected_exceeded_date": null, "projected_spend": null, "event_group": "proxy",
        "event": "budget_crossed", "event_message": "Test alert",
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;
    use crate::control::ledger::testing::on_each;

    #[test]
    fn services_that_are_not_there_are_named() {
        on_each("", |ledger| async move {
            let key = Some(crate::control::ledger::testing::MASTER);
            for (path, status, says) in [
                ("/health/services", 422, "Field required"),
                ("/health/services?service=datadog", 400, "must be slack"),
                ("/health/services?service=slack", 422, "SLACK_WEBHOOK_URL"),
                ("/health/services?service=webhook", 422, "WEBHOOK_URL"),
            ] {
                let (got, _, body) = ledger.call("GET", path, key, None).await;
                assert_eq!(got, status, "{path} {body}");
                assert!(body.to_string().contains(says), "{body}");
            }
            assert_eq!(ledger.call("GET", "/health/services?service=slack", None, None).await.0, 401);
        });
    }

    #[test]
    fn an_alert_is_sent_and_its_fate_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for status in ["200 OK", "500 No"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut part = [0; 65_536];
                let mut got = String::new();
                while !got.contains("Test alert") {
                    let count = stream.read(&mut part).unwrap();
                    got.push_str(&String::from_utf8_lossy(&part[..count]));
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let slack = Receivers { slack: Some(address.clone()), ..Receivers::default() };
            let webhook = Receivers { webhook: Some(address.clone()), ..Receivers::default() };
            assert_eq!(tell("slack", slack).await.unwrap().status, 200);
            let Err(Problem::Error(error)) = tell("webhook", webhook).await else { panic!() };
            assert_eq!(error.status(), 502);
            assert!(error.message.contains("it answered 500") && !error.message.contains("/hook"));
        });
        server.join().unwrap();
    }
}

//! Telling somebody that a budget is used up: a line in the log, and a call to a webhook or to Slack when
//! `general_settings.alerting` says so. A thread of its own makes the calls, so that nothing waits for them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{log, rows::dollars};

/// The same alert is given once in this time.
const AGAIN_MS: i64 = 86_400_000;
/// Calls that wait to be made; more are left out.
const WAITING: usize = 1_000;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entity {
    /// A key's.
    Key,
    /// A user's.
    User,
    /// A team's.
    Team,
}

impl Entity {
    fn word(self) -> &'static str {
        match self {
            Entity::Key => "key",
            Entity::User => "user",
            Entity::Team => "team",
        }
    }

    /// LiteLLM's `event_group`.
    fn group(self) -> &'static str {
        match self {
            Entity::User => "internal_user",
            other => other.word(),
        }
    }
}

/// A budget that was not used up before a batch and is after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossing {
    /// Whose.
    pub entity: Entity,
    /// Hash of the key, or id.
    pub id: String,
    /// `max_budget`; else `soft_budget`.
    pub is_hard: bool,
    /// Spend in 10⁻¹² dollars.
    pub spend: i64,
    /// In 10⁻¹² dollars.
    pub max_budget: Option<i64>,
    /// In 10⁻¹² dollars.
    pub soft_budget: Option<i64>,
    /// Its alias.
    pub alias: Option<String>,
    /// The key's user, or the user.
    pub user: Option<String>,
    /// The key's team, or the team.
    pub team: Option<String>,
}

impl Crossing {
    /// The body for a webhook.
    pub fn payload(&self) -> Value {
        let amount = |pico: Option<i64>| pico.map_or(Value::Null, dollars);
        let alias = |entity: Entity| self.alias.as_deref().filter(|_| self.entity == entity);
        json!({
            "spend": dollars(self.spend),
            "max_budget": amount(self.max_budget),
            "soft_budget": amount(self.soft_budget),
            "token": (self.entity == Entity::Key).then_some(&self.id),
            "customer_id": null,
            "user_id": self.user,
            "team_id": self.team,
            "team_alias": alias(Entity::Team),
            "user_email": null,
            "key_alias": alias(Entity::Key),
            "projected_exceeded_date": null,
            "projected_spend": null,
            "event_group": self.entity.group(),
            "event": if self.is_hard { "budget_crossed" } else { "soft_budget_crossed" },
            "event_message": self.message(),
        })
    }

    /// One line for people.
    pub fn message(&self) -> String {
        let (kind, limit) = match self.is_hard {
            true => ("Budget", self.max_budget),
            false => ("Soft budget", self.soft_budget),
        };
        let name = self.alias.as_ref().map(|alias| format!(" ({alias})")).unwrap_or_default();
        format!(
            "{kind} crossed for {} `{}`{name}: spend {}, budget {}",
            self.entity.word(),
            self.id,
            dollars(self.spend),
            limit.map_or(Value::Null, dollars)
        )
    }
}

/// Where alerts go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    /// Gets the whole payload.
    pub webhook: Option<String>,
    /// Gets `{"text": …}`.
    pub slack: Option<String>,
}

impl Receivers {
    /// What `alerting` names, at the addresses that the environment has for it.
    pub fn of(alerting: &[String], variable: &dyn Fn(&str) -> Option<String>) -> Receivers {
        let address = |kind: &str, name: &str| {
            let address = alerting.iter().any(|known| known == kind).then(|| variable(name)).flatten();
            address.filter(|address| !address.is_empty())
        };
        Receivers { webhook: address("webhook", "WEBHOOK_URL"), slack: address("slack", "SLACK_WEBHOOK_URL") }
    }
}

/// Gives alerts.
#[derive(Debug, Default)]
pub struct Alerts {
    given: Mutex<HashMap<(Entity, bool, String), i64>>,
    calls: Option<SyncSender<(String, Value)>>,
    receivers: Receivers,
}

impl Alerts {
    /// Alerts that also go to these receivers.
    pub fn to(receivers: Receivers) -> Alerts {
        let calls = (receivers != Receivers::default()).then(|| {
            let (send, receive) = sync_channel(WAITING);
            std::thread::spawn(move || call_all(&receive));
            send
        });
        Alerts { calls, receivers, ..Alerts::default() }
    }

    /// Tells of crossings, of each once a day. Never waits.
    pub fn tell(&self, crossings: Vec<Crossing>, now_ms: i64) {
        for crossing in crossings {
            if !self.is_new(&crossing, now_ms) {
                continue;
            }
            let payload = crossing.payload();
            log(&format!("alert: {}", crossing.message()));
            let Some(calls) = &self.calls else { continue };
            let bodies = [
                (&self.receivers.webhook, payload),
                (&self.receivers.slack, json!({"text": crossing.message()})),
            ];
            for (address, body) in bodies {
                let Some(address) = address else { continue };
                if calls.try_send((address.clone(), body)).is_err() {
                    log("an alert was not sent: too many wait for their receiver");
                }
            }
        }
    }

    fn is_new(&self, crossing: &Crossing, now_ms: i64) -> bool {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, at| now_ms.saturating_sub(*at) < AGAIN_MS);
        match given.entry((crossing.entity, crossing.is_hard, crossing.id.clone())) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(now_ms);
                true
            }
        }
    }
}

/// Makes the calls, one after the other.
fn call_all(calls: &Receiver<(String, Value)>) {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    for (address, body) in calls {
        // The address is a secret: whoever has it may post.
        if let Err(error) = agent.post(&address).send_json(&body) {
            let what = match error {
                ureq::Error::StatusCode(status) => format!("it answered {status}"),
                ureq::Error::Timeout(_) => "it did not answer in time".to_owned(),
                _ => "it cannot be reached; check WEBHOOK_URL and SLACK_WEBHOOK_URL".to_owned(),
            };
            log(&format!("an alert did not reach its receiver: {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        control::ledger::{
            rows,
            schema::{KEYS, TEAMS, USERS},
            testing::{START_MS, on_each},
            usage,
        },
        core::{
            model::call_record::CallRecord,
            protocol::{Batch, SyncRequest},
        },
    };

    fn crossing(id: &str, is_hard: bool) -> Crossing {
        Crossing {
            entity: Entity::Key,
            id: id.to_owned(),
            is_hard,
            spend: 1_250_000_000_000,
            max_budget: Some(1_000_000_000_000),
            soft_budget: None,
            alias: Some("mine".to_owned()),
            user: Some("u".to_owned()),
            team: None,
        }
    }

    #[test]
    fn a_payload_has_what_receivers_expect() {
        let payload = crossing("hash", true).payload();
        for (name, value) in [
            ("spend", json!(1.25)),
            ("max_budget", json!(1.0)),
            ("soft_budget", Value::Null),
            ("token", json!("hash")),
            ("user_id", json!("u")),
            ("key_alias", json!("mine")),
            ("team_alias", Value::Null),
            ("event_group", json!("key")),
            ("event", json!("budget_crossed")),
            ("event_message", json!("Budget crossed for key `hash` (mine): spend 1.25, budget 1.0")),
        ] {
            assert_eq!(payload[name], value, "{name}");
        }
        let user = Crossing { entity: Entity::User, ..crossing("u", false) };
        assert_eq!(
            (&user.payload()["event_group"], &user.payload()["token"]),
            (&json!("internal_user"), &Value::Null)
        );
        assert_eq!(user.payload()["event"], "soft_budget_crossed");
    }

    #[test]
    fn the_same_alert_is_given_once_a_day() {
        let alerts = Alerts::default();
        for (id, is_hard, at, is_new) in [
            ("a", true, 0, true),
            ("a", true, 1, false),
            ("a", false, 1, true),
            ("b", true, 1, true),
            ("a", true, AGAIN_MS - 1, false),
            ("a", true, AGAIN_MS, true),
        ] {
            assert_eq!(alerts.is_new(&crossing(id, is_hard), at), is_new, "{id} {is_hard} {at}");
        }
    }

    #[test]
    fn receivers_are_those_that_are_configured() {
        let variable = |name: &str| (name != "WEBHOOK_URL").then(|| "http://x".to_owned());
        let of = |kinds: &[&str]| {
            Receivers::of(&kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>(), &variable)
        };
        assert_eq!(
            of(&["slack", "webhook"]),
            Receivers { webhook: None, slack: Some("http://x".to_owned()) }
        );
        assert_eq!(of(&["email"]), Receivers::default());
    }

    #[test]
    fn receivers_are_called() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let alerts = Alerts::to(Receivers { webhook: Some(address.clone()), slack: Some(address) });
        alerts.tell(vec![crossing("a", true)], 0);
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut got, mut part) = (Vec::new(), [0; 4_096]);
            let body = loop {
                let count = stream.read(&mut part).unwrap();
                got.extend_from_slice(&part[..count]);
                let text = String::from_utf8_lossy(&got);
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
                if let Ok(body) = serde_json::from_str::<Value>(&body) {
                    break body;
                }
            };
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            bodies.push(body);
        }
        assert_eq!(bodies[0]["event"], "budget_crossed");
        assert!(bodies[1]["text"].as_str().unwrap().starts_with("Budget crossed for key `a`"));
    }

    #[test]
    fn batches_that_cross_a_budget_are_noticed() {
        on_each("", |ledger| async move {
            let app = &ledger.app;
            let mut tx = app.db.write().await.unwrap();
            for (table, row) in [
                (
                    &KEYS,
                    json!({"token": "k", "max_budget": 3e-12, "soft_budget": 2e-12, "user_id": "u", "team_id": "t"}),
                ),
                (&USERS, json!({"user_id": "u", "max_budget": 4e-12})),
                (&TEAMS, json!({"team_id": "t", "max_budget": 100})),
            ] {
                rows::insert(tx.connection(), table, row.as_object().unwrap()).await.unwrap();
            }
            tx.commit().await.unwrap();
            for (number, wanted) in [
                (1, &[][..]),
                (2, &[(Entity::Key, false, "k")]),
                (3, &[(Entity::Key, false, "k"), (Entity::Key, true, "k")]),
                (4, &[(Entity::Key, false, "k"), (Entity::Key, true, "k"), (Entity::User, true, "u")]),
            ] {
                let event = CallRecord {
                    id: number.to_string(),
                    api_key: "k".into(),
                    user: Some("u".into()),
                    team: Some("t".into()),
                    spend: 1,
                    ..CallRecord::default()
                };
                let batch = Some(Batch { number, events: vec![event], aggregated: Vec::new() });
                let request = SyncRequest { node: "n".into(), batch, ..SyncRequest::default() };
                usage::sync(app, &request).await.map(drop).unwrap();
                let given = app.alerts.given.lock().unwrap();
                let mut names: Vec<_> = given
                    .keys()
                    .map(|(entity, is_hard, id)| (entity.word(), *is_hard, id.as_str()))
                    .collect();
                names.sort_unstable();
                let wanted: Vec<_> =
                    wanted.iter().map(|(entity, is_hard, id)| (entity.word(), *is_hard, *id)).collect();
                assert_eq!(names, wanted, "{number}");
                assert!(given.values().all(|at| *at == START_MS));
            }
        });
    }
}

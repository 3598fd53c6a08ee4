//! A ledger with people in it, for tests: one of each role, a team and an organization.

use std::collections::HashMap;

use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::control::ledger::testing::{Ledger, MASTER};

/// Who calls, in the order of the tables in tests.
pub const PEOPLE: [&str; 10] = [
    // The master key, a user who is admin, an admin who only looks.
    "master", "admin", "viewer",
    // Runs the organization `o1`; runs the team `t1`, which is in it; a plain member of `t1`.
    "chief", "lead", "member",
    // An internal user, and one who only looks; neither is in a team.
    "loner", "watcher", // A key of `t1` that is no user's, a key that is nobody's.
    "service", "nobody",
];

/// The people's ledger and their keys.
pub struct Cast {
    /// The ledger.
    pub ledger: Ledger,
    keys: HashMap<&'static str, String>,
}

impl Cast {
    /// Makes them all.
    pub async fn new(ledger: Ledger) -> Cast {
        let mut keys = HashMap::from([("master", MASTER.to_owned())]);
        let people = [
            ("admin", "proxy_admin"),
            ("viewer", "proxy_admin_viewer"),
            ("chief", "internal_user"),
            ("lead", "internal_user"),
            ("member", "internal_user"),
            ("loner", "internal_user"),
            ("watcher", "internal_user_viewer"),
        ];
        for (name, role) in people {
            let body = json!({"user_id": name, "user_role": role, "user_email": format!("{name}@x.org")});
            let made = ledger.admin("POST", "/user/new", Some(body)).await;
            keys.insert(name, made["key"].as_str().unwrap().to_owned());
        }
        let body = json!({"organization_id": "o1", "organization_alias": "one"});
        ledger.admin("POST", "/organization/new", Some(body)).await;
        let body = json!({"organization_id": "o1", "member": {"user_id": "chief", "role": "org_admin"}});
        ledger.admin("POST", "/organization/member_add", Some(body)).await;
        let members = json!([{"user_id": "lead", "role": "admin"}, {"user_id": "member", "role": "user"}]);
        let body = json!({"team_id": "t1", "organization_id": "o1", "members_with_roles": members});
        ledger.admin("POST", "/team/new", Some(body)).await;
        for (name, body) in [("service", json!({"team_id": "t1"})), ("nobody", json!({}))] {
            let made = ledger.admin("POST", "/key/generate", Some(body)).await;
            keys.insert(name, made["key"].as_str().unwrap().to_owned());
        }
        Cast { ledger, keys }
    }

    /// Somebody's key.
    pub fn key(&self, who: &str) -> &str {
        &self.keys[who]
    }

    /// A call by somebody: status and body.
    pub async fn call(&self, who: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, _, answer) = self.send(who, method, path, body).await;
        (status, answer)
    }

    /// The same with the answer's headers. A body of `null` is none.
    pub async fn send(&self, who: &str, method: &str, path: &str, body: Value) -> (u16, HeaderMap, Value) {
        let body = (!body.is_null()).then_some(body);
        self.ledger.call(method, path, Some(self.key(who)), body).await
    }

    /// Calls in their order, each with what it must answer: a status and members that the body must have.
    pub async fn script(&self, calls: &[(&str, &str, &str, Value, u16, Value)]) {
        for (who, method, path, body, status, expected) in calls {
            let (got, answer) = self.call(who, method, path, body.clone()).await;
            let what = format!("{who}: {method} {path} {body}\n{answer}");
            assert_eq!(got, *status, "{what}");
            within(expected, &answer, &what);
        }
    }

    /// One call by everybody in turn. `{n}` in path and body is a number that nobody had before.
    pub async fn matrix(&self, calls: &[(&str, &str, Value, [u16; 10])]) {
        let mut count = 0;
        for (method, path, body, expected) in calls {
            let mut got = Vec::new();
            for who in PEOPLE {
                count += 1;
                let fill = |text: &str| text.replace("{n}", &count.to_string());
                let body = serde_json::from_str(&fill(&body.to_string())).unwrap();
                got.push(self.call(who, method, &fill(path), body).await.0);
            }
            assert_eq!(got, expected, "{method} {path} {body} by {PEOPLE:?}");
        }
    }

    /// The records that a call by the master key says it changed.
    pub async fn changed(&self, method: &str, path: &str, body: Value) -> Vec<String> {
        let (status, headers, answer) = self.send("master", method, path, body.clone()).await;
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        let header =
            headers.get("x-tollgate-changed").map(|value| value.to_str().unwrap()).unwrap_or_default();
        let mut names: Vec<String> = header.split(',').map(str::to_owned).collect();
        names.sort();
        names
    }
}

/// Whether everything in `expected` is in `answer`; the text `"…"` is any text, and part of a list is that list's beginning.
pub fn within(expected: &Value, answer: &Value, what: &str) {
    match (expected, answer) {
        (Value::Object(members), Value::Object(_)) => {
            for (name, value) in members {
                within(value, &answer[name], &format!("`{name}` of {what}"));
            }
        }
        (Value::Null, _) if what.starts_with('`') => assert_eq!(answer, &Value::Null, "{what}"),
        (Value::Null, _) => {}
        (Value::String(text), Value::String(_)) if text == "…" => {}
        (Value::String(text), Value::String(got)) if text.ends_with('…') => {
            assert!(got.starts_with(text.trim_end_matches('…')), "{what}");
        }
        (Value::Array(items), Value::Array(got)) => {
            assert_eq!(items.len(), got.len(), "{what}");
            for (item, got) in items.iter().zip(got) {
                within(item, got, what);
            }
        }
        _ => assert_eq!(answer, expected, "{what}"),
    }
}

/// The names of an object's members, in their order.
pub fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

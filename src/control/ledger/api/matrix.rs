//! Every route of the OpenAPI document by every kind of caller: who gets past the gate, and what the others are told.

use std::collections::BTreeMap;

use serde_json::json;

use super::cast::{Cast, PEOPLE};
use crate::{
    control::ledger::{
        caller::hash,
        grants,
        testing::{Ledger, on_each},
    },
    core::{
        access::{self, routes},
        exchange::local::is_public,
        model::{general::General, key_record::Role},
        operation::path::{self, Action},
    },
};

/// Keys that are kept from something, behind the people of the cast: name and what the key is made of.
const RESTRICTED: [(&str, &str); 13] = [
    // An internal user's key for one route, for calls, for reading, for managing.
    ("one-route", r#"{"user_id": "loner", "allowed_routes": ["/chat/completions"]}"#),
    ("calls", r#"{"user_id": "loner", "key_type": "llm_api"}"#),
    ("reads", r#"{"user_id": "loner", "key_type": "read_only"}"#),
    ("manages", r#"{"user_id": "loner", "key_type": "management"}"#),
    // An admin's key for calls; a key whose user has no record; one that is nobody's and may make keys.
    ("admin-calls", r#"{"user_id": "admin", "key_type": "llm_api"}"#),
    ("ghost", r#"{"user_id": "no-such-user"}"#),
    ("maker", r#"{"allowed_routes": ["/key/generate"]}"#),
    ("blocked", r#"{"user_id": "admin", "blocked": true}"#),
    ("expired", r#"{"user_id": "admin", "duration": "1s"}"#),
    // Over the key's own budget, its team's, its user's; of a blocked team.
    ("spent", r#"{"user_id": "loner", "max_budget": 1, "spend": 2}"#),
    ("spent-team", r#"{"team_id": "spent"}"#),
    ("spent-user", r#"{"user_id": "spent"}"#),
    ("blocked-team", r#"{"team_id": "blocked"}"#),
];

/// By master, admin, viewer, chief, lead, member, loner, watcher, service, nobody, then those above: `+` gets past, `r` the role is
/// not enough, `v` viewers only look, `a` for admins only, `l` not in the key's list, `b` blocked, `e` expired, `o` over budget, `t`
/// the team is blocked.
const TABLE: &[(&str, &[&str])] = &[
    (
        "+++++++++++++++++++++++",
        &[
            "GET /",
            "GET /docs",
            "GET /docs/page.css",
            "GET /docs/page.js",
            "GET /health/liveliness",
            "GET /health/liveness",
            "GET /health/readiness",
            "GET /metrics",
            "GET /openapi.json",
            "GET /redoc",
            "GET /routes",
        ],
    ),
    (
        "++++++++++++ll++lbe++++",
        &[
            "POST /chat/completions",
            "POST /engines/{model}/chat/completions",
            "POST /openai/deployments/{model}/chat/completions",
            "POST /v1/chat/completions",
        ],
    ),
    (
        "++++++++++l+ll++lbe++++",
        &[
            "GET /models",
            "GET /models/{model}",
            "GET /v1/models",
            "GET /v1/models/{model}",
            "POST /completions",
            "POST /engines/{model}/completions",
            "POST /openai/deployments/{model}/completions",
            "POST /v1/completions",
            "POST /v1/messages",
            "POST /v1/messages/count_tokens",
        ],
    ),
    ("++++++++++l+ll++lbe+oot", &["POST /utils/token_counter"]),
    (
        "++++++++++ll++l+lbe+oot",
        &[
            "GET /key/aliases",
            "GET /key/info",
            "GET /key/list",
            "GET /model/info",
            "GET /organization/info",
            "GET /organization/list",
            "GET /team/info",
            "GET /team/list",
            "GET /user/info",
            "GET /v1/model/info",
            "GET /v2/model/info",
            "GET /v2/team/list",
            "POST /v2/key/info",
        ],
    ),
    ("++++++++++ll+ll+lbe+oot", &["GET /health", "GET /model_group/info"]),
    (
        "++++++++++lll+l+lbe+oot",
        &["GET /team/permissions_list", "GET /user/available_roles", "GET /user/daily/activity"],
    ),
    (
        "++++++++++lllll+lbe+oot",
        &[
            "GET /get/litellm_model_cost_map",
            "GET /global/activity",
            "GET /global/activity/model",
            "GET /global/spend/keys",
            "GET /global/spend/logs",
            "GET /global/spend/models",
            "GET /global/spend/provider",
            "GET /spend/keys",
            "GET /spend/logs",
            "GET /spend/logs/ui",
            "GET /spend/logs/v2",
            "GET /spend/users",
            "GET /utils/supported_openai_params",
            "POST /spend/calculate",
        ],
    ),
    (
        "+++rrrrrrrrrrrlrrberoot",
        &[
            "GET /budget/list",
            "GET /budget/settings",
            "GET /customer/info",
            "GET /end_user/info",
            "GET /global/spend",
            "GET /global/spend/all_tag_names",
            "GET /global/spend/report",
            "GET /global/spend/tags",
            "GET /global/spend/teams",
            "GET /health/services",
            "GET /provider/budgets",
            "GET /spend/tags",
            "GET /user/get_users",
            "GET /user/list",
            "POST /budget/info",
            "POST /global/spend/end_users",
            "POST /organization/info",
        ],
    ),
    (
        "++aaaaaaaaaaaa+aabeaaaa",
        &[
            "POST /embeddings",
            "POST /engines/{model}/embeddings",
            "POST /openai/deployments/{model}/embeddings",
            "POST /v1/embeddings",
        ],
    ),
    ("++aaaaaaaaaaaalaabeaoot", &["GET /customer/list", "GET /end_user/list", "POST /key/health"]),
    ("++aaaaaaaallallalbeaaaa", &["GET /tollgate/explain"]),
    ("++v++++rrrlll+lr+be+oot", &["POST /key/generate"]),
    (
        "++v++++rrrlll+lrrbe+oot",
        &[
            "DELETE /organization/member_delete",
            "PATCH /organization/member_update",
            "POST /key/block",
            "POST /key/delete",
            "POST /key/regenerate",
            "POST /key/service-account/generate",
            "POST /key/unblock",
            "POST /key/update",
            "POST /key/{key}/regenerate",
            "POST /key/{key}/reset_spend",
            "POST /model/delete",
            "POST /model/new",
            "POST /model/update",
            "POST /organization/member_add",
            "POST /team/block",
            "POST /team/delete",
            "POST /team/member_add",
            "POST /team/member_delete",
            "POST /team/member_update",
            "POST /team/model/add",
            "POST /team/model/delete",
            "POST /team/permissions_update",
            "POST /team/unblock",
            "POST /team/update",
        ],
    ),
    ("++vrrrrrrrlllrlrrberoot", &["PATCH /model/{model_id}/update", "POST /team/new", "POST /user/new"]),
    (
        "++vrrrrrrrrrrrlrrberoot",
        &[
            "DELETE /organization/delete",
            "PATCH /organization/update",
            "POST /budget/delete",
            "POST /budget/new",
            "POST /budget/update",
            "POST /customer/block",
            "POST /customer/delete",
            "POST /customer/new",
            "POST /customer/unblock",
            "POST /customer/update",
            "POST /end_user/block",
            "POST /end_user/delete",
            "POST /end_user/new",
            "POST /end_user/unblock",
            "POST /end_user/update",
            "POST /organization/new",
            "POST /user/delete",
            "POST /user/update",
        ],
    ),
    ("++vrrrrrrrrrrrlrrberrot", &["POST /global/spend/reset"]),
];

async fn keys(ledger: &Ledger) -> Vec<String> {
    for (path, body) in [
        ("/team/new", json!({"team_id": "spent", "max_budget": 1})),
        ("/team/update", json!({"team_id": "spent", "spend": 2})),
        ("/team/new", json!({"team_id": "blocked", "blocked": true})),
        ("/user/new", json!({"user_id": "spent", "user_role": "internal_user", "max_budget": 1})),
        ("/user/update", json!({"user_id": "spent", "spend": 2})),
    ] {
        ledger.admin("POST", path, Some(body)).await;
    }
    let mut keys = Vec::new();
    for (_, body) in RESTRICTED {
        let made = ledger.admin("POST", "/key/generate", Some(serde_json::from_str(body).unwrap())).await;
        keys.push(made["key"].as_str().unwrap().to_owned());
    }
    ledger.pass(2_000);
    keys
}

/// What an answer says of the gate.
fn verdict(message: &str) -> char {
    [
        ("is an admin only route", 'a'),
        ("Virtual key is not allowed to call this route", 'l'),
        ("Only proxy admin can be used", 'r'),
        ("role= proxy_admin_viewer", 'v'),
        ("Key is blocked", 'b'),
        ("Expired Key", 'e'),
        ("Budget has been exceeded! Team=spent", 'o'),
        ("ExceededBudget: User=spent", 'o'),
        ("Team=blocked is blocked", 't'),
    ]
    .into_iter()
    .find_map(|(text, verdict)| message.contains(text).then_some(verdict))
    .unwrap_or('+')
}

/// The gate of a route that the filter serves itself.
async fn by_filter(
    ledger: &Ledger,
    operation: &Action<'_>,
    path: &str,
    key: &str,
    general: &General,
) -> char {
    let caller = match key == crate::control::ledger::testing::MASTER {
        true => access::Caller::Master,
        false => {
            let grant = grants::read(&ledger.app, &hash(key)).await.unwrap().unwrap();
            access::Caller::Key(grant.into())
        }
    };
    if is_public(operation) || *operation == Action::Metrics {
        return '+';
    }
    let now = u64::try_from(ledger.app.now_ms()).unwrap();
    if let Err(error) = routes::authorize(&caller, routes::Route::of(operation, path), general, now) {
        return verdict(&error.message);
    }
    let explains = matches!(operation, Action::Explain(_));
    match caller.grant() {
        Some(grant) if explains && grant.role != Role::ProxyAdmin => 'a',
        _ => '+',
    }
}

#[test]
fn every_route_by_every_kind_of_caller() {
    let yaml = "general_settings: {admin_only_routes: [/customer/list, /embeddings, /key/health], store_model_in_db: true}\n";
    on_each(yaml, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let restricted = keys(&cast.ledger).await;
        let all: Vec<&str> =
            PEOPLE.iter().map(|who| cast.key(who)).chain(restricted.iter().map(String::as_str)).collect();
        let (_, _, document) = cast.ledger.call("GET", "/openapi.json", None, None).await;
        let mut routes: Vec<(String, String)> = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            routes.extend(
                methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())),
            );
        }
        // It takes back what others spent.
        routes.sort_by_key(|(_, path)| path == "/global/spend/reset");
        let config = cast.ledger.app.config();
        let mut got: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (method, path) in &routes {
            let called = path.replace("{model}", "m").replace("{model_id}", "m").replace("{key}", "sk-none");
            let operation = path::find(method, &called).ok();
            let mut row = String::new();
            for key in &all {
                row.push(match &operation {
                    Some(
                        operation @ (Action::Call { .. }
                        | Action::Models
                        | Action::Model(_)
                        | Action::Liveliness
                        | Action::Readiness
                        | Action::Routes
                        | Action::Metrics
                        | Action::Explain(_)),
                    ) => by_filter(&cast.ledger, operation, &called, key, &config.general).await,
                    _ => {
                        let body = (method != "GET").then(|| json!({}));
                        let (_, _, answer) = cast.ledger.call(method, &called, Some(key), body).await;
                        let message = answer["error"]["message"].as_str().unwrap_or_default();
                        assert!(!message.starts_with("Not Found: "), "{method} {called}: {message}");
                        verdict(message)
                    }
                });
            }
            got.entry(row).or_default().push(format!("{method} {path}"));
        }
        let expected: BTreeMap<String, Vec<String>> = TABLE
            .iter()
            .map(|(row, routes)| {
                ((*row).to_owned(), routes.iter().map(|route| (*route).to_owned()).collect())
            })
            .collect();
        let sorted = |map: BTreeMap<String, Vec<String>>| -> Vec<(String, Vec<String>)> {
            map.into_iter()
                .map(|(row, mut routes)| {
                    routes.sort();
                    (row, routes)
                })
                .collect()
        };
        let (got, expected) = (sorted(got), sorted(expected));
        assert_eq!(got, expected, "{got:#?}");
    });
}

//! Models through the API: what is taken and refused, who may, what the database and the answers show, how gateways hear of it.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::stored_models;
use crate::{
    control::{
        document::Document,
        ledger::{
            api::cast::Cast,
            rows::{self, Select},
            schema::MODELS,
            testing::{Ledger, MASTER, on_each},
        },
    },
    core::config,
};

const STORES: &str = "
model_list:
- {model_name: own, litellm_params: {model: openai/gpt-4o, api_key: sk-of-the-file}, model_info: {id: own-1}}
general_settings: {store_model_in_db: true}
";
const KEY: &str = "sk-provider-secret-77";

fn model(name: &str, id: &str) -> Value {
    json!({"model_name": name, "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": KEY, "rpm": 5}, "model_info": {"id": id}})
}

async fn call(ledger: &Ledger, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, _, answer) = ledger.call(method, path, Some(MASTER), Some(body)).await;
    (status, answer)
}

/// The parameters of a stored model, unsealed.
async fn params(ledger: &Ledger, id: &str) -> Value {
    let models = stored_models(&ledger.app).await.unwrap().models;
    let found = models.into_iter().find(|model| model.id() == id);
    found.map(|model| Value::Object(model.litellm_params)).unwrap_or_default()
}

fn reconfigure(ledger: &Ledger, yaml: &str, variables: &'static [(&str, &str)]) {
    let env =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    ledger.app.set_config(config::load(yaml, &env, &|_| None).unwrap().config);
}

#[test]
fn a_model_is_added_changed_and_removed() {
    on_each(STORES, |ledger| async move {
        let (status, headers, made) =
            ledger.call("POST", "/model/new", Some(MASTER), Some(model("new", "m1"))).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(headers["x-tollgate-changed"], "models");
        assert_eq!((&made["model_id"], &made["model_name"]), (&json!("m1"), &json!("new")));
        assert_eq!(made["litellm_params"]["model"], "openai/gpt-4o-mini");
        assert_eq!(made["model_info"]["id"], "m1");
        let (status, again) = call(&ledger, "POST", "/model/new", model("other", "m1")).await;
        assert_eq!(status, 400);
        assert!(
            again["error"]["message"].as_str().unwrap().contains("Model id = m1 exists already"),
            "{again}"
        );

        let change =
            json!({"model_info": {"id": "m1", "mode": "chat"}, "litellm_params": {"rpm": 9, "tpm": 100}});
        let (status, changed) = call(&ledger, "POST", "/model/update", change).await;
        assert_eq!((status, &changed["model_name"]), (200, &json!("new")), "{changed}");
        let kept = json!({"model": "openai/gpt-4o-mini", "api_key": KEY, "rpm": 9, "tpm": 100});
        assert_eq!(params(&ledger, "m1").await, kept);
        let change = json!({"model_name": "renamed", "litellm_params": {"rpm": null}, "model_info": {"id": "evil", "mode": null}});
        let (status, changed) = call(&ledger, "PATCH", "/model/m1/update", change).await;
        assert_eq!((status, &changed["model_name"]), (200, &json!("renamed")), "{changed}");
        assert_eq!(changed["model_info"], json!({"id": "m1"}));
        assert_eq!(
            params(&ledger, "m1").await,
            json!({"model": "openai/gpt-4o-mini", "api_key": KEY, "tpm": 100})
        );

        let (status, gone) = call(&ledger, "POST", "/model/delete", json!({"id": "m1"})).await;
        assert_eq!((status, gone), (200, json!({"message": "Model: m1 deleted successfully"})));
        let missing = json!({"error": "Model id = m1 not found on litellm proxy"});
        for (method, path, body, expected) in [
            ("POST", "/model/delete", json!({"id": "m1"}), 400),
            ("POST", "/model/update", json!({"model_info": {"id": "m1"}}), 400),
            ("PATCH", "/model/m1/update", json!({}), 404),
        ] {
            let (status, answer) = call(&ledger, method, path, body).await;
            assert_eq!((status, &answer["detail"]), (expected, &missing), "{path}");
        }
        let (_, made) = call(
            &ledger,
            "POST",
            "/model/new",
            json!({"model_name": "x", "litellm_params": {"model": "openai/x"}}),
        )
        .await;
        assert_eq!(made["model_info"]["id"].as_str().unwrap().len(), 36, "a UUID of its own");
    });
}

#[test]
fn wrong_models_are_refused_without_showing_a_key() {
    on_each(STORES, |ledger| async move {
        call(&ledger, "POST", "/model/new", model("new", "m1")).await;
        let with = |params: Value| {
            let mut all = json!({"model": "openai/gpt-4o-mini", "api_key": KEY});
            all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
            json!({"model_name": "bad", "litellm_params": all, "model_info": {"id": "bad"}})
        };
        for (body, status, says) in [
            (json!({"litellm_params": {"model": "openai/x", "api_key": KEY}}), 422, "Field required"),
            (json!({"model_name": "bad"}), 422, "Field required"),
            (json!({"model_name": "bad", "litellm_params": KEY}), 422, "dictionary"),
            (json!({"model_name": "bad", "litellm_params": {"api_key": KEY}}), 400, "`litellm_params.model`"),
            (with(json!({"model": "no-such-model"})), 400, "LLM Provider NOT provided"),
            (with(json!({"api_base": "nonsense"})), 400, "api_base"),
            (with(json!({"timeout": "soon"})), 400, "`litellm_params.timeout`"),
            (with(json!({"input_cost_per_token": "cheap"})), 400, "input_cost_per_token"),
            (with(json!({"api_key": "sk-with\nbreak"})), 400, "api_key"),
            (
                json!({"model_name": "bad", "litellm_params": {"model": "openai/x"}, "model_info": {"id": 7}}),
                422,
                "valid string",
            ),
            (
                json!({"model_name": "bad", "litellm_params": {"model": "openai/x"}, "model_info": {"id": "own-1"}}),
                400,
                "Model id = own-1 is a model of the configuration file",
            ),
        ] {
            let (given, answer) = call(&ledger, "POST", "/model/new", body.clone()).await;
            let text = answer.to_string();
            assert_eq!(given, status, "{body}: {text}");
            // Of the two shapes, pydantic's repeats the caller's own input.
            assert!(text.contains(says) && (status == 422 || !text.contains(KEY)), "{says} in {text}");
            assert!(!text.contains("model_list"), "{text}");
        }
        let bad = json!({"model_info": {"id": "m1"}, "litellm_params": {"timeout": "soon"}});
        let (status, answer) = call(&ledger, "POST", "/model/update", bad).await;
        assert!(status == 400 && !answer.to_string().contains(KEY), "{answer}");
        assert_eq!(params(&ledger, "m1").await["timeout"], Value::Null, "what is refused changes nothing");
        let (status, _) = call(&ledger, "POST", "/model/update", json!({"model_info": {}})).await;
        assert_eq!(status, 400);
        for body in [json!({"id": "own-1"}), json!({"id": "nobody"})] {
            assert_eq!(call(&ledger, "POST", "/model/delete", body).await.0, 400);
        }
        assert_eq!(stored_models(&ledger.app).await.unwrap().models.len(), 1);
    });
}

#[test]
fn without_the_setting_nothing_is_stored() {
    on_each("", |ledger| async move {
        for (method, path, body) in [
            ("POST", "/model/new", model("new", "m1")),
            ("POST", "/model/update", json!({"model_info": {"id": "m1"}})),
            ("PATCH", "/model/m1/update", json!({})),
            ("POST", "/model/delete", json!({"id": "m1"})),
        ] {
            let (status, answer) = call(&ledger, method, path, body).await;
            assert_eq!(status, 500, "{path}");
            assert!(
                answer["error"]["message"].as_str().unwrap().contains("store_model_in_db: true"),
                "{answer}"
            );
        }
        let (status, told) = ledger.envoy("GET", "/internal/models", None).await;
        assert_eq!((status, told), (200, json!({"revision": 0, "models": []})));
    });
}

#[test]
fn only_admins_change_models() {
    on_each(STORES, |ledger| async move {
        let cast = Cast::new(ledger).await;
        for (who, refusal) in [
            ("viewer", 403),
            ("chief", 401),
            ("lead", 401),
            ("loner", 401),
            ("service", 401),
            ("nobody", 401),
        ] {
            for (method, path, body) in [
                ("POST", "/model/new", model("new", "m1")),
                ("POST", "/model/update", json!({"model_info": {"id": "m1"}})),
                ("PATCH", "/model/m1/update", json!({})),
                ("POST", "/model/delete", json!({"id": "m1"})),
            ] {
                assert_eq!(cast.call(who, method, path, body).await.0, refusal, "{who} {path}");
            }
        }
        let (status, made) = cast.call("admin", "POST", "/model/new", model("new", "m1")).await;
        assert_eq!((status, &made["created_by"]), (200, &json!("admin")));
    });
}

#[test]
fn keys_are_sealed_at_rest_and_shown_to_nobody() {
    on_each(STORES, |ledger| async move {
        let mut body = model("new", "m1");
        body["litellm_params"]["extra_headers"] = json!({"x-team": "secret-header-value"});
        let (_, made) = call(&ledger, "POST", "/model/new", body).await;
        let shown = ledger.admin("GET", "/model/info?litellm_model_id=m1", None).await;
        let entry = &shown["data"][0];
        assert_eq!((&entry["model_name"], &entry["model_info"]["db_model"]), (&json!("new"), &json!(true)));
        assert_eq!(entry["litellm_params"]["rpm"], 5);
        let groups = ledger.admin("GET", "/model_group/info", None).await;
        assert_eq!(groups["data"][1]["model_group"], "new");
        let row = {
            let mut connection = ledger.app.db.read().await.unwrap();
            rows::select(&mut connection, &MODELS, &Select::default()).await.unwrap().remove(0)
        };
        assert!(row["litellm_params"].as_str().unwrap().starts_with("sealed-v1/"));
        for text in [made.to_string(), shown.to_string(), groups.to_string(), Value::Object(row).to_string()]
        {
            assert!(!text.contains(KEY) && !text.contains("secret-header-value"), "{text}");
        }
        let counted = json!({"model": "new", "messages": [{"role": "user", "content": "hi"}]});
        let (status, counted) = call(&ledger, "POST", "/utils/token_counter", counted).await;
        assert_eq!((status, &counted["model_used"]), (200, &json!("gpt-4o-mini")), "{counted}");
        let price = json!({"model": "new", "messages": [{"role": "user", "content": "hi"}]});
        let (status, price) = call(&ledger, "POST", "/spend/calculate", price).await;
        assert!(status == 200 && price["cost"].as_f64().is_some_and(|cost| cost > 0.0), "{price}");
    });
}

#[test]
fn another_salt_opens_nothing_and_says_so() {
    on_each(STORES, |ledger| async move {
        // Without a salt the master key seals.
        call(&ledger, "POST", "/model/new", model("new", "m1")).await;
        reconfigure(&ledger, STORES, &[("LITELLM_MASTER_KEY", MASTER), ("LITELLM_SALT_KEY", "sk-salt")]);
        assert_eq!(params(&ledger, "m1").await, Value::Null);
        let (status, answer) = call(&ledger, "PATCH", "/model/m1/update", json!({"model_name": "x"})).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 500 && message.contains("m1") && message.contains("LITELLM_SALT_KEY"), "{message}");
        // What cannot be opened can still be removed, and is in nobody's way.
        call(&ledger, "POST", "/model/new", model("good", "m2")).await;
        let told = ledger.envoy("GET", "/internal/models", None).await.1;
        assert_eq!(
            (told["models"].as_array().unwrap().len(), &told["models"][0]["model_name"]),
            (1, &json!("good"))
        );
        assert_eq!(call(&ledger, "POST", "/model/delete", json!({"id": "m1"})).await.0, 200);
        // The salt goes first, whatever the master key is.
        reconfigure(
            &ledger,
            STORES,
            &[("LITELLM_MASTER_KEY", "sk-new-master"), ("LITELLM_SALT_KEY", "sk-salt")],
        );
        assert_eq!(params(&ledger, "m2").await["api_key"], KEY);
    });
}

#[test]
fn gateways_hear_of_changes() {
    on_each(STORES, |ledger| async move {
        let ask = |query: String| {
            let ledger = &ledger;
            async move { ledger.envoy("GET", &format!("/internal/models{query}"), None).await }
        };
        for key in [None, Some(MASTER)] {
            assert_eq!(ledger.call("GET", "/internal/models", key, None).await.0, 401);
        }
        assert_eq!(ask(String::new()).await, (200, json!({"revision": 0, "models": []})));
        assert_eq!(ask("?since=0".to_owned()).await, (204, Value::Null));
        assert_eq!(ask("?since=x".to_owned()).await.0, 400);
        call(&ledger, "POST", "/model/new", model("new", "m1")).await;
        let (status, told) = ask("?since=0".to_owned()).await;
        assert_eq!((status, &told["models"][0]["litellm_params"]["api_key"]), (200, &json!(KEY)));
        let revision = told["revision"].as_u64().unwrap();
        // Other changes of the ledger are none of these.
        ledger.admin("POST", "/key/generate", Some(json!({}))).await;
        assert_eq!(ask(format!("?since={revision}")).await, (204, Value::Null));
        // One that waits is woken.
        let waiting = ask(format!("?since={revision}&wait_ms=30000"));
        let changing = call(&ledger, "POST", "/model/delete", json!({"id": "m1"}));
        let ((status, told), _) = tokio::join!(waiting, changing);
        assert_eq!((status, &told["models"]), (200, &json!([])));
        assert!(told["revision"].as_u64().unwrap() > revision);
        // A database that was put in its place is another one, whatever its revision.
        assert_eq!(ask("?since=900000".to_owned()).await.0, 200);
        // At the end nobody is kept waiting.
        ledger.app.live().close();
        let newest = told["revision"].as_u64().unwrap();
        assert_eq!(ask(format!("?since={newest}&wait_ms=30000")).await.0, 204);
    });
}

#[test]
fn what_another_ledger_changed_is_noticed() {
    on_each(STORES, |ledger| async move {
        let changing = async {
            // As the other would: in the database, without a word to this one.
            let mut tx = ledger.app.db.write().await.unwrap();
            tx.record_changed(super::CHANGED);
            tx.commit().await.unwrap();
        };
        let waiting = ledger.envoy("GET", "/internal/models?since=0&wait_ms=30000", None);
        let ((status, _), ()) = tokio::join!(waiting, changing);
        assert_eq!(status, 200);
    });
}

#[test]
fn a_call_waits_for_the_gateway_of_its_ledger() {
    on_each(STORES, |ledger| async move {
        ledger.app.live().expect_gateway();
        let ledger = Arc::new(ledger);
        let gateway = async {
            let (_, told) =
                ledger.envoy("GET", "/internal/models?since=0&applied=0&wait_ms=30000", None).await;
            told["revision"].as_u64().unwrap()
        };
        let mut adding = Box::pin(call(&ledger, "POST", "/model/new", model("new", "m1")));
        // Polled together until the gateway has heard of it: the call is not over.
        let revision = tokio::select! { revision = gateway => revision, _ = &mut adding => panic!("nobody serves it yet") };
        let early = tokio::time::timeout(Duration::from_millis(50), &mut adding).await;
        assert!(early.is_err(), "nobody serves it yet: {early:?}");
        let (status, _) =
            ledger.envoy("GET", &format!("/internal/models?since={revision}&applied={revision}"), None).await;
        assert_eq!(status, 204);
        assert_eq!(adding.await.0, 200);
        // Nobody confirms any more: the call is answered all the same, and the next one does not wait.
        assert_eq!(call(&ledger, "POST", "/model/delete", json!({"id": "m1"})).await.0, 200);
        assert!(!ledger.app.live().has_gateway());
        assert_eq!(call(&ledger, "POST", "/model/new", model("new", "m1")).await.0, 200);
    });
}

#[test]
fn a_model_may_name_what_the_gateway_has() {
    on_each(STORES, |ledger| async move {
        let own = "environment_variables: {OWN_KEY: sk-own}\nmodel_list: []\n";
        let document = Document {
            value: serde_yaml::from_str(own).unwrap(),
            files: Vec::new(),
            text: None,
            remarks: Vec::new(),
        };
        ledger.app.live().set_settings(&document);
        let named = |id: &str, name: &str| {
            let params = json!({"model": "openai/x", "api_key": format!("os.environ/{name}")});
            json!({"model_name": "n", "litellm_params": params, "model_info": {"id": id}})
        };
        // Somewhere else a gateway may have it.
        assert_eq!(call(&ledger, "POST", "/model/new", named("far", "NOBODYS_KEY")).await.0, 200);
        call(&ledger, "POST", "/model/delete", json!({"id": "far"})).await;
        ledger.envoy("GET", "/internal/models?applied=900000", None).await;
        let (status, answer) = call(&ledger, "POST", "/model/new", named("near", "NOBODYS_KEY")).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains("`os.environ/NOBODYS_KEY`"), "{message}");
        assert_eq!(call(&ledger, "POST", "/model/new", named("near", "OWN_KEY")).await.0, 200);
        assert_eq!(params(&ledger, "near").await["api_key"], "os.environ/OWN_KEY", "stored as it was given");
    });
}

#[test]
fn a_model_of_a_team_is_told_to_the_team() {
    on_each(STORES, |ledger| async move {
        ledger.admin("POST", "/team/new", Some(json!({"team_id": "t1", "models": ["own"]}))).await;
        let of = |team: &str| {
            json!({"model_name": "theirs", "litellm_params": {"model": "openai/gpt-4o", "api_key": KEY},
                   "model_info": {"id": "m1", "team_id": team}})
        };
        let (status, answer) = call(&ledger, "POST", "/model/new", of("nobodys")).await;
        assert_eq!(status, 404, "{answer}");
        let made = ledger.admin("POST", "/model/new", Some(of("t1"))).await;
        let name = made["model_name"].as_str().unwrap();
        assert!(name.starts_with("model_name_t1_"), "{made}");
        assert_eq!(made["model_info"]["team_public_model_name"], "theirs");
        let team = async || ledger.admin("GET", "/team/info?team_id=t1", None).await["team_info"].clone();
        let there = team().await;
        assert_eq!(there["models"], json!(["own", "theirs"]));
        assert_eq!(there["litellm_model_table"]["model_aliases"], json!({"theirs": name}));

        // What was shown and comes back changes nothing; a new name is the team's name for it.
        let again = json!({"model_name": name, "model_info": {"id": "m1"}});
        ledger.admin("POST", "/model/update", Some(again)).await;
        assert_eq!(team().await["models"], json!(["own", "theirs"]));
        let renamed = json!({"model_name": "new", "model_info": {"id": "m1"}});
        let made = ledger.admin("POST", "/model/update", Some(renamed)).await;
        let there = team().await;
        assert_eq!(there["models"], json!(["own", "new"]));
        assert_eq!(there["litellm_model_table"]["model_aliases"], json!({"new": made["model_name"]}));

        ledger.admin("POST", "/model/delete", Some(json!({"id": "m1"}))).await;
        let there = team().await;
        assert_eq!((&there["models"], &there["litellm_model_table"]), (&json!(["own"]), &Value::Null));

        // The last name stays: an empty list would be all models.
        ledger.admin("POST", "/team/new", Some(json!({"team_id": "t2"}))).await;
        ledger.admin("POST", "/model/new", Some(of("t2"))).await;
        ledger.admin("POST", "/model/delete", Some(json!({"id": "m1"}))).await;
        let there = ledger.admin("GET", "/team/info?team_id=t2", None).await;
        assert_eq!(there["team_info"]["models"], json!(["theirs"]));
    });
}

#[test]
fn a_teams_admin_makes_changes_and_deletes_its_models_with_keys_of_its_own() {
    on_each(STORES, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let model = |team: &str, params: Value| json!({"model_name": "own", "litellm_params": params, "model_info": {"id": "of-t1", "team_id": team}});
        let good = json!({"model": "openai/gpt-4o", "api_key": "k"});
        cast.ledger.admin("POST", "/team/new", Some(json!({"team_id": "t2"}))).await;
        let new = "/model/new";
        cast.script(&[
            ("member", "POST", new, model("t1", good.clone()), 403, Value::Null),
            ("loner", "POST", new, model("t1", good.clone()), 403, Value::Null),
            ("service", "POST", new, model("t1", good.clone()), 401, Value::Null),
            ("lead", "POST", new, model("t2", good.clone()), 403, Value::Null),
            ("lead", "POST", new, json!({"model_name": "own", "litellm_params": good}), 401, Value::Null),
            // The gateway's keys are not the team's to send somewhere.
            (
                "lead",
                "POST",
                new,
                model("t1", json!({"model": "openai/x", "api_base": "http://h/v1"})),
                403,
                Value::Null,
            ),
            (
                "lead",
                "POST",
                new,
                model("t1", json!({"model": "openai/x", "api_key": "os.environ/OPENAI_API_KEY"})),
                403,
                Value::Null,
            ),
            (
                "lead",
                "POST",
                new,
                model("t1", json!({"model": "openai/x", "api_key": "k", "litellm_credential_name": "c"})),
                403,
                Value::Null,
            ),
            ("lead", "POST", new, model("t1", good.clone()), 200, json!({"model_id": "of-t1"})),
            ("member", "POST", "/model/update", json!({"model_info": {"id": "of-t1"}}), 403, Value::Null),
            (
                "lead",
                "POST",
                "/model/update",
                json!({"litellm_params": {"rpm": 3}, "model_info": {"id": "of-t1"}}),
                200,
                Value::Null,
            ),
            (
                "lead",
                "PATCH",
                "/model/of-t1/update",
                json!({"model_info": {"team_id": "t2"}}),
                403,
                Value::Null,
            ),
            (
                "lead",
                "PATCH",
                "/model/of-t1/update",
                json!({"model_info": {"team_id": null}}),
                403,
                Value::Null,
            ),
            (
                "lead",
                "PATCH",
                "/model/of-t1/update",
                json!({"litellm_params": {"api_key": null}}),
                403,
                Value::Null,
            ),
            ("lead", "POST", "/model/update", json!({"model_info": {"id": "nobodys"}}), 401, Value::Null),
            ("loner", "POST", "/model/delete", json!({"id": "of-t1"}), 403, Value::Null),
            ("lead", "POST", "/model/delete", json!({"id": "of-t1"}), 200, Value::Null),
            ("lead", "POST", "/model/delete", json!({"id": "of-t1"}), 401, Value::Null),
        ])
        .await;
    });
}

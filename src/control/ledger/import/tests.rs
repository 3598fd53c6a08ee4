//! Taking over LiteLLM's rows, as its own tables have them.

use sqlx::{AssertSqlSafe, Connection, Executor};

use super::*;
use crate::control::ledger::{seal::Sealer, testing};

/// Tables as LiteLLM's Prisma schema makes them, shortened.
const LITELLM: &str = r#"
CREATE TABLE "LiteLLM_BudgetTable" ("budget_id" TEXT PRIMARY KEY, "max_budget" DOUBLE PRECISION, "soft_budget" DOUBLE PRECISION,
  "max_parallel_requests" INTEGER, "tpm_limit" BIGINT, "rpm_limit" BIGINT, "model_max_budget" JSONB, "budget_duration" TEXT,
  "budget_reset_at" TIMESTAMP(3), "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "created_by" TEXT NOT NULL,
  "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updated_by" TEXT NOT NULL);
CREATE TABLE "LiteLLM_OrganizationTable" ("organization_id" TEXT PRIMARY KEY, "organization_alias" TEXT NOT NULL, "budget_id" TEXT NOT NULL,
  "metadata" JSONB NOT NULL DEFAULT '{}', "models" TEXT[], "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0, "model_spend" JSONB NOT NULL DEFAULT '{}',
  "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "created_by" TEXT NOT NULL);
CREATE TABLE "LiteLLM_ModelTable" ("id" SERIAL PRIMARY KEY, "aliases" JSONB, "created_by" TEXT NOT NULL);
CREATE TABLE "LiteLLM_TeamTable" ("team_id" TEXT PRIMARY KEY, "team_alias" TEXT, "organization_id" TEXT, "admins" TEXT[], "members" TEXT[],
  "members_with_roles" JSONB NOT NULL DEFAULT '{}', "metadata" JSONB NOT NULL DEFAULT '{}', "max_budget" DOUBLE PRECISION, "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0,
  "models" TEXT[], "blocked" BOOLEAN NOT NULL DEFAULT false, "model_id" INTEGER, "a_new_column" POINT);
CREATE TABLE "LiteLLM_UserTable" ("user_id" TEXT PRIMARY KEY, "user_email" TEXT, "user_role" TEXT, "teams" TEXT[] DEFAULT ARRAY[]::TEXT[],
  "max_budget" DOUBLE PRECISION, "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0, "metadata" JSONB NOT NULL DEFAULT '{}', "models" TEXT[]);
CREATE TABLE "LiteLLM_TeamMembership" ("user_id" TEXT NOT NULL, "team_id" TEXT NOT NULL, "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0, "budget_id" TEXT,
  PRIMARY KEY ("user_id", "team_id"));
CREATE TABLE "LiteLLM_EndUserTable" ("user_id" TEXT PRIMARY KEY, "alias" TEXT, "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0, "budget_id" TEXT,
  "blocked" BOOLEAN NOT NULL DEFAULT false);
CREATE TABLE "LiteLLM_VerificationToken" ("token" TEXT PRIMARY KEY, "key_name" TEXT, "key_alias" TEXT, "soft_budget_cooldown" BOOLEAN NOT NULL DEFAULT false,
  "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0, "expires" TIMESTAMP(3), "models" TEXT[], "aliases" JSONB NOT NULL DEFAULT '{}', "user_id" TEXT, "team_id" TEXT,
  "metadata" JSONB NOT NULL DEFAULT '{}', "blocked" BOOLEAN, "tpm_limit" BIGINT, "rpm_limit" BIGINT, "max_budget" DOUBLE PRECISION, "budget_duration" TEXT,
  "budget_reset_at" TIMESTAMP(3), "organization_id" TEXT, "budget_limits" JSONB, "created_at" TIMESTAMP(3) DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE "LiteLLM_BudgetWindowSpend" ("entity_type" TEXT NOT NULL, "entity_id" TEXT NOT NULL, "window_duration" TEXT NOT NULL, "window_start" TIMESTAMP(3) NOT NULL,
  "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0, PRIMARY KEY ("entity_type", "entity_id", "window_duration"));
CREATE TABLE "LiteLLM_DailyUserSpend" ("id" TEXT PRIMARY KEY, "user_id" TEXT, "date" TEXT NOT NULL, "api_key" TEXT NOT NULL, "model" TEXT, "model_group" TEXT,
  "custom_llm_provider" TEXT, "prompt_tokens" BIGINT NOT NULL DEFAULT 0, "completion_tokens" BIGINT NOT NULL DEFAULT 0, "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0,
  "api_requests" BIGINT NOT NULL DEFAULT 0, "failed_requests" BIGINT NOT NULL DEFAULT 0);
CREATE TABLE "LiteLLM_SpendLogs" ("request_id" TEXT PRIMARY KEY, "call_type" TEXT NOT NULL, "api_key" TEXT NOT NULL DEFAULT '', "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0,
  "total_tokens" INTEGER NOT NULL DEFAULT 0, "startTime" TIMESTAMP(3) NOT NULL, "endTime" TIMESTAMP(3) NOT NULL, "model" TEXT NOT NULL DEFAULT '', "user" TEXT DEFAULT '',
  "metadata" JSONB DEFAULT '{}', "request_tags" JSONB DEFAULT '[]');
CREATE TABLE "LiteLLM_ProxyModelTable" ("model_id" TEXT PRIMARY KEY, "model_name" TEXT NOT NULL, "litellm_params" JSONB NOT NULL, "model_info" JSONB,
  "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "created_by" TEXT NOT NULL DEFAULT 'x', "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updated_by" TEXT NOT NULL DEFAULT 'x');
CREATE TABLE "LiteLLM_CredentialsTable" ("credential_id" TEXT PRIMARY KEY, "credential_name" TEXT UNIQUE NOT NULL, "credential_values" JSONB NOT NULL, "credential_info" JSONB);
CREATE TABLE "LiteLLM_Config" ("param_name" TEXT PRIMARY KEY, "param_value" JSONB);
INSERT INTO "LiteLLM_BudgetTable" (budget_id, max_budget, budget_duration, budget_reset_at, created_by, updated_by)
  VALUES ('b', 12.5, '30d', '2026-02-01 00:00:00', 'x', 'x');
INSERT INTO "LiteLLM_OrganizationTable" (organization_id, organization_alias, budget_id, created_by, spend) VALUES ('o', 'Org', 'b', 'x', 3);
INSERT INTO "LiteLLM_ModelTable" (aliases, created_by) VALUES ('{"fast": "gpt-4o-mini"}', 'x');
INSERT INTO "LiteLLM_TeamTable" (team_id, team_alias, organization_id, members_with_roles, models, spend, model_id)
  VALUES ('t', 'Team', 'o', '[{"role": "admin", "user_id": "u"}]', '{gpt-4o,"with,comma"}', 0.1, 1);
INSERT INTO "LiteLLM_UserTable" (user_id, user_email, user_role, teams, spend) VALUES ('u', 'u@x', 'internal_user', '{t}', 1e-7), ('litellm-proxy-budget', NULL, NULL, '{}', 77);
INSERT INTO "LiteLLM_TeamMembership" VALUES ('u', 't', 0.2, 'b');
INSERT INTO "LiteLLM_EndUserTable" VALUES ('e', NULL, 0.3, NULL, true);
INSERT INTO "LiteLLM_VerificationToken" (token, key_name, key_alias, spend, expires, models, aliases, user_id, team_id, metadata, rpm_limit, max_budget)
  VALUES ('hash1', 'sk-...1111', 'same', 0.30000000000000004, '2027-01-01 10:00:00.5', '{gpt-4o}', '{"a": "b"}', 'u', 't', '{"tags": ["x"]}', 9007199254740993, 10),
         ('hash2', 'sk-...2222', 'same', 0, NULL, '{}', '{}', NULL, NULL, '{}', NULL, NULL),
         ('hash3', 'sk-...3333', NULL, 0, NULL, '{}', '{}', NULL, 'litellm-dashboard', '{}', NULL, NULL);
UPDATE "LiteLLM_VerificationToken" SET budget_limits = '[{"budget_duration": "7d", "max_budget": 3, "reset_at": "2026-01-19T00:00:00"}]' WHERE token = 'hash1';
INSERT INTO "LiteLLM_BudgetWindowSpend" VALUES ('Key', 'hash1', '7d', NOW() AT TIME ZONE 'utc' - INTERVAL '1 day', 0.75), ('Team', 't', '1h', '2026-01-01', 9);
INSERT INTO "LiteLLM_DailyUserSpend" VALUES ('1', 'u', '2026-01-14', 'hash1', 'gpt-4o', 'gpt-4o', 'openai', 10, 20, 0.5, 3, 1);
INSERT INTO "LiteLLM_SpendLogs" VALUES ('r1', 'acompletion', 'hash1', 0.25, 30, '2026-01-14 10:00:00', '2026-01-14 10:00:01.5', 'gpt-4o', 'u', '{"status": "success"}', '["x"]');
INSERT INTO "LiteLLM_ProxyModelTable" (model_id, model_name, litellm_params, model_info) VALUES
  ('m', 'gpt', '{"model": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXO53u77g0XSJUDw7xLT5aGCq2SZ8QMFMYw_LkMsk=", "rpm": 7, "api_key": "v3:gcm:AAECAwQFBgcICQoLp2v2WObPT-_QqX0LOCN3BWoaVxF8yV5AME22GQo="}', '{"mode": "chat"}'),
  ('c', 'with credentials', '{"model": "v3:gcm:AAECAwQFBgcICQoLu3C-RvXJFuHEuCISZFgIwrb1O2Tu-JMsdz3iF34=", "litellm_credential_name": "shared"}', NULL),
  ('own', 'of our own', '{"model": "openai/x", "api_base": "http://elsewhere", "api_key": "os.environ/LITELLM_MASTER_KEY"}', NULL),
  ('bad', 'of another key', '{"model": "v2:gcm:AAECAwQFBgcICQoL7IQdjfeuBcceGpTDfrXOnvOn9vDilERphGmTF-Z="}', NULL);
INSERT INTO "LiteLLM_CredentialsTable" VALUES ('1', 'shared', '{"api_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXA4zoW0PZHCb_Fd1z4rcokzatAZIDPBg=", "api_base": "http://a.test/v1"}', '{}');
INSERT INTO "LiteLLM_Config" VALUES ('general_settings', '{}'), ('router_settings', '{}');
"#;

/// The URL of a database of LiteLLM, when there is a Postgres server.
pub(super) async fn litellm() -> Option<String> {
    let url = testing::postgres_url().await?;
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    for statement in LITELLM.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    Some(url)
}

pub(super) fn keys() -> Keys {
    Keys::with("sk-salt-1", "sk-ours")
}

fn text_of<'r>(row: &'r Record, name: &str) -> &'r str {
    text(row, name)
}

async fn get(db: &Db, table: &Table, key: &[&str]) -> Record {
    let mut connection = db.read().await.unwrap();
    rows::get(&mut connection, table, key).await.unwrap().unwrap()
}

#[test]
fn litellms_rows_become_ours_once() {
    testing::on_each("", |ledger| async move {
        let Some(url) = litellm().await else { return };
        let db = &ledger.app.db;
        // What is here already stays as it is.
        let mut tx = db.write().await.unwrap();
        let ours = json!({"user_id": "e", "spend": 9, "blocked": false});
        rows::insert(tx.connection(), &END_USERS, ours.as_object().unwrap()).await.unwrap();
        tx.commit().await.unwrap();
        let revision = db.snapshot().await.unwrap().1;
        let mut source = Source::open(&url).await.unwrap();

        let would = import(&mut source, db, true, true, &keys()).await.unwrap();
        assert_eq!(db.snapshot().await.unwrap().1, revision);
        let did = import(&mut source, db, true, false, &keys()).await.unwrap();
        for (what, counts) in [
            ("budgets", (1, 1, 0)),
            ("organizations", (1, 1, 0)),
            ("teams", (1, 1, 0)),
            ("users", (2, 1, 1)),
            ("team members", (1, 1, 0)),
            ("end users", (1, 0, 0)),
            ("keys", (3, 2, 1)),
            ("models", (4, 2, 2)),
            ("spend by period", (2, 1, 1)),
            ("sums by day", (1, 1, 0)),
            ("spend logs", (1, 1, 0)),
        ] {
            assert_eq!((would.counts(what), did.counts(what)), (counts, counts), "{what}");
        }
        let text = would.shown("`x`", true);
        assert!(text.contains("nothing was written"), "{text}");
        for note in [
            "keys: the alias `same` is taken by another key; this one becomes `same-hash2`.",
            "models: `of another key` (id `bad`) is not taken over: it was encrypted with another key",
            "models: `of our own` (id `own`) is not taken over: it names `LITELLM_MASTER_KEY`, which is the gateway's own secret",
            "(LiteLLM_Config: `general_settings`, `router_settings`) are not taken over",
            "credentials: 1 found; their values stand in the models that name them",
        ] {
            assert!(text.contains(note), "{note} in {text}");
        }
        for (id, params) in [
            ("m", json!({"model": "openai/gpt-4o", "rpm": 7, "api_key": "sk-provider-3"})),
            ("c", json!({"model": "openai/gpt-4o", "api_key": "sk-cred", "api_base": "http://a.test/v1"})),
        ] {
            let row = get(db, &schema::MODELS, &[id]).await;
            let opened = Sealer::from_salt("sk-ours").unseal(text_of(&row, "litellm_params")).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&opened).unwrap(), params, "{id}");
            assert_eq!(row["model_info"]["id"], id);
        }
        assert!(text.contains("organization members: the database has no table"), "{text}");
        for (table, key, column, value) in [
            (&BUDGETS, &["b"][..], "max_budget", json!(12.5)),
            (&BUDGETS, &["b"], "budget_reset_at", json!("2026-02-01T00:00:00Z")),
            (&ORGANIZATIONS, &["o"], "budget_id", json!("b")),
            (&TEAMS, &["t"], "models", json!(["gpt-4o", "with,comma"])),
            (&TEAMS, &["t"], "model_aliases", json!({"fast": "gpt-4o-mini"})),
            (&TEAMS, &["t"], "members_with_roles", json!([{"role": "admin", "user_id": "u"}])),
            (&TEAMS, &["t"], "blocked", json!(false)),
            (&USERS, &["u"], "spend", json!(1e-7)),
            (&USERS, &["u"], "teams", json!(["t"])),
            (&TEAM_MEMBERS, &["u", "t"], "spend", json!(0.2)),
            (&END_USERS, &["e"], "spend", json!(9.0)),
            (&KEYS, &["hash1"], "spend", json!(0.3)),
            (&KEYS, &["hash1"], "expires", json!("2027-01-01T10:00:00.5Z")),
            (&KEYS, &["hash1"], "rpm_limit", json!(9_007_199_254_740_993_i64)),
            (&KEYS, &["hash1"], "metadata", json!({"tags": ["x"]})),
            (&KEYS, &["hash1"], "blocked", Value::Null),
            (&KEYS, &["hash1"], "key_alias", json!("same")),
            (&KEYS, &["hash2"], "key_alias", json!("same-hash2")),
            (&SPEND_LOGS, &["r1"], "end_time", json!("2026-01-14T10:00:01.5Z")),
            (&SPEND_LOGS, &["r1"], "user_id", json!("u")),
            (&SPEND_LOGS, &["r1"], "request_tags", json!(["x"])),
        ] {
            assert_eq!(get(db, table, key).await[column], value, "{key:?} {column}");
        }
        let grant = crate::control::ledger::grants::grant(&ledger.app, "hash1").await.unwrap().unwrap();
        assert_eq!((grant.global_spend, grant.organization.is_some()), (77_000_000_000_000, true));

        let several = &grant.key.budget_limits.as_ref().unwrap().0;
        assert_eq!((several[0].max, several[0].spend), (Some(3_000_000_000_000), 750_000_000_000));

        // Again: nothing is written.
        let again = import(&mut source, db, true, false, &keys()).await.unwrap();
        assert!(again.lines.iter().all(|line| line.imported == 0), "{again:?}");
        assert_eq!(get(db, &KEYS, &["hash2"]).await["key_alias"], "same-hash2");
    });
}

#[test]
fn pages_follow_each_other() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(url) = litellm().await else { return };
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        let many = "INSERT INTO \"LiteLLM_TeamMembership\" SELECT 'u' || (n % 70), 't' || (n / 70), 0, NULL FROM generate_series(0, 6999) n";
        connection.execute(many).await.unwrap();
        let target = testing::sqlite("").await;
        let mut source = Source::open(&format!("{url}?schema=public")).await.unwrap();
        let report = import(&mut source, &target.app.db, false, false, &keys()).await.unwrap();
        assert_eq!(report.counts("team members"), (7_001, 7_001, 0));
    });
}

#[test]
fn a_dry_run_makes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(url) = runtime.block_on(litellm()) else { return };
    let folder = std::env::temp_dir().join(format!("tollgate-import-test-{}", std::process::id()));
    let options = |dry_run: bool, to: Option<&String>| Options {
        from: url.clone(),
        to: to.cloned(),
        config: None,
        state_dir: to.is_none().then(|| folder.clone()),
        host: "0.0.0.0".to_owned(),
        port: 4000,
        spend_logs: false,
        salt_key: None,
        dry_run,
    };
    let told = run(&options(true, None)).unwrap();
    assert!(told.contains("would add") && !folder.exists(), "{told}");
    // Into LiteLLM's own database: its tables and ours are side by side.
    run(&options(true, Some(&url))).unwrap();
    assert!(!runtime.block_on(Source::has_ledger(&url)).unwrap());
    run(&options(false, Some(&url))).unwrap();
    assert!(runtime.block_on(Source::has_ledger(&url)).unwrap());
    let told = run(&options(false, None)).unwrap();
    assert!(folder.join("ledger.db").exists() && told.contains("ledger.db"), "{told}");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_source_must_be_postgres() {
    let options = Options {
        from: "mysql://x".to_owned(),
        to: None,
        config: None,
        state_dir: None,
        host: String::new(),
        port: 1,
        spend_logs: false,
        salt_key: None,
        dry_run: true,
    };
    assert!(matches!(run(&options), Err(Failure::Configuration(_))));
}

#[test]
fn a_database_that_is_not_litellms_is_an_error_of_whoever_named_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(url) = runtime.block_on(testing::postgres_url()) else { return };
    let options = Options {
        from: url,
        to: None,
        config: None,
        state_dir: None,
        host: String::new(),
        port: 1,
        spend_logs: false,
        salt_key: None,
        dry_run: true,
    };
    let failure = run(&options).unwrap_err();
    assert!(matches!(failure, Failure::Configuration(_)), "exit code 2");
    assert!(failure.to_string().contains("no table of LiteLLM"), "{failure}");
}

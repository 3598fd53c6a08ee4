//! Databases of LiteLLM with anything in their columns: an import takes over what it says, or nothing, and what it took over is
//! shown and changed like any other row.

use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};

use super::*;
use crate::{
    control::ledger::testing::{self, MASTER},
    core::{
        fuzz::{below, cases, chance},
        random::Random,
    },
};

const SEED: u64 = 0x1a90_11ed;

/// What a column holds.
#[derive(Clone, Copy)]
enum Kind {
    Id,
    Text,
    Texts,
    Json,
    Float,
    Whole,
    Bool,
    Time,
}
use Kind::*;

/// The columns of a table that matter, with what they should hold. Those of its key are never null.
type Columns = &'static [(&'static str, Kind)];

/// What the report calls a table, its name, its columns.
const TABLES: [(&str, &str, Columns); 9] = [
    (
        "budgets",
        "LiteLLM_BudgetTable",
        &[
            ("budget_id", Id),
            ("max_budget", Float),
            ("soft_budget", Float),
            ("max_parallel_requests", Whole),
            ("tpm_limit", Whole),
            ("model_max_budget", Json),
            ("budget_duration", Text),
            ("budget_reset_at", Time),
        ],
    ),
    (
        "organizations",
        "LiteLLM_OrganizationTable",
        &[
            ("organization_id", Id),
            ("organization_alias", Text),
            ("budget_id", Text),
            ("metadata", Json),
            ("models", Texts),
            ("spend", Float),
            ("model_spend", Json),
        ],
    ),
    (
        "teams",
        "LiteLLM_TeamTable",
        &[
            ("team_id", Id),
            ("team_alias", Text),
            ("admins", Texts),
            ("members_with_roles", Json),
            ("metadata", Json),
            ("max_budget", Float),
            ("spend", Float),
            ("models", Texts),
            ("blocked", Bool),
        ],
    ),
    (
        "users",
        "LiteLLM_UserTable",
        &[
            ("user_id", Id),
            ("user_email", Text),
            ("user_role", Text),
            ("teams", Texts),
            ("max_budget", Float),
            ("spend", Float),
            ("metadata", Json),
        ],
    ),
    (
        "team members",
        "LiteLLM_TeamMembership",
        &[("user_id", Id), ("team_id", Id), ("spend", Float), ("budget_id", Text)],
    ),
    (
        "end users",
        "LiteLLM_EndUserTable",
        &[("user_id", Id), ("alias", Text), ("spend", Float), ("budget_id", Text), ("blocked", Bool)],
    ),
    (
        "keys",
        "LiteLLM_VerificationToken",
        &[
            ("token", Id),
            ("key_name", Text),
            ("key_alias", Text),
            ("spend", Float),
            ("expires", Time),
            ("models", Texts),
            ("aliases", Json),
            ("user_id", Text),
            ("team_id", Text),
            ("metadata", Json),
            ("blocked", Bool),
            ("tpm_limit", Whole),
            ("max_budget", Float),
            ("budget_duration", Text),
            ("budget_reset_at", Time),
        ],
    ),
    (
        "models",
        "LiteLLM_ProxyModelTable",
        &[("model_id", Id), ("model_name", Text), ("litellm_params", Json), ("model_info", Json)],
    ),
    (
        "spend logs",
        "LiteLLM_SpendLogs",
        &[
            ("request_id", Id),
            ("call_type", Text),
            ("api_key", Text),
            ("spend", Float),
            ("total_tokens", Whole),
            ("startTime", Time),
            ("endTime", Time),
            ("model", Text),
            ("user", Text),
            ("metadata", Json),
            ("request_tags", Json),
        ],
    ),
];

/// A literal for a column: now and then what nobody expects in it.
fn value(random: &mut Random, kind: Kind) -> String {
    let of = |random: &mut Random, list: &[&str]| list[below(random, list.len())].to_owned();
    match kind {
        Id => format!("'{} {}'", of(random, &["a", "ü%_", "''''", "../x", "é🦀"]), random.bits() % 100_000),
        Text => of(
            random,
            &[
                "NULL",
                "''",
                "'a'",
                "'30d'",
                "'internal_user'",
                "'-5s'",
                "'99999999999999999999d'",
                "'é\u{202e}'",
                "repeat('x', 3000)",
            ],
        ),
        Texts => {
            of(random, &["NULL", "'{}'", "'{a,b}'", "'{a,a,\"\"}'", "'{NULL}'", "ARRAY[repeat('x', 3000)]"])
        }
        Json => of(
            random,
            &[
                "'{}'",
                "'null'",
                "'[]'",
                "'5'",
                "'\"x\"'",
                "'{\"a\": {\"b\": [null, 1e300]}}'",
                "'{\"\": \"\"}'",
                "'[{\"role\": 5}]'",
                "'[{\"user_id\": \"a\", \"role\": \"user\"}]'",
                "'{\"model\": \"openai/gpt-4o\"}'",
                "'{\"model\": [1], \"api_key\": {}}'",
                "'{\"model_rpm_limit\": {\"a\": \"x\"}, \"tags\": 7, \"guardrails\": {}}'",
                "'{\"a\": {\"budget_limit\": -1, \"time_period\": \"x\"}}'",
            ],
        ),
        Float => of(
            random,
            &["0", "-1", "1.5", "1e300", "'NaN'", "'Infinity'", "'-Infinity'", "1e-300", "9007199254740993"],
        ),
        Whole => of(random, &["0", "-1", "7", "2147483647"]),
        Bool => of(random, &["true", "false"]),
        Time => of(
            random,
            &[
                "'2026-01-01'",
                "'0001-01-01'",
                "'9999-12-31 23:59:59.999'",
                "'infinity'",
                "'-infinity'",
                "'2026-02-01 10:00:00'",
            ],
        ),
    }
}

/// A row. A value that the table itself does not take leaves it out.
async fn fill(random: &mut Random, connection: &mut AnyConnection, table: &str, columns: &[(&str, Kind)]) {
    let values: Vec<String> = columns.iter().map(|(_, kind)| value(random, *kind)).collect();
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let mut others = (String::new(), String::new());
    if table == "LiteLLM_BudgetTable" {
        others = (", created_by, updated_by".to_owned(), ", 'x', 'x'".to_owned());
    } else if table == "LiteLLM_OrganizationTable" {
        others = (", created_by".to_owned(), ", 'x'".to_owned());
    }
    let row = format!(
        "INSERT INTO \"{table}\" ({}{}) VALUES ({}{}) ON CONFLICT DO NOTHING",
        names.join(", "),
        others.0,
        values.join(", "),
        others.1
    );
    let _ = connection.execute(AssertSqlSafe(row)).await;
}

#[test]
fn whatever_a_database_holds_an_import_takes_over_what_it_says_or_nothing() {
    let all = cases(12);
    testing::on_each("", move |ledger| async move {
        let Some(url) = super::tests::litellm().await else { return };
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        let db = &ledger.app.db;
        let mut random = chance(SEED);
        let (mut done, mut failed) = (0, 0);
        for case in 0..all {
            for (_, table, columns) in TABLES {
                connection.execute(AssertSqlSafe(format!("DELETE FROM \"{table}\""))).await.unwrap();
                for _ in 0..below(&mut random, 6) {
                    fill(&mut random, &mut connection, table, columns).await;
                }
            }
            let before = db.snapshot().await.unwrap().1;
            let mut source = Source::open(&url).await.unwrap();
            match import(&mut source, db, true, false, &super::tests::keys()).await {
                Ok(report) => {
                    done += 1;
                    for (what, table, _) in TABLES {
                        let (found, imported, skipped) = report.counts(what);
                        let there: i64 =
                            sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM \"{table}\"")))
                                .fetch_one(&mut connection)
                                .await
                                .unwrap();
                        assert_eq!(i64::try_from(found).unwrap(), there, "case {case}: {what}");
                        assert!(imported + skipped <= found, "case {case}: {what}: {report:?}");
                    }
                }
                Err(error) => {
                    failed += 1;
                    assert_eq!(db.snapshot().await.unwrap().1, before, "case {case}: {error}");
                    assert!(!error.to_string().is_empty());
                }
            }
            for path in [
                "/key/list?size=100&return_full_object=true",
                "/user/list",
                "/team/list",
                "/organization/list",
                "/customer/list",
                "/spend/logs",
                "/budget/list",
                "/model/info",
            ] {
                let (status, _, answer) = ledger.call("GET", path, Some(MASTER), None).await;
                assert!(status < 500, "case {case}: {path}: {status} {answer}");
            }
        }
        assert!(done > all / 2, "{done} done, {failed} failed");
    });
}

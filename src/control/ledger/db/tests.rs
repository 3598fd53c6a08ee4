//! One suite on both databases, and what happens to files and servers.

use serde_json::json;

use super::super::{
    App, grants,
    rows::{self, Select, Where},
    schema::KEYS,
    testing::{self, Ledger, MASTER, on_each},
    wall_clock,
};
use super::{error::Trouble, probe::Probe, *};

#[test]
fn rows_come_back_as_they_were() {
    on_each("", |ledger| async move {
        let record = json!({
            "token": "t1", "key_alias": "a'lias", "spend": 0.000_000_012_345, "max_budget": 10.5,
            "models": ["gpt-4", "openai/*"], "metadata": {"a": [1, {"b": null}]}, "blocked": true,
            "tpm_limit": 9_007_199_254_740_993_i64, "expires": "2026-01-15T12:00:00.25Z", "user_id": null,
        });
        let record = record.as_object().unwrap().clone();
        let mut tx = ledger.app.db.write().await.unwrap();
        rows::insert(tx.connection(), &KEYS, &record).await.unwrap();
        tx.record_changed("key:t1");
        assert_eq!(tx.commit().await.unwrap(), ["key:t1"]);
        let mut connection = ledger.app.db.read().await.unwrap();
        let back = rows::get(&mut connection, &KEYS, &["t1"]).await.unwrap().unwrap();
        for (name, value) in &record {
            assert_eq!(back.get(name), Some(value), "{name}");
        }
        assert_eq!((&back["aliases"], &back["allowed_routes"]), (&json!({}), &json!([])));
        let find = |condition: Where| Select::all(vec![condition]);
        for (condition, hits) in [
            (Where::Is("max_budget", json!(10.5)), 1),
            (Where::Has("models", "openai/*".to_owned()), 1),
            (Where::Has("models", "openai/".to_owned()), 0),
            (Where::Holds("key_alias", "A'LI".to_owned()), 1),
            (Where::Holds("key_alias", "%".to_owned()), 0),
            (Where::Empty("user_id"), 1),
            (Where::In("token", vec![json!("x"), json!("t1")]), 1),
            (Where::In("token", vec![]), 0),
            (Where::Before("expires", json!("2026-01-16")), 1),
            (Where::From("expires", json!("2026-01-16")), 0),
        ] {
            let found = rows::select(&mut connection, &KEYS, &find(condition.clone())).await.unwrap();
            assert_eq!(found.len(), hits, "{condition:?}");
        }
    });
}

#[test]
fn revisions_are_counted_and_duplicates_known() {
    on_each("", |ledger| async move {
        let record = json!({"token": "t"}).as_object().unwrap().clone();
        let mut tx = ledger.app.db.write().await.unwrap();
        let first = tx.revision();
        rows::insert(tx.connection(), &KEYS, &record).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = ledger.app.db.write().await.unwrap();
        assert_eq!(tx.revision(), first + 1);
        let again = rows::insert(tx.connection(), &KEYS, &record).await;
        assert!(matches!(again, Err(DbError::Duplicate)), "{again:?}");
    });
}

#[test]
fn tables_of_the_first_version_are_brought_up_to_date() {
    on_each("", |ledger| async move {
        let db = &ledger.app.db;
        let older = [
            "DROP INDEX tollgate_rates_places",
            "ALTER TABLE tollgate_rates DROP COLUMN place",
            "DROP INDEX tollgate_keys_first",
            "ALTER TABLE tollgate_keys DROP COLUMN first_token",
            "DROP TABLE tollgate_former_keys",
            "DROP INDEX tollgate_users_address",
            "DROP INDEX tollgate_spend_logs_call",
            "DROP INDEX tollgate_spend_logs_response",
            "ALTER TABLE tollgate_spend_logs DROP COLUMN call_id",
            "ALTER TABLE tollgate_spend_logs DROP COLUMN response_id",
            "ALTER TABLE tollgate_keys DROP COLUMN budget_limits",
            "ALTER TABLE tollgate_teams DROP COLUMN budget_limits",
            "ALTER TABLE tollgate_users DROP COLUMN budget_limits",
            "INSERT INTO tollgate_rates VALUES ('key:k', 'n', 1, 2, 3, 4, 5)",
            "UPDATE tollgate_state SET schema_version = 1 WHERE id = 1",
        ];
        for statement in older {
            db.write.execute(statement).await.unwrap();
        }
        // The second time there is nothing to do.
        for _ in 0..2 {
            schema::migrate(&db.write).await.unwrap();
            let row = db.write.fetch_one("SELECT parallel, place FROM tollgate_rates").await.unwrap();
            assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (4, 0));
        }
    });
}

#[test]
fn several_may_migrate_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(url) = testing::postgres_url().await else { return };
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let url = url.clone();
            all.spawn(async move { Db::postgres(&url, 2).await.map(drop) });
        }
        for result in all.join_all().await {
            result.unwrap();
        }
    });
}

/// Makes keys until the ledger refuses; how many it answered with 200, the status and the words of the refusal.
async fn keys_until_refused(ledger: &Ledger) -> (Vec<String>, u16, String) {
    let mut made = Vec::new();
    for _ in 0..2_000 {
        let body = json!({"metadata": {"padding": "x".repeat(2_000)}});
        let (status, _, answer) = ledger.call("POST", "/key/generate", Some(MASTER), Some(body)).await;
        if status != 200 {
            return (made, status, answer["error"]["message"].as_str().unwrap_or_default().to_owned());
        }
        made.push(answer["token"].as_str().unwrap().to_owned());
    }
    panic!("it never gets full");
}

/// What a process that opens the file finds, without what only this one's connections may see.
async fn tokens_on_disk(ledger: &Ledger) -> Vec<String> {
    let mut connection = ledger.app.db.target.connect().await.unwrap();
    let rows = connection.fetch_all("SELECT token FROM tollgate_keys").await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_full_disk_refuses_writes_and_what_is_answered_afterwards_is_stored() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = testing::sqlite("").await;
        let db = &ledger.app.db;
        let row = db.write.fetch_one("PRAGMA page_count").await.unwrap();
        let limit = format!("PRAGMA max_page_count = {}", row.get::<i64, _>(0) + 20);
        db.write.execute(AssertSqlSafe(limit)).await.unwrap();
        let (mut made, status, message) = keys_until_refused(&ledger).await;
        assert_eq!(status, 503);
        assert_eq!(
            message,
            "the ledger cannot store this: the disk of its database is full. Nothing was changed; try again later"
        );
        let fault = db.condition().fault();
        assert!(matches!(fault, Some(DbError::Storage(Trouble::Full, _))), "{fault:?}");
        // While it lasts nothing is tried, and reads go on.
        assert!(matches!(db.write().await, Err(DbError::Storage(Trouble::Full, _))));
        assert!(matches!(db.aside().await, Err(DbError::Storage(Trouble::Full, _))));
        ledger.admin("GET", "/key/list", None).await;
        let (status, _) = ledger
            .envoy("POST", "/internal/sync", Some(json!({"node": "n", "batch": {"number": 1, "events": [{"id": "e"}]}})))
            .await;
        assert_eq!(status, 503, "a batch is not acknowledged");
        // There is room again.
        Probe::default().look(db).await;
        assert_eq!(db.condition().fault(), None);
        for _ in 0..3 {
            // What is refused in between ends its transaction and no other's.
            let (status, _, _) = ledger.call("POST", "/key/generate", Some(MASTER), Some(json!({"team_id": "no", "key_alias": ""}))).await;
            assert_ne!(status, 503);
            let answer = ledger.admin("POST", "/key/generate", Some(json!({}))).await;
            made.push(answer["token"].as_str().unwrap().to_owned());
        }
        let (status, reply) = ledger
            .envoy("POST", "/internal/sync", Some(json!({"node": "n", "batch": {"number": 1, "events": [{"id": "e"}]}})))
            .await;
        assert_eq!((status, &reply["acknowledged"]), (200, &json!(1)));
        let there = tokens_on_disk(&ledger).await;
        for token in &made {
            assert!(there.contains(token), "{token} was answered with 200");
        }
    });
}

#[test]
fn a_connection_with_an_open_transaction_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = testing::sqlite("").await;
        // As an automatic rollback leaves it: the driver and the database do not agree.
        ledger.app.db.write.execute("BEGIN").await.unwrap();
        let made = ledger.admin("POST", "/key/generate", Some(json!({}))).await;
        let there = tokens_on_disk(&ledger).await;
        assert_eq!(there, [made["token"].as_str().unwrap()]);
    });
}

#[test]
fn a_file_that_cannot_be_used_is_told_at_once_with_the_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = std::env::temp_dir().join(format!("tollgate-bad-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, content: Vec<u8>| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let good = folder.join("good.db");
        Db::sqlite(&good).await.unwrap().close().await;
        let whole = std::fs::read(&good).unwrap();
        let spoilt = |from: usize, to: usize| {
            let mut bytes = whole.clone();
            bytes[from..to].fill(0xA5);
            bytes
        };
        let rows = [
            (
                "text",
                file("text.db", b"not a database at all, but long enough to look".repeat(100)),
                "file is not a database",
            ),
            ("header", file("header.db", spoilt(0, 64)), "file is not a database"),
            ("page", file("page.db", spoilt(100, 4096)), "database disk image is malformed"),
            ("cut", file("cut.db", whole[..4096].to_vec()), "malformed"),
            ("directory", folder.clone(), "unable to open database file"),
        ];
        for (name, path, reason) in rows {
            let failure = Db::open(None, 2, &path).await.map(drop).unwrap_err().to_string();
            assert!(
                failure.contains(reason) && failure.contains(&path.display().to_string()),
                "{name}: {failure}"
            );
            assert!(!failure.contains("pool timed out"), "{name}: {failure}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    });
}

#[test]
fn damage_in_a_page_that_nobody_reads_is_found_at_the_start_and_refuses_writes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = testing::sqlite("").await;
        for _ in 0..50 {
            let body = json!({"metadata": {"padding": "x".repeat(2_000)}});
            ledger.admin("POST", "/key/generate", Some(body)).await;
        }
        let db = &ledger.app.db;
        db.close().await;
        let path = db.target.file.clone().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 4_096;
        bytes[last..].fill(0xA5);
        std::fs::write(&path, bytes).unwrap();
        let damaged = Db::sqlite(&path).await.unwrap();
        probe::inspect(damaged.clone()).await;
        let fault = damaged.condition().fault();
        assert!(matches!(fault, Some(DbError::Storage(Trouble::Damaged, _))), "{fault:?}");
        assert!(matches!(damaged.write().await, Err(DbError::Storage(Trouble::Damaged, _))));
    });
}

#[test]
fn a_file_that_is_damaged_while_it_is_used_is_told_without_waiting_for_connections() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = testing::sqlite("").await;
        ledger.admin("POST", "/key/generate", Some(json!({}))).await;
        let db = &ledger.app.db;
        let path = db.target.file.clone().unwrap();
        std::fs::write(&path, vec![0xA5; 65_536]).unwrap();
        for suffix in ["-wal", "-shm"] {
            let mut beside = path.clone().into_os_string();
            beside.push(suffix);
            std::fs::write(beside, b"").unwrap();
        }
        // No connection of before is used any more, so each needs a new one. A pool tries that until its patience is over.
        db.condition().distrust();
        let patience = WAIT / 2;
        let read = tokio::time::timeout(patience, db.read()).await.unwrap();
        assert!(matches!(read, Err(DbError::Storage(Trouble::Damaged, _))), "{read:?}");
        let looked = tokio::time::timeout(patience, db.snapshot()).await.unwrap();
        assert!(matches!(looked, Err(DbError::Storage(Trouble::Damaged, _))), "{looked:?}");
        assert!(matches!(db.write().await, Err(DbError::Storage(Trouble::Damaged, _))));
    });
}

#[test]
fn a_server_that_is_not_there_is_named_with_the_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("postgres://somebody:s3cret@127.0.0.1:{port}/x");
        let failure = Db::open(Some(&url), 2, Path::new("")).await.map(drop).unwrap_err().to_string();
        assert_eq!(
            failure,
            format!("ledger: cannot use the database at 127.0.0.1:{port}: the database is not reachable: connection refused")
        );
    });
}

#[test]
fn two_schemas_of_one_database_know_nothing_of_each_other() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(url) = testing::postgres_url().await else { return };
        let with = |schema: &str| match url.contains('?') {
            true => format!("{url}&schema={schema}"),
            false => format!("{url}?schema={schema}"),
        };
        let (prod, staging) = (
            Db::postgres(&with("prod"), 2).await.unwrap(),
            Db::postgres(&with("Staging%20two"), 2).await.unwrap(),
        );
        let record = json!({"token": "t"}).as_object().unwrap().clone();
        let mut tx = prod.write().await.unwrap();
        rows::insert(tx.connection(), &KEYS, &record).await.unwrap();
        tx.commit().await.unwrap();
        for (db, there) in [(&prod, true), (&staging, false)] {
            let mut connection = db.read().await.unwrap();
            assert_eq!(rows::get(&mut connection, &KEYS, &["t"]).await.unwrap().is_some(), there);
        }
    });
}

#[test]
fn a_key_that_another_ledger_has_just_made_is_known_at_once() {
    on_each("", |ledger| async move {
        let db = &ledger.app.db;
        let other = match &db.target.file {
            Some(file) => Db::sqlite(file).await.unwrap(),
            None => Db::postgres(db.target.options.database_url.as_str(), 2).await.unwrap(),
        };
        let config = crate::core::config::load(
            "",
            &|name| (name == "LITELLM_MASTER_KEY").then(|| MASTER.to_owned()),
            &|_| None,
        );
        let other = App::new(other, config.unwrap().config, testing::SECRET.to_owned(), wall_clock());
        // It has read all keys there are.
        assert!(!grants::is_known(&other, "0").await.unwrap());
        for _ in 0..3 {
            let made = ledger.admin("POST", "/key/generate", Some(json!({}))).await;
            let found = grants::grant(&other, made["token"].as_str().unwrap()).await.unwrap();
            assert!(found.is_some(), "by the gateway's filter");
            let made = ledger.admin("POST", "/key/generate", Some(json!({}))).await;
            assert!(grants::is_known(&other, made["token"].as_str().unwrap()).await.unwrap(), "as a caller");
        }
        other.db.close().await;
    });
}

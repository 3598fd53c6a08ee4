//! Batches of usage: what each adds to, what nodes hear back, and that nothing counts twice.
//!
//! All of it is one table of sums looked at from its sides, by the same few helpers; so it is one file.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde_json::{Value, json};

use super::*;
use crate::{
    control::ledger::{
        Clock,
        db::Db,
        rows::{Record, Select, Stored, Where},
        schema::{
            self, END_USERS, KEYS, ORGANIZATION_MEMBERS, ORGANIZATIONS, SPEND_LOGS, TEAM_MEMBERS, TEAMS,
            USERS,
        },
        testing::{self, Ledger, START_MS, on_each},
    },
    core::{
        model::{
            call_record::{CallRecord, MeterCharge},
            rate::Rate,
        },
        protocol::Aggregated,
    },
};

/// Puts a row into a table; its record changed.
async fn put(app: &App, table: &schema::Table, meter: &str, row: Value) {
    let mut tx = app.db.write().await.unwrap();
    rows::insert(tx.connection(), table, row.as_object().unwrap()).await.unwrap();
    tx.record_changed(meter);
    tx.commit().await.unwrap();
}

/// One number of a row.
async fn number(app: &App, sql: &str, keys: &[&str]) -> Option<i64> {
    let mut connection = app.db.read().await.unwrap();
    let values = keys.iter().map(|key| Stored::from(*key)).collect();
    let found = rows::rows(&mut connection, sql, values).await.unwrap();
    found.first().map(|row| row.try_get(0).unwrap())
}

async fn logs(ledger: &Ledger) -> Vec<Record> {
    let mut connection = ledger.app.db.read().await.unwrap();
    let all = Select { order: Some(("request_id", false)), ..Select::default() };
    rows::select(&mut connection, &SPEND_LOGS, &all).await.unwrap()
}

fn event(id: &str, key: &str, spend: i64) -> CallRecord {
    CallRecord {
        id: id.to_owned(),
        api_key: key.to_owned(),
        spend,
        start_ms: START_MS as u64,
        budgeted_meters: vec![format!("key:{key}")],
        ..CallRecord::default()
    }
}

fn request(node: &str, number: u64, events: Vec<CallRecord>) -> SyncRequest {
    let batch = Some(Batch { number, events, aggregated: Vec::new() });
    SyncRequest { node: node.to_owned(), batch, cursor: 1, ..SyncRequest::default() }
}

async fn say(app: &App, request: &SyncRequest) -> SyncReply {
    sync(app, request).await.unwrap()
}

#[test]
fn a_batch_counts_once() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        put(app, &KEYS, "key:k", json!({"token": "k", "max_budget": 1})).await;
        let spent = || number(app, "SELECT spend FROM tollgate_keys WHERE token = $1", &["k"]);
        let first = request("n1", 1, vec![event("a", "k", 7)]);
        let reply = say(app, &first).await;
        assert_eq!((reply.acknowledged, reply.nodes, spent().await), (1, 1, Some(7)));
        let totals: Vec<_> =
            reply.changes.iter().map(|change| (change.meter.as_str(), change.spend)).collect();
        assert_eq!(totals, [("key:k", Some(7))]);
        assert!(reply.cursor >= reply.changes[0].revision && !reply.more && !reply.reset);
        // The answer was lost: the same again, and an older one.
        let again = say(app, &first).await;
        assert_eq!((again.acknowledged, spent().await), (1, Some(7)));
        assert_eq!(again.changes, reply.changes);
        assert_eq!(say(app, &request("n1", 2, vec![event("b", "k", 1)])).await.acknowledged, 2);
        assert_eq!(say(app, &first).await.acknowledged, 2);
        // A gap is applied: our database may be a new one.
        assert_eq!(say(app, &request("n1", 9, vec![event("c", "k", 1)])).await.acknowledged, 9);
        // Another node counts for itself.
        assert_eq!(say(app, &request("n2", 1, vec![event("d", "k", 1)])).await.acknowledged, 1);
        assert_eq!(spent().await, Some(10));
        assert_eq!(logs(&ledger).await.len(), 4);
        // Nothing new: nothing is written.
        let revision = app.db.snapshot().await.unwrap().1;
        say(app, &SyncRequest { node: "n1".into(), cursor: 1, ..SyncRequest::default() }).await;
        say(app, &first).await;
        assert_eq!(app.db.snapshot().await.unwrap().1, revision);
    });
}

#[test]
fn deployments_and_providers_have_periods_of_their_own() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        let charged = |spend: i64| {
            let one = |meter: &str, period: Option<&str>| MeterCharge {
                meter: meter.to_owned(),
                spend,
                period: period.map(str::to_owned),
            };
            // What is no deployment and no provider is not the node's to charge.
            vec![one("deployment:d", Some("1d")), one("provider:openai", None), one("key:k", Some("1d"))]
        };
        let totals = |reply: &SyncReply| -> BTreeMap<String, Option<i64>> {
            reply.changes.iter().map(|change| (change.meter.clone(), change.spend)).collect()
        };
        let both = |deployment: i64, provider: i64| {
            BTreeMap::from([
                ("deployment:d".to_owned(), Some(deployment)),
                ("provider:openai".to_owned(), Some(provider)),
            ])
        };
        let event = |id: &str, spend: i64| CallRecord {
            budgeted_meters: vec![],
            meter_charges: charged(spend),
            ..event(id, "k", spend)
        };
        let first = say(app, &request("n1", 1, vec![event("a", 5), event("b", 2)])).await;
        assert_eq!(totals(&first), both(7, 7));
        // Another node hears of it, and one that starts hears of all.
        let second = say(app, &SyncRequest { node: "n2".into(), cursor: 1, ..SyncRequest::default() }).await;
        assert_eq!(totals(&second), both(7, 7));
        let third = say(app, &SyncRequest { node: "n3".into(), ..SyncRequest::default() }).await;
        assert!(third.reset);
        assert_eq!(totals(&third), both(7, 7));
        // Twelve hours later it is another day.
        ledger.pass(12 * 3_600_000);
        crate::control::ledger::resets::run(app, app.now_ms()).await.unwrap();
        let after = SyncRequest { node: "n2".into(), cursor: second.cursor, ..SyncRequest::default() };
        assert_eq!(totals(&say(app, &after).await), BTreeMap::from([("deployment:d".to_owned(), Some(0))]));
        let last = say(app, &request("n1", 2, vec![event("c", 1)])).await;
        assert_eq!(totals(&last)["deployment:d"], Some(1));
        assert_eq!(totals(&last)["provider:openai"], Some(8));
    });
}

#[test]
fn over_http_with_the_secret_only() {
    on_each("", |ledger| async move {
        let body = serde_json::to_value(request("n1", 1, vec![event("a", "k", 7)])).unwrap();
        let (status, answer) = ledger.envoy("POST", "/internal/sync", Some(body.clone())).await;
        assert_eq!((status, &answer["acknowledged"]), (200, &json!(1)));
        assert_eq!(ledger.envoy("POST", "/internal/sync", Some(json!({"node": ""}))).await.0, 400);
        assert_eq!(ledger.envoy("POST", "/internal/sync", Some(json!([1]))).await.0, 400);
        let (status, _, _) = ledger.call("POST", "/internal/sync", Some(testing::MASTER), Some(body)).await;
        assert_eq!(status, 401);
    });
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn random(dice: &mut Dice, id: usize) -> CallRecord {
    let key = dice.next(30);
    let some = |dice: &mut Dice, name: &str, count| {
        (dice.next(4) > 0).then(|| format!("{name}{}", dice.next(count)))
    };
    let failed = dice.next(10) == 0;
    let spend = if failed { 0 } else { dice.next(1_000_000_000_000) as i64 };
    CallRecord {
        id: format!("call-{id}"),
        api_key: format!("k{key}"),
        user: some(dice, "u", 10),
        team: some(dice, "t", 5),
        organization: some(dice, "o", 3),
        end_user: some(dice, "e", 40),
        model: format!("m{}", dice.next(3)),
        model_group: "g".to_owned(),
        spend,
        // A mock is an expense of its caller's and none of the gateway's.
        mocked: if dice.next(8) == 0 { spend } else { 0 },
        prompt_tokens: dice.next(1_000),
        completion_tokens: dice.next(1_000),
        start_ms: START_MS as u64 + dice.next(3) * 86_400_000,
        status: Some(if failed { 500 } else { 200 }),
        error: failed.then(|| "InternalServerError".to_owned()),
        tags: some(dice, "tag", 3).into_iter().collect(),
        budgeted_meters: vec![format!("key:k{key}"), format!("key_model:k{key}/g")],
        ..CallRecord::default()
    }
}

#[test]
fn ten_thousand_random_events_add_up_exactly() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        let mut tx = app.db.write().await.unwrap();
        let mut fill = Vec::new();
        fill.extend((0..20).map(|at| (&KEYS, json!({"token": format!("k{at}")}))));
        fill.extend((0..10).map(|at| (&USERS, json!({"user_id": format!("u{at}")}))));
        fill.extend((0..5).map(|at| (&TEAMS, json!({"team_id": format!("t{at}")}))));
        fill.extend((0..3).map(|at| (&ORGANIZATIONS, json!({"organization_id": format!("o{at}")}))));
        for user in 0..10 {
            let user_id = format!("u{user}");
            fill.push((&TEAM_MEMBERS, json!({"team_id": "t1", "user_id": user_id})));
            fill.push((&ORGANIZATION_MEMBERS, json!({"organization_id": "o1", "user_id": user_id})));
        }
        for (table, row) in fill {
            rows::insert(tx.connection(), table, row.as_object().unwrap()).await.unwrap();
        }
        tx.commit().await.unwrap();

        let mut dice = Dice(7);
        let events: Vec<CallRecord> = (0..10_000).map(|id| random(&mut dice, id)).collect();
        let started = Instant::now();
        for (at, some) in events.chunks(1_000).enumerate() {
            let node = format!("n{}", at % 2);
            let reply = say(app, &request(&node, at as u64 / 2 + 1, some.to_vec())).await;
            assert_eq!(reply.acknowledged, at as u64 / 2 + 1);
        }
        let each = started.elapsed() / 10;
        println!("1,000 events in {each:?} ({})", if app.db.is_postgres() { "Postgres" } else { "SQLite" });
        // Far above what it takes: a statement for each event would be noticed.
        assert!(each.as_millis() < 3_000, "{each:?}");

        let mut wanted: BTreeMap<(&str, Vec<String>), i64> = BTreeMap::new();
        let mut count = |table, key: Vec<String>, spend| *wanted.entry((table, key)).or_default() += spend;
        for event in &events {
            let day = super::logs::day(event);
            count("tollgate_keys", vec![event.api_key.clone()], event.spend);
            count("windows", vec!["global".to_owned()], event.spend - event.mocked);
            count("windows", vec![format!("key_model:{}/g", event.api_key)], event.spend);
            count("daily", vec![day.clone(), event.api_key.clone(), event.model.clone()], event.spend);
            for tag in &event.tags {
                count("tags", vec![day.clone(), tag.clone()], event.spend);
            }
            if let Some(end_user) = &event.end_user {
                count("tollgate_end_users", vec![end_user.clone()], event.spend);
                count("daily_end_users", vec![day, end_user.clone(), event.api_key.clone()], event.spend);
            }
            let of = |id: &Option<String>| id.clone().into_iter().collect::<Vec<_>>();
            for (table, ids, size) in [
                ("tollgate_users", of(&event.user), 1),
                ("tollgate_teams", of(&event.team), 1),
                ("tollgate_organizations", of(&event.organization), 1),
                ("members", [of(&event.team), of(&event.user)].concat(), 2),
                ("organization_members", [of(&event.organization), of(&event.user)].concat(), 2),
            ] {
                if ids.len() == size {
                    count(table, ids, event.spend);
                }
            }
        }
        for ((table, key), spend) in wanted {
            let sql = match table {
                "tollgate_keys" => "SELECT spend FROM tollgate_keys WHERE token = $1",
                "tollgate_users" => "SELECT spend FROM tollgate_users WHERE user_id = $1",
                "tollgate_teams" => "SELECT spend FROM tollgate_teams WHERE team_id = $1",
                "tollgate_organizations" => {
                    "SELECT spend FROM tollgate_organizations WHERE organization_id = $1"
                }
                "tollgate_end_users" => "SELECT spend FROM tollgate_end_users WHERE user_id = $1",
                "members" => "SELECT spend FROM tollgate_team_members WHERE team_id = $1 AND user_id = $2",
                "organization_members" => {
                    "SELECT spend FROM tollgate_organization_members WHERE organization_id = $1 AND user_id = $2"
                }
                "windows" => "SELECT spend FROM tollgate_windows WHERE meter = $1",
                "daily" => {
                    "SELECT CAST(SUM(spend) AS BIGINT) FROM tollgate_daily WHERE day = $1 AND api_key = $2 AND model = $3"
                }
                "tags" => "SELECT spend FROM tollgate_daily_tags WHERE day = $1 AND tag = $2",
                _ => {
                    "SELECT CAST(SUM(spend) AS BIGINT) FROM tollgate_daily_end_users WHERE day = $1 AND end_user = $2 AND api_key = $3"
                }
            };
            let names: Vec<&str> = key.iter().map(String::as_str).collect();
            let got = number(app, sql, &names).await;
            // There are fewer keys and members than events name: those of others are charged to nobody here.
            let is_there = match table {
                "tollgate_keys" => key[0][1..].parse::<u32>().unwrap() < 20,
                "members" => key[0] == "t1",
                "organization_members" => key[0] == "o1",
                _ => true,
            };
            assert_eq!(got, is_there.then_some(spend), "{table} {key:?}");
        }
        let count = |sql| number(app, sql, &[]);
        let failures = events.iter().filter(|event| event.error.is_some()).count() as i64;
        assert_eq!(count("SELECT COUNT(*) FROM tollgate_spend_logs").await, Some(10_000));
        assert_eq!(
            count("SELECT COUNT(*) FROM tollgate_spend_logs WHERE status = 'failure'").await,
            Some(failures)
        );
        assert_eq!(count("SELECT CAST(SUM(requests) AS BIGINT) FROM tollgate_daily").await, Some(10_000));
        assert_eq!(count("SELECT CAST(SUM(failures) AS BIGINT) FROM tollgate_daily").await, Some(failures));
        let tokens: u64 = events.iter().map(|event| event.prompt_tokens).sum();
        let stored = count("SELECT CAST(SUM(prompt_tokens) AS BIGINT) FROM tollgate_daily").await;
        assert_eq!(stored, Some(tokens as i64));
    });
}

#[test]
fn several_ledgers_share_a_database() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(url) = testing::postgres_url().await else { return };
        let mut apps = Vec::new();
        for _ in 0..2 {
            let db = Db::postgres(&url, 4).await.unwrap();
            let clock: Clock = Arc::new(|| START_MS);
            let config = crate::core::config::load("", &|_| None, &|_| None).unwrap().config;
            apps.push(App::new(db, config, testing::SECRET.to_owned(), clock));
        }
        for at in 0..10 {
            let token = format!("k{at}");
            put(&apps[0], &KEYS, &format!("key:{token}"), json!({"token": token})).await;
        }
        let mut all = tokio::task::JoinSet::new();
        for node in 0..6_usize {
            let app = Arc::clone(&apps[node % 2]);
            let other = Arc::clone(&apps[(node + 1) % 2]);
            all.spawn(async move {
                let mut last = 0;
                for number in 1..=20 {
                    let mut events: Vec<CallRecord> = (0..10)
                        .map(|key| event(&format!("{node}-{number}-{key}"), &format!("k{key}"), 1))
                        .collect();
                    // Every node has its own order.
                    events.rotate_left(node);
                    let request = request(&format!("n{node}"), number, events);
                    // The same batch by both ledgers at once.
                    let (one, two) = tokio::join!(sync(&app, &request), sync(&other, &request));
                    let (one, two) = (one.unwrap(), two.unwrap());
                    assert_eq!((one.acknowledged, two.acknowledged), (number, number));
                    assert!(one.cursor > last);
                    last = one.cursor;
                }
            });
        }
        for result in all.join_all().await {
            result
        }
        for at in 0..10 {
            let sql = "SELECT spend FROM tollgate_keys WHERE token = $1";
            assert_eq!(number(&apps[0], sql, &[&format!("k{at}")]).await, Some(120));
        }
        // A key that one makes is known to the other after a poll.
        let [one, two] = &apps[..] else { return };
        assert!(grants::grant(two, "new").await.unwrap().is_none());
        put(one, &KEYS, "key:new", json!({"token": "new"})).await;
        assert!(grants::grant(one, "new").await.unwrap().is_some());
        two.db.known().refresh(&two.db).await.unwrap();
        assert!(grants::grant(two, "new").await.unwrap().is_some());
    });
}

#[test]
fn sums_stay_at_the_largest_number() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        put(app, &KEYS, "key:k", json!({"token": "k"})).await;
        let events = vec![event("a", "k", i64::MAX), event("b", "k", i64::MAX)];
        let reply = say(app, &request("n1", 1, events)).await;
        assert_eq!(reply.changes[0].spend, Some(i64::MAX));
        let reply = say(app, &request("n1", 2, vec![event("c", "k", 5)])).await;
        assert_eq!(reply.changes[0].spend, Some(i64::MAX));
        let events =
            vec![event("d", "k", -7), CallRecord { prompt_tokens: u64::MAX, ..event("e", "k", i64::MIN) }];
        let reply = say(app, &request("n1", 3, events)).await;
        assert_eq!(reply.changes[0].spend, Some(0));
        let reply = say(app, &request("n1", 4, vec![event("f", "k", -7), event("g", "k", i64::MIN)])).await;
        assert_eq!(reply.changes[0].spend, Some(-i64::MAX));
        let sql = "SELECT prompt_tokens FROM tollgate_daily WHERE api_key = $1";
        assert_eq!(number(app, sql, &["k"]).await, Some(i64::MAX));
    });
}

#[test]
fn nothing_a_client_sends_stops_a_batch() {
    on_each("", |ledger| async move {
        // Text that does not compress: indexes count what is stored.
        let mut dice = Dice(3);
        let mut long = |start: &str| {
            let noise = (0..20_000).map(|_| char::from_u32(0x4e00 + dice.next(20_000) as u32).unwrap());
            format!("{start}\0{}", noise.collect::<String>())
        };
        let event = CallRecord {
            model: long("m"),
            model_group: long("g"),
            provider: long("p").into(),
            user: Some(long("u")),
            team: Some(long("t")),
            organization: Some(long("o")),
            end_user: Some(long("e")),
            session: Some(long("s")),
            ip: Some(long("i")),
            error: Some(long("x")),
            tags: vec![long("tag")],
            budgeted_meters: vec![long("end_user:"), long("key_model:k/"), "key:k\0".to_owned()],
            ..event(&long("id"), &long("k"), 5)
        };
        let mut request = request("n", 1, vec![event.clone()]);
        request.batch.as_mut().unwrap().aggregated.push(Aggregated { sum: event, calls: 1, failures: 0 });
        request.rates.push(Rate { meter: long("end_user:"), ..Rate::default() });
        assert_eq!(say(&ledger.app, &request).await.acknowledged, 1);
        let spend =
            number(&ledger.app, "SELECT spend FROM tollgate_windows WHERE meter = 'global'", &[]).await;
        assert_eq!((spend, logs(&ledger).await.len()), (Some(10), 1));
    });
}

#[test]
fn a_key_that_a_node_hears_of_is_known_when_it_asks() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        // What another ledger makes: it is in the database only.
        let made = |token: &'static str| async move {
            let mut tx = app.db.write().await.unwrap();
            let revision = tx.revision();
            for sql in [
                format!("INSERT INTO tollgate_keys (token) VALUES ('{token}')"),
                format!(
                    "INSERT INTO tollgate_changes (meter, revision, record_revision) VALUES ('key:{token}', {revision}, {revision})"
                ),
            ] {
                rows::run(tx.connection(), &sql, Vec::new()).await.unwrap();
            }
            tx.commit().await.unwrap();
        };
        let ask = |cursor| {
            let request = SyncRequest { node: "n".into(), cursor, ..SyncRequest::default() };
            async move { say(app, &request).await }
        };
        let start = ask(0).await;
        made("one").await;
        let told = ask(start.cursor).await;
        assert_eq!(told.changes.len(), 1);
        assert!(grants::grant(app, "one").await.unwrap().is_some());
        // A node that starts hears of no key, and may ask for any.
        made("two").await;
        assert!(ask(0).await.reset);
        assert!(grants::grant(app, "two").await.unwrap().is_some());
    });
}

#[test]
fn changes_come_in_pages() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        let start = app.db.snapshot().await.unwrap().1;
        let change = |from: usize, to: usize| async move {
            let mut tx = app.db.write().await.unwrap();
            (from..to).for_each(|at| tx.record_changed(format!("key:{at:05}")));
            tx.commit().await.unwrap();
        };
        change(0, 700).await;
        change(700, 1_400).await;
        change(1_400, 1_410).await;
        let ask = |cursor| {
            let request = SyncRequest { node: "n".into(), cursor, ..SyncRequest::default() };
            async move { say(app, &request).await }
        };
        // The first 700, whole; the next with what follows.
        let one = ask(start as u64).await;
        assert_eq!((one.changes.len(), one.more, one.cursor), (700, true, start as u64 + 1));
        let two = ask(one.cursor).await;
        assert_eq!((two.changes.len(), two.more, two.cursor), (710, false, start as u64 + 3));
        assert!(two.changes.iter().all(|change| change.record && change.spend.is_none()));
        assert_eq!(ask(two.cursor).await.changes, []);
        // A revision that is larger than a page comes alone; one that is far larger makes everything stale.
        change(0, 3_000).await;
        change(5_000, 5_001).await;
        let three = ask(two.cursor).await;
        assert_eq!((three.changes.len(), three.more, three.reset), (3_000, true, false));
        assert_eq!(ask(three.cursor).await.changes.len(), 1);
        change(0, 10_001).await;
        let four = ask(three.cursor + 1).await;
        assert_eq!((four.changes.len(), four.more, four.reset), (0, false, true));
        assert_eq!(four.cursor, three.cursor + 2);
        // A node that starts, and one that knew another database.
        for cursor in [0, 1_000_000] {
            let reply = ask(cursor).await;
            assert_eq!((reply.reset, reply.changes.len(), reply.cursor), (true, 0, four.cursor));
        }
    });
}

#[test]
fn every_meter_has_its_spend() {
    on_each("litellm_settings: {max_end_user_budget_id: b}", |ledger| async move {
        let app = &ledger.app;
        put(app, &KEYS, "key:k", json!({"token": "k"})).await;
        put(app, &USERS, "user:a/b", json!({"user_id": "a/b"})).await;
        put(app, &TEAMS, "team:t", json!({"team_id": "t"})).await;
        put(app, &TEAM_MEMBERS, "member:t/a/b", json!({"team_id": "t", "user_id": "a/b"})).await;
        put(app, &ORGANIZATIONS, "org:o", json!({"organization_id": "o"})).await;
        let meters = [
            "key:k",
            "user:a/b",
            "team:t",
            "member:t/a/b",
            "org:o",
            "end_user:e",
            "key_model:k/x/y",
            "global",
        ];
        let event = CallRecord {
            user: Some("a/b".into()),
            team: Some("t".into()),
            organization: Some("o".into()),
            end_user: Some("e".into()),
            budgeted_meters: meters.map(str::to_owned).to_vec(),
            ..event("a", "k", 5)
        };
        let cursor = app.db.snapshot().await.unwrap().1 as u64;
        let request = SyncRequest { cursor, ..request("n", 1, vec![event.clone()]) };
        let told: BTreeMap<String, Option<i64>> =
            say(app, &request).await.changes.into_iter().map(|change| (change.meter, change.spend)).collect();
        let wanted: BTreeMap<String, Option<i64>> =
            meters.into_iter().map(|meter| (meter.to_owned(), Some(5))).collect();
        assert_eq!(told, wanted);
        // Also to a node that starts, and of somebody who is gone.
        let mut tx = app.db.write().await.unwrap();
        rows::delete(tx.connection(), &KEYS, &[Where::Is("token", json!("k"))]).await.unwrap();
        tx.record_changed("key:k");
        tx.commit().await.unwrap();
        let request = SyncRequest { cursor: 0, ..self::request("n", 2, vec![event]) };
        let reply = say(app, &request).await;
        let find = |meter: &str| reply.changes.iter().find(|change| change.meter == meter).unwrap().spend;
        assert!(reply.reset);
        assert_eq!((reply.changes.len(), find("key:k"), find("org:o")), (8, None, Some(10)));
        let mut connection = app.db.read().await.unwrap();
        let end_user = rows::get(&mut connection, &END_USERS, &["e"]).await.unwrap().unwrap();
        assert_eq!((&end_user["budget_id"], &end_user["blocked"]), (&json!("b"), &json!(false)));
    });
}

#[test]
fn logs_say_what_happened() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        put(app, &KEYS, "key:k", json!({"token": "k", "key_alias": "mine"})).await;
        put(app, &TEAMS, "team:t", json!({"team_id": "t", "team_alias": "ours"})).await;
        let good = CallRecord {
            call_type: "acompletion".into(),
            team: Some("t".into()),
            end_user: Some("e".into()),
            model: "gpt-4o-2024".into(),
            model_group: "gpt-4o".into(),
            model_id: "d1".into(),
            provider: "openai".into(),
            api_base: "https://api.openai.com".into(),
            prompt_tokens: 3,
            completion_tokens: 4,
            total_tokens: 7,
            cache_read_tokens: 2,
            end_ms: START_MS as u64 + 500,
            first_ms: Some(START_MS as u64 + 100),
            status: Some(200),
            tags: vec!["x".into()],
            ip: Some("10.0.0.1".into()),
            session: Some("s".into()),
            ..event("a", "k", 1_500_000_000_000)
        };
        let bad = CallRecord {
            status: Some(429),
            error: Some("RateLimitError".into()),
            spend: 0,
            ..event("b", "k", 0)
        };
        let aggregated =
            Aggregated { sum: CallRecord { id: String::new(), ..event("", "k", 9) }, calls: 5, failures: 2 };
        let mut request = request("n", 1, vec![good, bad]);
        request.batch.as_mut().unwrap().aggregated.push(aggregated);
        say(app, &request).await;
        let found = logs(&ledger).await;
        let [good, bad] = &found[..] else { panic!("{found:?}") };
        for (name, value) in [
            ("spend", json!(1.5)),
            ("model", json!("gpt-4o-2024")),
            ("model_group", json!("gpt-4o")),
            ("custom_llm_provider", json!("openai")),
            ("start_time", json!("2026-01-15T12:00:00Z")),
            ("completion_start_time", json!("2026-01-15T12:00:00.1Z")),
            ("end_user", json!("e")),
            ("request_tags", json!(["x"])),
            ("session_id", json!("s")),
            ("status", json!("success")),
            ("user_id", Value::Null),
        ] {
            assert_eq!(good[name], value, "{name}");
        }
        let metadata = &good["metadata"];
        assert_eq!(
            (&metadata["user_api_key_alias"], &metadata["user_api_key_team_alias"]),
            (&json!("mine"), &json!("ours"))
        );
        assert_eq!(metadata["additional_usage_values"]["cache_read_input_tokens"], 2);
        assert_eq!((&bad["status"], &bad["spend"]), (&json!("failure"), &json!(0.0)));
        assert_eq!(bad["metadata"]["error_information"]["error_class"], "RateLimitError");
        let sums =
            "SELECT CAST(SUM(requests * 100 + failures) AS BIGINT) FROM tollgate_daily WHERE api_key = $1";
        assert_eq!(number(app, sums, &["k"]).await, Some(703));
        let spend = number(app, "SELECT spend FROM tollgate_keys WHERE token = $1", &["k"]).await;
        assert_eq!(spend, Some(1_500_000_000_009));
    });
    on_each("general_settings: {disable_spend_logs: true}", |ledger| async move {
        say(&ledger.app, &request("n", 1, vec![event("a", "k", 1)])).await;
        assert_eq!(logs(&ledger).await.len(), 0);
        let sql = "SELECT spend FROM tollgate_windows WHERE meter = 'global'";
        assert_eq!(number(&ledger.app, sql, &[]).await, Some(1));
    });
}

#[test]
fn end_users_matter_once_one_is_limited() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        let ask = || async move {
            let request = SyncRequest { node: "n".into(), cursor: 1, ..SyncRequest::default() };
            say(app, &request).await.end_users
        };
        assert!(!ask().await);
        put(app, &END_USERS, "end_user:free", json!({"user_id": "free", "blocked": false})).await;
        assert!(!ask().await);
        put(app, &END_USERS, "end_user:bad", json!({"user_id": "bad", "blocked": true})).await;
        assert!(ask().await);
        let mut tx = app.db.write().await.unwrap();
        rows::delete(tx.connection(), &END_USERS, &[Where::Is("user_id", json!("bad"))]).await.unwrap();
        tx.record_changed("end_user:bad");
        tx.commit().await.unwrap();
        assert!(!ask().await);
    });
    on_each("litellm_settings: {max_end_user_budget: 1}", |ledger| async move {
        let request = SyncRequest { node: "n".into(), ..SyncRequest::default() };
        assert!(say(&ledger.app, &request).await.end_users);
    });
}

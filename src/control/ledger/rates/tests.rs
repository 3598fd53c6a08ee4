//! What nodes hear of each other, wherever it is kept.

use super::*;
use crate::{
    control::ledger::{
        rows,
        testing::{self, Ledger, on_each},
        usage::sync,
    },
    core::protocol::{SyncReply, SyncRequest},
};

/// Runs a test on every database, and with a Redis beside one when there is one.
fn on_each_place<T: Future<Output = ()>>(test: impl Fn(Ledger) -> T) {
    on_each("", &test);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(url) = testing::redis_url().await {
            test(with_redis(&url).await).await;
        }
    });
}

/// A ledger over an SQLite file of its own and a Redis.
async fn with_redis(url: &str) -> Ledger {
    let ledger = testing::sqlite(&format!("router_settings: {{redis_url: '{url}'}}")).await;
    let Place::Redis(redis) = ledger.app.rates.place() else { panic!("no Redis") };
    redis.connected().await;
    ledger
}

/// Every key of a Redis database has a time to live.
async fn everything_ends(url: &str) {
    let mut connection = testing::redis_at(url).await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert!(keys.contains(&"tollgate:nodes".to_owned()), "{keys:?}");
    for key in keys {
        let left_ms: i64 = ::redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        // It may have ended meanwhile (-2), but never has none (-1).
        assert!(key.starts_with("tollgate:") && left_ms != -1 && left_ms <= 60_000, "{key}: {left_ms}");
    }
}

fn rate(meter: &str, window_ms: u64, requests: u64, parallel: u64) -> Rate {
    Rate { meter: meter.to_owned(), window_ms, requests, tokens: 10 * requests, parallel, place: false }
}

async fn say(app: &App, node: &str, rates: Vec<Rate>) -> SyncReply {
    let request = SyncRequest { node: node.to_owned(), rates, cursor: 1, ..SyncRequest::default() };
    sync(app, &request).await.unwrap()
}

#[test]
fn nodes_hear_of_each_others_rates() {
    on_each_place(|ledger| async move {
        let app = &ledger.app;
        let now = || ledger.app.now_ms() as u64;
        let say = |node: &str, requests, parallel, window_ms| {
            let rates = vec![
                rate("key:k", window_ms, requests, parallel),
                Rate { meter: "key:other".into(), ..Rate::default() },
            ];
            let request = SyncRequest { node: node.into(), rates, cursor: 1, ..SyncRequest::default() };
            async move { sync(app, &request).await.unwrap() }
        };
        let reply = say("a", 3, 1, now()).await;
        assert_eq!((reply.nodes, reply.rates.len(), reply.rates[0].requests), (1, 2, 0));
        say("b", 4, 2, now() - 30_000).await;
        let reply = say("c", 1, 0, now()).await;
        let sum = rate("key:k", now(), 7, 3);
        assert_eq!((reply.nodes, &reply.rates[0]), (3, &sum));
        assert_eq!(reply.rates[1], Rate { meter: "key:other".into(), ..Rate::default() });
        // Repeating changes nothing.
        say("a", 3, 1, now()).await;
        assert_eq!(say("c", 1, 0, now()).await.rates[0], sum);
        // A window that is over counts no more, requests in flight do.
        let start = now();
        for _ in 0..16 {
            ledger.pass(2_000);
            say("a", 3, 1, start).await;
            say("b", 4, 2, start - 30_000).await;
        }
        let reply = say("c", 1, 0, now()).await;
        assert_eq!((reply.rates[0].requests, reply.rates[0].parallel), (3, 3));
        // A node that is gone does not count at all.
        ledger.pass(4_000);
        say("a", 3, 1, start).await;
        ledger.pass(2_000);
        let reply = say("c", 1, 0, now()).await;
        assert_eq!((reply.nodes, reply.rates[0].requests, reply.rates[0].parallel), (2, 3, 1));
        // Nothing is kept for long.
        ledger.pass(200_000);
        sql::prune(app, app.now_ms()).await.unwrap();
        let mut connection = app.db.read().await.unwrap();
        let left = rows::rows(&mut connection, "SELECT meter FROM tollgate_rates", vec![]).await.unwrap();
        assert!(left.is_empty());
        if let Place::Redis(redis) = app.rates.place()
            && let config::Redis::Url(url) = redis.setting()
        {
            everything_ends(url.reveal()).await;
        }
    });
}

#[test]
fn deployments_are_heard_of_without_asking() {
    on_each_place(|ledger| async move {
        let app = &ledger.app;
        let now = app.now_ms() as u64;
        let place =
            |meter: &str, requests, parallel| Rate { place: true, ..rate(meter, now, requests, parallel) };
        // "c" was asked for and is over: nobody has to hear of it.
        let told = vec![place("a", 3, 1), place("b", 0, 2), place("c", 0, 0), rate("key:k", now, 9, 9)];
        say(app, "one", told).await;
        assert_eq!(say(app, "two", vec![]).await.rates, [place("a", 3, 1), place("b", 0, 2)]);
        say(app, "two", vec![place("a", 4, 0)]).await;
        // What is asked for comes first, and once.
        let reply = say(app, "three", vec![place("b", 1, 0), rate("key:k", now, 0, 0)]).await;
        assert_eq!(reply.rates, [place("b", 0, 2), rate("key:k", now, 9, 9), place("a", 7, 1)]);
        // Nodes of older versions do not say that it is a deployment.
        say(app, "old", vec![rate("a", now, 1, 1)]).await;
        assert_eq!(say(app, "three", vec![place("a", 0, 0)]).await.rates[0], place("a", 8, 2));
        // A node hears nothing of itself.
        ledger.pass(10_000);
        say(app, "one", vec![place("a", 3, 1)]).await;
        let reply = say(app, "one", vec![]).await;
        assert_eq!((reply.nodes, reply.rates.len()), (1, 0));
    });
}

#[test]
fn what_fits_nowhere_is_passed_over() {
    on_each_place(|ledger| async move {
        let long = "x".repeat(METER + 1);
        let now = ledger.app.now_ms() as u64;
        for node in ["a", "b"] {
            let reply = say(&ledger.app, node, vec![rate(&long, now, 1, 1), rate("key:k", now, 1, 1)]).await;
            let heard = if node == "a" {
                Rate { meter: "key:k".to_owned(), ..Rate::default() }
            } else {
                rate("key:k", now, 1, 1)
            };
            assert_eq!(reply.rates, [Rate { meter: long.clone(), ..Rate::default() }, heard]);
        }
    });
}

#[test]
fn ledgers_with_databases_of_their_own_agree_through_redis() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(url) = testing::redis_url().await else { return };
        let (one, two) = (with_redis(&url).await, with_redis(&url).await);
        let now = one.app.now_ms() as u64;
        say(&one.app, "a", vec![rate("key:k", now, 3, 1)]).await;
        let reply = say(&two.app, "b", vec![rate("key:k", now, 1, 0)]).await;
        assert_eq!((reply.nodes, &reply.rates[0]), (2, &rate("key:k", now, 3, 1)));
        // What is no longer said is gone at once.
        say(&one.app, "a", vec![]).await;
        assert_eq!(say(&two.app, "b", vec![rate("key:k", now, 1, 0)]).await.rates[0].requests, 0);
        // Another configuration without it: each for itself.
        let Place::Redis(before) = one.app.rates.place() else { panic!("no Redis") };
        one.app.rates.follow(Some(before.setting()));
        assert!(matches!(one.app.rates.place(), Place::Redis(after) if Arc::ptr_eq(&before, &after)));
        one.app.rates.follow(None);
        assert_eq!(say(&one.app, "a", vec![rate("key:k", now, 3, 1)]).await.nodes, 1);
    });
}

//! A Redis that comes, goes, and does not do as it should.

use std::{sync::Mutex, time::Duration};

use super::*;
use crate::{control::ledger::testing, core::model::secret::Secret};

/// What was told, line by line.
type Told = Arc<Mutex<Vec<String>>>;

fn at(url: &str) -> (Redis, Told) {
    let told = Told::default();
    let lines = Arc::clone(&told);
    let tell = move |line: &str| lines.lock().unwrap().push(line.to_owned());
    let setting = config::Redis::Url(Secret::new(url));
    (Redis::at(&setting, Arc::new(tell)).unwrap(), told)
}

async fn nodes(redis: &Redis, node: &str) -> Option<u64> {
    redis.exchange(node, &[], &mut Sums::asked(&[], testing::START_MS)).await
}

/// Asks again and again, as syncs do, until so many lines were told; gives the last.
async fn until_told(redis: &Redis, told: &Told, count: usize) -> String {
    loop {
        nodes(redis, "n").await;
        if let Some(line) = told.lock().unwrap().get(count - 1) {
            return line.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn with_server<T: Future<Output = ()>>(test: impl Fn(String) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(url) = testing::redis_url().await {
            test(url).await;
        }
    });
}

#[test]
fn one_line_when_it_goes_and_one_when_it_is_back() {
    with_server(|url| async move {
        let mut admin = testing::redis_at(&url).await;
        let user = format!("u{}", url.rsplit('/').next().unwrap());
        let (redis, told) = at(&url.replace("redis://", &format!("redis://{user}:hidden@")));
        // Its connections end with a user who is deleted, and there are none without one.
        let mut let_in = redis::cmd("ACL");
        let_in.arg(&["SETUSER", &user, "on", ">hidden", "~*", "+@all"]);
        let mut shut_out = redis::cmd("ACL");
        shut_out.arg(&["DELUSER", &user]);
        for round in 0..2 {
            let gone = until_told(&redis, &told, 2 * round + 1).await;
            assert!(gone.contains("is of no use"), "{gone}");
            let_in.exec_async(&mut admin).await.unwrap();
            let back = until_told(&redis, &told, 2 * round + 2).await;
            assert!(back.contains("is back"), "{back}");
            assert_eq!(nodes(&redis, "n").await, Some(1));
            shut_out.exec_async(&mut admin).await.unwrap();
        }
        let lines = told.lock().unwrap().join("\n");
        assert!(lines.contains("127.0.0.1:") && !lines.contains("hidden"), "{lines}");
        assert!(!format!("{redis:?}").contains("hidden"), "{redis:?}");
    });
}

#[test]
fn a_redis_that_refuses_commands_is_told_of_once() {
    with_server(|url| async move {
        let mut admin = testing::redis_at(&url).await;
        redis::cmd("SET").arg(&[NODES, "no list"]).exec_async(&mut admin).await.unwrap();
        let (redis, told) = at(&url);
        let line = until_told(&redis, &told, 1).await;
        assert!(line.contains("it answers WRONGTYPE"), "{line}");
        for _ in 0..2 {
            // It lets itself be connected to again, and is as useless as before.
            redis.connected().await;
            assert_eq!(nodes(&redis, "n").await, None);
        }
        assert_eq!(told.lock().unwrap().len(), 1);
        redis::cmd("DEL").arg(NODES).exec_async(&mut admin).await.unwrap();
        assert!(until_told(&redis, &told, 2).await.contains("is back"));
    });
}

#[test]
fn one_that_never_answers_holds_nobody_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (redis, told) = at(&format!("redis://:hidden@{}", mute.local_addr().unwrap()));
        assert_eq!(nodes(&redis, "n").await, None, "at once: connecting goes on aside");
        let line = until_told(&redis, &told, 1).await;
        assert!(line.contains("of no use") && !line.contains("hidden"), "{line}");
    });
}

#[test]
fn what_others_wrote_is_no_reason_to_fail() {
    for (text, expected) in [
        ("1 2 3 4", Some((1, 2, 3, 4))),
        ("1 2 3 4 of a later version", Some((1, 2, 3, 4))),
        ("1 2 3", None),
        ("1 2 3 -4", None),
        ("", None),
    ] {
        let found = rate("m", text).map(|rate| (rate.window_ms, rate.requests, rate.tokens, rate.parallel));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn settings_become_addresses() {
    let host = |tls| config::Redis::Host {
        host: "h".to_owned(),
        port: 7,
        username: Some("u".to_owned()),
        password: Some(Secret::new("p@")),
        db: 2,
        tls,
    };
    let url = |url: &str| config::Redis::Url(Secret::new(url));
    for (setting, at) in [
        (host(false), "h:7"),
        (host(true), "h:7"),
        (url("redis://u:p%40@h:7/2"), "h:7"),
        (url("rediss://u:p%40@h:7/2"), "h:7"),
    ] {
        let info = address(&setting).unwrap();
        let login = info.redis_settings();
        assert_eq!((info.addr().to_string().as_str(), login.db()), (at, 2));
        assert_eq!((login.username(), login.password()), (Some("u"), Some("p@")));
    }
    for bad in ["redis://h:port", "redis://h:1/x", "redis://:7"] {
        assert!(Redis::at(&url(bad), Arc::new(|_| {})).is_err(), "{bad}");
    }
}

//! Rates in a Redis (or Valkey) that several ledgers share.
//!
//! | key | what it holds | for how long |
//! |---|---|---|
//! | `tollgate:nodes` | every node and when its ledger last heard of it (a sorted set) | a minute |
//! | `tollgate:rates:<node>` | what the node has: meter → window, requests, tokens, in flight (a hash) | five seconds |
//! | `tollgate:places:<node>` | the same of deployments alone | five seconds |
//!
//! A sync is two round trips: one writes and learns who the others are, one reads what they have. When nobody else is there, it
//! is one.

use std::{collections::HashMap, sync::Arc};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, Pipeline,
    RedisConnectionInfo, RedisError, Value,
};

use super::{
    LIVE_MS, Sums,
    link::{Link, Tell, limited},
};
use crate::core::{config, model::rate::Rate};

/// The nodes.
const NODES: &str = "tollgate:nodes";
/// Nodes that were not heard of for so long leave the list.
const FORGET_MS: i64 = 60_000;

/// A Redis.
#[derive(Debug)]
pub struct Redis {
    setting: config::Redis,
    link: Arc<Link>,
}

impl Redis {
    /// The one that a setting names. Nothing is connected yet. The error says what is wrong with the setting.
    pub fn at(setting: &config::Redis, tell: Tell) -> Result<Redis, &'static str> {
        let client = address(setting)
            .and_then(Client::open)
            .map_err(|_| "write `redis://user:password@host:6379/0`, or `rediss://…` for TLS, with special characters percent-encoded")?;
        Ok(Redis { setting: setting.clone(), link: Arc::new(Link::new(client, tell)) })
    }

    /// What names it.
    pub fn setting(&self) -> &config::Redis {
        &self.setting
    }

    /// Waits for the connection.
    #[cfg(test)]
    pub async fn connected(&self) {
        while self.link.connection().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Takes a node's rates (each meter once), adds what the others have, and says how many nodes live. Nothing when Redis is
    /// not there.
    pub async fn exchange(&self, node: &str, own: &[&Rate], sums: &mut Sums<'_>) -> Option<u64> {
        let mut connection = self.link.connection()?;
        let told = write(node, own, sums.now_ms);
        let (live,): (Vec<String>,) = self.link.checked(limited(told.query_async(&mut connection)).await)?;
        let nodes = u64::try_from(live.len()).unwrap_or(u64::MAX);
        let others: Vec<String> = live.into_iter().filter(|other| other != node).collect();
        if !others.is_empty() {
            let heard = read(&others, own);
            let answers: Vec<Value> = self.link.checked(limited(heard.query_async(&mut connection)).await)?;
            self.link.checked(add(answers, others.len(), own, sums))?;
        }
        self.link.works();
        Some(nodes)
    }
}

/// The address and the credentials.
fn address(setting: &config::Redis) -> Result<ConnectionInfo, RedisError> {
    let (host, port, username, password, db, tls) = match setting {
        config::Redis::Url(url) => return url.reveal().into_connection_info(),
        config::Redis::Host { host, port, username, password, db, tls } => {
            (host.clone(), *port, username, password, *db, *tls)
        }
    };
    let at = match tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    };
    let mut login = RedisConnectionInfo::default().set_db(db.into());
    if let Some(username) = username {
        login = login.set_username(username);
    }
    if let Some(password) = password {
        login = login.set_password(password.reveal());
    }
    Ok(at.into_connection_info()?.set_redis_settings(login))
}

/// The first round trip: all that the node said before is replaced, in one step.
fn write(node: &str, own: &[&Rate], now_ms: i64) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic();
    let text =
        |rate: &Rate| format!("{} {} {} {}", rate.window_ms, rate.requests, rate.tokens, rate.parallel);
    let put = |pipe: &mut Pipeline, key: String, rates: &[(&str, String)]| {
        pipe.del(&key).ignore();
        if !rates.is_empty() {
            pipe.hset_multiple(&key, rates).ignore();
            pipe.pexpire(&key, LIVE_MS).ignore();
        }
    };
    let all: Vec<_> = own.iter().map(|rate| (rate.meter.as_str(), text(rate))).collect();
    let places: Vec<_> =
        own.iter().filter(|rate| rate.place).map(|rate| (rate.meter.as_str(), text(rate))).collect();
    put(&mut pipe, rates_of(node), &all);
    put(&mut pipe, places_of(node), &places);
    pipe.zadd(NODES, node, now_ms).ignore();
    pipe.zrembyscore(NODES, "-inf", now_ms - FORGET_MS).ignore();
    pipe.pexpire(NODES, FORGET_MS).ignore();
    pipe.zrangebyscore(NODES, format!("({}", now_ms - LIVE_MS), "+inf");
    pipe
}

/// The second round trip: deployments of all others, then the meters that the node has too, if it has any.
fn read(others: &[String], own: &[&Rate]) -> Pipeline {
    let mut pipe = redis::pipe();
    for other in others {
        pipe.hgetall(places_of(other));
    }
    if !own.is_empty() {
        for other in others {
            let command = pipe.cmd("HMGET").arg(rates_of(other));
            own.iter().for_each(|rate| {
                command.arg(rate.meter.as_str());
            });
        }
    }
    pipe
}

/// Adds the answers to [`read`].
fn add(answers: Vec<Value>, others: usize, own: &[&Rate], sums: &mut Sums<'_>) -> Result<(), RedisError> {
    let mut answers = answers.into_iter();
    for places in answers.by_ref().take(others) {
        let places: HashMap<String, String> = redis::from_redis_value(places)?;
        places.iter().filter_map(|(meter, text)| rate(meter, text)).for_each(|rate| sums.add_place(rate));
    }
    for rates in answers {
        let rates: Vec<Option<String>> = redis::from_redis_value(rates)?;
        if rates.len() != own.len() {
            return Err((ErrorKind::UnexpectedReturnType, "as many values as fields were asked for").into());
        }
        let told = own.iter().zip(&rates).filter_map(|(own, text)| rate(&own.meter, text.as_deref()?));
        told.for_each(|rate| sums.add(rate));
    }
    Ok(())
}

fn rates_of(node: &str) -> String {
    format!("tollgate:rates:{node}")
}

fn places_of(node: &str) -> String {
    format!("tollgate:places:{node}")
}

/// Reads what [`write`] writes.
fn rate(meter: &str, text: &str) -> Option<Rate> {
    let mut numbers = text.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let (window_ms, requests, tokens, parallel) = (next()?, next()?, next()?, next()?);
    Some(Rate { meter: meter.to_owned(), window_ms, requests, tokens, parallel, place: false })
}

#[cfg(test)]
mod tests;

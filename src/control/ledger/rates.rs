//! Rates between nodes: each says what its own windows hold, and hears what those of all others hold together.
//!
//! None of this has a revision and none of it is needed after a minute. It is kept where `router_settings` names a Redis in that,
//! so that ledgers with databases of their own agree too; else in the database.
//!
//! | module | what it does |
//! |---|---|
//! | [`sql`] | rates in the database |
//! | [`redis`] | rates in a Redis |
//! | [`link`] | the connection to it, and what happens when there is none |

pub mod link;
pub mod redis;
pub mod sql;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

use self::redis::Redis;
use super::{App, db::DbError, log, usage::bounded::METER};
use crate::core::{config, model::rate::Rate};

/// A node that said nothing for so long is gone, and its requests with it.
const LIVE_MS: i64 = 5_000;
/// Length of a window.
const WINDOW_MS: i64 = 60_000;

/// Where rates are kept.
#[derive(Debug)]
pub struct Rates {
    beats: sql::Beats,
    place: RwLock<Place>,
}

#[derive(Clone, Debug)]
enum Place {
    Sql,
    Redis(Arc<Redis>),
}

impl Place {
    /// A Redis that is no address was refused when the configuration was checked.
    fn of(setting: Option<&config::Redis>) -> Place {
        let Some(setting) = setting else { return Place::Sql };
        match Redis::at(setting, Arc::new(log)) {
            Ok(redis) => Place::Redis(Arc::new(redis)),
            Err(why) => {
                log(&format!("`router_settings.redis_url` is not used: {why}"));
                Place::Sql
            }
        }
    }

    fn setting(&self) -> Option<&config::Redis> {
        match self {
            Place::Sql => None,
            Place::Redis(redis) => Some(redis.setting()),
        }
    }
}

impl Rates {
    /// Kept in the Redis that a configuration names, else in the database.
    pub fn of(setting: Option<&config::Redis>) -> Rates {
        Rates { beats: sql::Beats::default(), place: RwLock::new(Place::of(setting)) }
    }

    /// Another configuration is in force.
    pub fn follow(&self, setting: Option<&config::Redis>) {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        if place.setting() != setting {
            *place = Place::of(setting);
        }
    }

    fn place(&self) -> Place {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a node hears.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// How many nodes were heard of lately; 0 when that is not known.
    pub nodes: u64,
    /// What all others together have, for each of the meters asked for and for deployments.
    pub rates: Vec<Rate>,
}

/// Takes a node's rates, notes that it lives, and says what the others have. Without the Redis there are no others.
pub async fn exchange(app: &App, node: &str, rates: &[Rate], now_ms: i64) -> Result<Heard, DbError> {
    // By name: each meter once, in the same order everywhere.
    let fitting = rates.iter().filter(|rate| rate.meter.len() <= METER);
    let own: BTreeMap<&str, &Rate> = fitting.map(|rate| (rate.meter.as_str(), rate)).collect();
    let own: Vec<&Rate> = own.into_values().collect();
    let mut sums = Sums::asked(rates, now_ms);
    let nodes = match app.rates.place() {
        Place::Sql => {
            sql::take(app, node, &own, now_ms).await?;
            let mut connection = app.db.read().await?;
            sql::add_others(&mut connection, node, &own, &mut sums).await?;
            sql::nodes(&mut connection, now_ms).await?
        }
        Place::Redis(redis) => {
            // With the number of a node's last batch it stays written there when it was heard of.
            sql::take(app, node, &[], now_ms).await?;
            redis.exchange(node, &own, &mut sums).await.unwrap_or_default()
        }
    };
    Ok(Heard { nodes, rates: sums.answer(rates) })
}

/// What other nodes have, added up by meter. The window is that of the latest of them: until it ends, something of it may count.
#[derive(Debug)]
pub struct Sums<'a> {
    asked: BTreeSet<&'a str>,
    by_meter: BTreeMap<String, Rate>,
    now_ms: i64,
}

impl<'a> Sums<'a> {
    fn asked(rates: &'a [Rate], now_ms: i64) -> Sums<'a> {
        let asked = rates.iter().map(|rate| rate.meter.as_str()).collect();
        Sums { asked, by_meter: BTreeMap::new(), now_ms }
    }

    /// What one node says of a meter that was asked for.
    fn add(&mut self, rate: Rate) {
        let since_ms = i64::try_from(rate.window_ms).unwrap_or(i64::MAX);
        let sum = self
            .by_meter
            .entry(rate.meter.clone())
            .or_insert_with(|| Rate { meter: rate.meter, ..Rate::default() });
        sum.place |= rate.place;
        sum.parallel = sum.parallel.saturating_add(rate.parallel);
        if since_ms > self.now_ms - WINDOW_MS {
            sum.window_ms = sum.window_ms.max(rate.window_ms);
            sum.requests = sum.requests.saturating_add(rate.requests);
            sum.tokens = sum.tokens.saturating_add(rate.tokens);
        }
    }

    /// What one node says of a deployment, asked for or not.
    fn add_place(&mut self, rate: Rate) {
        if !self.asked.contains(rate.meter.as_str()) {
            self.add(Rate { place: true, ..rate });
        }
    }

    /// In the order of the question, then the deployments that were not in it and have something to say.
    fn answer(mut self, rates: &[Rate]) -> Vec<Rate> {
        let mut found = |rate: &Rate| {
            let sum = self.by_meter.get(&rate.meter).cloned().unwrap_or_default();
            Rate { meter: rate.meter.clone(), place: rate.place, ..sum }
        };
        let mut answer: Vec<Rate> = rates.iter().map(&mut found).collect();
        self.by_meter.retain(|meter, sum| {
            !self.asked.contains(meter.as_str()) && (sum.requests, sum.tokens, sum.parallel) != (0, 0, 0)
        });
        answer.extend(self.by_meter.into_values());
        answer
    }
}

#[cfg(test)]
mod tests;

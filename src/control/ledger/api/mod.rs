//! The routes of the management API, chapter by chapter, and what Envoy's filter asks.

pub mod access;
pub mod budgets;
pub mod customers;
pub mod docs;
pub mod fields;
pub mod health;
pub mod internal;
pub mod keys;
pub mod models;
pub mod organizations;
pub mod spend;
pub mod teams;
pub mod users;
pub mod utils;

#[cfg(test)]
pub mod cast;
#[cfg(test)]
mod matrix;

use super::route::Route;

/// All routes.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    [
        keys::ROUTES,
        users::ROUTES,
        teams::ROUTES,
        organizations::ROUTES,
        budgets::ROUTES,
        customers::ROUTES,
        models::ROUTES,
        spend::ROUTES,
        utils::ROUTES,
        health::ROUTES,
        docs::ROUTES,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests;

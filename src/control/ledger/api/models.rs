//! Models: what is deployed, and adding to it.

use crate::control::ledger::route::Route;

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[];

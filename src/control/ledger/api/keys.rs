//! Virtual keys: making, showing, changing, blocking, removing them.

use crate::control::ledger::route::Route;

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[];

//! Organizations and their members.

use crate::control::ledger::route::Route;

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[];

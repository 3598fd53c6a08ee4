//! Token counts and parameters of models.

use crate::control::ledger::route::Route;

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[];

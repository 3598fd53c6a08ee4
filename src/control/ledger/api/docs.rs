//! The API document and the page that shows it.

use crate::control::ledger::route::Route;

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[];

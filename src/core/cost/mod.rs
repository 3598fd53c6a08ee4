//! What a call costs: usage out of answers, the price table, and exact money.
//!
//! One [`usage::Usage`] for every API and for buffered and streamed answers, one [`price::Price::cost`] over it, so the
//! same answer always costs the same.

mod counts;
pub mod money;
pub mod price;
pub mod table;
pub mod terms;
pub mod usage;

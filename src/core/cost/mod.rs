//! What a call costs: usage out of answers, and the price table.
//!
//! One [`Usage`](crate::core::model::usage::Usage) for every API and for buffered and streamed answers, one [`price::Price::cost`] over it, so the
//! same answer always costs the same.

mod counts;
pub mod price;
pub mod table;

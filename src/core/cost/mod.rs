//! What a call costs: usage out of responses, and the price table.
//!
//! One [`Usage`](crate::core::model::usage::Usage) for every API and for buffered and streamed responses, one [`price::Price::cost`] over it, so the
//! same response always costs the same.

mod counts;
pub mod price;
pub mod table;

//! Texts of clients made to fit. Postgres refuses to index more than 2,704 bytes, and a batch that is refused once is refused
//! whenever it is repeated: nothing that a client can send may do that.

use crate::core::protocol::Batch;

/// Longest name of a meter that is kept, in bytes.
pub const METER: usize = 1_100;

/// A batch all of whose texts fit: longer ones are cut.
pub fn batch(batch: &Batch) -> Batch {
    let mut cut = batch.clone();
    for event in cut.events.iter_mut().chain(cut.aggregated.iter_mut().map(|aggregated| &mut aggregated.sum))
    {
        event.cut_texts();
    }
    cut
}

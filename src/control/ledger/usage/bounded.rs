//! Texts of clients made to fit. Postgres refuses to index more than 2,704 bytes, and a batch that is refused once is refused
//! whenever it is repeated: nothing that a client can send may do that.

use crate::core::protocol::{Batch, Event};

/// Longest name of a meter that is kept, in bytes.
pub const METER: usize = 1_100;
/// Longest end user.
const END_USER: usize = 1_000;
/// Longest text of a failure, which no index has.
const MESSAGE: usize = 1_100;
/// Longest of all other texts. Those of a day's sum, eight together, stay below the limit.
const TEXT: usize = 300;

/// A batch all of whose texts fit: longer ones are cut.
pub fn batch(batch: &Batch) -> Batch {
    let mut cut = batch.clone();
    for event in cut.events.iter_mut().chain(cut.folded.iter_mut().map(|folded| &mut folded.sum)) {
        each(event, |text, most| text.truncate(text.floor_char_boundary(most)));
    }
    cut
}

/// Shows every text of an event with the length it may have.
fn each(event: &mut Event, mut show: impl FnMut(&mut String, usize)) {
    let texts = [
        &mut event.id,
        &mut event.call_id,
        &mut event.call_type,
        &mut event.api_key,
        &mut event.model,
        &mut event.model_group,
        &mut event.model_id,
        &mut event.provider,
    ];
    let others = [
        &mut event.user,
        &mut event.team,
        &mut event.organization,
        &mut event.response_id,
        &mut event.error,
        &mut event.ip,
        &mut event.session,
    ];
    texts
        .into_iter()
        .chain(others.into_iter().flatten())
        .chain(&mut event.tags)
        .for_each(|text| show(text, TEXT));
    if let Some(message) = &mut event.message {
        show(message, MESSAGE);
    }
    if let Some(end_user) = &mut event.end_user {
        show(end_user, END_USER);
    }
}

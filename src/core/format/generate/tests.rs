//! Requests, responses and streams against goldens.

use super::*;
use crate::core::format::{
    chat,
    golden::{requests, responses},
};

#[test]
fn whole_requests() {
    requests::walk("generate/request/write", request::write);
}

#[test]
fn odd_values_are_refused_or_taken() {
    requests::mutate("generate/request/write", request::write);
}

#[test]
fn whole_responses() {
    responses::whole("generate/response/read", |body, requested, ids| response::read(body, &requested, ids));
}

#[test]
fn whole_streams() {
    responses::streams("generate/stream/read", |events, requested, include_usage| {
        let mut reader = stream::Reader::new(requested, &responses::ids());
        let mut out = Vec::new();
        let result = events.iter().try_for_each(|event| match chat::response::failure_in(event) {
            Some(error) => Err(error),
            None => {
                reader.push(event, &mut out);
                Ok(())
            }
        });
        if result.is_ok() {
            reader.close(&mut out);
        }
        (responses::seen(out, include_usage), result)
    });
}

//! Requests, responses and streams against goldens.

use super::*;
use crate::core::format::{
    Format as _,
    generate::Requested,
    golden::{requests, responses},
};

const READ: requests::Translate = |body, context| Ok((request::read(body, context)?, Requested::default()));
const WRITE: requests::Translate = |chat, context| Ok((request::write(chat, context)?, Requested::default()));

#[test]
fn whole_requests_are_read() {
    requests::walk("completions/request/read", READ);
}

#[test]
fn odd_values_that_are_read_are_refused_or_taken() {
    requests::mutate("completions/request/read", READ);
}

#[test]
fn whole_requests_are_written() {
    requests::walk("completions/request/write", WRITE);
}

#[test]
fn odd_values_that_are_written_are_refused_or_taken() {
    requests::mutate("completions/request/write", WRITE);
}

#[test]
fn whole_responses_are_read() {
    responses::whole("completions/response/read", |body, _, ids| response::read(body, ids));
}

#[test]
fn whole_responses_are_written() {
    responses::whole("completions/response/write", |chat, _, ids| response::write(chat, ids));
}

#[test]
fn streams_are_read() {
    responses::streams("completions/stream/read", |events, _, include_usage| {
        let mut reader = stream::Reader::new(&responses::ids());
        let mut chunks = Vec::new();
        let result = events.iter().try_for_each(|event| match Format.read_error(event) {
            Some(error) => Err(error),
            None => {
                reader.push(event, &mut chunks);
                Ok(())
            }
        });
        if result.is_ok() {
            reader.close(&mut chunks);
        }
        (responses::seen(chunks, include_usage), result)
    });
}

#[test]
fn streams_are_written() {
    responses::streams("completions/stream/write", |chunks, _, include_usage| {
        let mut writer = stream::Writer::new(include_usage, &responses::ids());
        let mut out = Vec::new();
        let result = chunks.iter().try_for_each(|chunk| writer.push(chunk, &mut out));
        if result.is_ok() {
            writer.close(&mut out);
        }
        (out, result)
    });
}

//! Requests, responses and streams against goldens, and streams cut anywhere.

use serde_json::json;

use super::*;
use crate::core::{
    codec::value,
    format::{
        self, Format as _, generate,
        golden::{self, requests, responses},
        params,
        pipeline::{MAX_EVENT_BYTES, Pipeline},
        response::{Observed, ReadResponse},
        translate::Back,
    },
    model::terms::Terms,
    operation::{self, ApiRef},
    provider,
};

const TRANSLATE: requests::Translate = |mut chat, context| {
    let accepts = provider::accepts(provider::brand("ollama_chat").unwrap(), "llama3.2", None, &|_, _| None);
    params::fit_chat(&mut chat, &Context { accepts, ..context.clone() })?;
    let (body, requested) = request::write(chat, context)?;
    Ok((
        body,
        generate::Requested { prompt_tokens: requested.prompt_tokens, ..generate::Requested::default() },
    ))
};

fn requested(case: generate::Requested) -> Requested {
    Requested { model: "ollama_chat/llama3.2".to_owned(), prompt_tokens: case.prompt_tokens }
}

#[test]
fn whole_requests() {
    requests::walk("ollama/request/write", TRANSLATE);
}

#[test]
fn odd_values_are_refused_or_taken() {
    requests::mutate("ollama/request/write", TRANSLATE);
}

#[test]
fn whole_responses() {
    responses::whole("ollama/response/read", |body, case, ids| response::read(body, &requested(case), ids));
}

#[test]
fn whole_streams() {
    responses::streams("ollama/stream/read", |chunks, case, include_usage| {
        let mut reader = stream::Reader::new(requested(case), &responses::ids());
        let mut out = Vec::new();
        let result = chunks.iter().try_for_each(|chunk| match Format.read_error(chunk) {
            Some(error) => Err(error),
            None => {
                reader.push(chunk, &mut out);
                Ok(())
            }
        });
        let result = result.and_then(|()| reader.finish(&mut Observed::default(), &mut Vec::new()));
        (responses::seen(out, include_usage), result)
    });
}

/// What a client reads of a stream that arrives in these pieces.
fn read(api: ApiRef, pieces: &[&[u8]]) -> Vec<u8> {
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let context = Context { model: "llama3.2", brand: "ollama_chat", ..Context::default() };
    let written = Format.write_request(chat.as_object().cloned().unwrap(), &context).unwrap();
    let writer = format::of(api).writer(true).unwrap();
    let translation = Some((written.reader, writer));
    let back = Back { client: format::of(api), provider: &Format, include_usage: true, translation };
    let mut pipeline = Pipeline::new(back, Terms::default(), &responses::ids());
    let mut out = Vec::new();
    let result = pieces.iter().try_for_each(|piece| pipeline.chunk(piece, &mut out));
    match result.and_then(|()| pipeline.end(&mut out)) {
        Ok(()) => out,
        Err(error) => error.message.into_bytes(),
    }
}

#[test]
fn a_stream_reads_the_same_however_it_is_cut() {
    golden::each("ollama/stream/read", |case| {
        let lines = case["chunks"].as_array().unwrap().iter();
        let bytes: Vec<u8> =
            lines.flat_map(|line| [value::to_bytes(line), b"\n".to_vec()].concat()).collect();
        for api in [&operation::CHAT, &operation::COMPLETIONS, &operation::MESSAGES] {
            let whole = read(api, &[&bytes]);
            for at in 0..=bytes.len() {
                let (one, two) = bytes.split_at(at);
                assert_eq!(read(api, &[one, two]), whole, "{api:?} cut at {at}: {case}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(api, &single), whole, "{api:?} byte by byte: {case}");
        }
    });
}

#[test]
fn a_line_without_an_end_is_called_a_line() {
    let long = vec![b'x'; MAX_EVENT_BYTES + 1];
    let told = String::from_utf8(read(&operation::CHAT, &[&long])).unwrap();
    assert_eq!(told, "a line of the provider's stream is larger than 32 MiB");
}

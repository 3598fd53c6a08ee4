//! A client's request as the provider's request, and the way back: spliced where both speak the same format, translated over
//! the pivot where they do not.

use std::fmt;

use serde_json::{Map, Value};

use super::{
    Context, Ref, chat, json_tool, params,
    prepare::{self, Facts, Prepare},
    response::{ReadWith, WriteWith},
};
use crate::core::{
    codec::{
        json::{Object, complaint},
        value,
    },
    error::Error,
    headers::Headers,
    model::terms::Terms,
};

/// A request as a provider is sent it.
pub struct Translated {
    /// The body.
    pub body: Vec<u8>,
    /// Headers that the client wants sent.
    pub headers: Headers,
    /// `anthropic-beta` values that the body needs.
    pub betas: Vec<String>,
    /// What the call is charged by, as it is asked.
    pub terms: Terms,
    /// What the response goes through.
    pub back: Back,
}

/// The way back of a response.
pub struct Back {
    /// The format that the client reads.
    pub client: Ref,
    /// The format that the provider writes.
    pub provider: Ref,
    /// The client asked for the usage of its stream.
    pub include_usage: bool,
    /// What reads the one and writes the other; `None` where they are the same and the response passes.
    pub translation: Option<(ReadWith, WriteWith)>,
}

impl Back {
    /// The way back of a response that passes.
    pub fn passing(format: Ref, include_usage: bool) -> Back {
        Back { client: format, provider: format, include_usage, translation: None }
    }

    /// The way back of a response that is made as chat for a client of another format, or of this one.
    pub fn of_chat(client: Ref, include_usage: bool) -> Result<Back, Error> {
        let pivot: Ref = &chat::Format;
        let translation = match client == pivot {
            true => None,
            false => Some((chat::reader(), client.writer(include_usage)?)),
        };
        Ok(Back { client, provider: pivot, include_usage, translation })
    }

    /// Whether the response goes to the client as it comes.
    pub fn passes(&self) -> bool {
        self.translation.is_none()
    }
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}", self.provider, self.client)
    }
}

/// Turns a client's request into the provider's. `include_usage` says that the client is to get the usage of its stream also if
/// its body does not ask for it. `modify_params` is the deployment's or the configuration's: the request can only turn it on.
pub fn request(
    mut object: Object<'_>,
    p: &Prepare<'_>,
    modify_params: bool,
    include_usage: bool,
) -> Result<Translated, Error> {
    if p.from == p.to {
        let facts = prepare::prepare(&mut object, p)?;
        let mut back = Back::passing(p.to, include_usage || facts.include_usage);
        if facts.json_tool {
            let writer = p.from.writer(back.include_usage)?;
            back.translation = Some((json_tool::bring_back(chat::reader()), writer));
        }
        let terms = p.to.terms(&object);
        return Ok(Translated {
            body: object.to_bytes(),
            headers: facts.headers,
            betas: Vec::new(),
            terms,
            back,
        });
    }
    let modify_params = modify_params || object.raw("modify_params") == Some("true");
    let facts = prepare::strip_and_default(&mut object, p)?;
    let body = object.to_map().map_err(|e| {
        Error::bad_request(format!("the request body cannot be translated: {}", complaint(&e)))
    })?;
    let include_usage = include_usage || facts.include_usage || params::wants_usage(&body);
    let context = Context {
        model: p.model,
        brand: p.deployment.brand.name,
        quirks: p.deployment.brand.quirks,
        accepts: p.accepts,
        drop_params: facts.drop_params,
        modify_params,
        include_usage,
        allowed_params: &facts.allowed_params,
        defaults: Some(&p.deployment.defaults),
        template: p.deployment.template.as_ref(),
    };
    let pivot: Ref = &chat::Format;
    let (mut chat, writer) = p.from.read_request(body, &context)?;
    if p.to != pivot {
        params::fit_chat(&mut chat, &context)?;
    }
    let written = p.to.write_request(chat, &context)?;
    let (body, terms, has_json_tool) = match p.to == pivot {
        true => {
            as_chat(written.body, &facts, &Prepare { from: pivot, drop_params: facts.drop_params, ..*p })?
        }
        false => (with_extra_body(written.body, &facts.extra_body), Terms::default(), false),
    };
    let reader = if has_json_tool { json_tool::bring_back(written.reader) } else { written.reader };
    let back = Back { client: p.from, provider: p.to, include_usage, translation: Some((reader, writer)) };
    Ok(Translated { body, headers: facts.headers, betas: written.betas, terms, back })
}

/// What has become a chat request goes the way of every chat request. Tells whether the content is to be the call of a tool.
fn as_chat(
    chat: Map<String, Value>,
    facts: &Facts,
    p: &Prepare<'_>,
) -> Result<(Vec<u8>, Terms, bool), Error> {
    let bytes = value::to_bytes(&Value::Object(chat));
    let mut chat = Object::parse(&bytes)
        .map_err(|e| Error::internal(format!("a translated request cannot be read: {e}")))?;
    if !facts.allowed_params.is_empty() {
        chat.set("allowed_openai_params", value::to_text(&Value::from(facts.allowed_params.as_slice())));
    }
    let has_json_tool = prepare::prepare(&mut chat, p)?.json_tool;
    for (name, value) in &facts.extra_body {
        chat.set(name.clone(), value::to_text(value));
    }
    let terms = p.to.terms(&chat);
    Ok((chat.to_bytes(), terms, has_json_tool))
}

fn with_extra_body(mut body: Map<String, Value>, extra: &Map<String, Value>) -> Vec<u8> {
    for (name, value) in extra {
        body.insert(name.clone(), value.clone());
    }
    value::to_bytes(&Value::Object(body))
}

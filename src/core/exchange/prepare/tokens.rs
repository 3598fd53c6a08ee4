//! Makes texts of the token lists of an embedding: most providers take none, and some clients send nothing else.
//!
//! The ledger makes them, because the tables that turn tokens into texts would make the filter half as large again. Where there is
//! no ledger, a provider that takes no tokens refuses them (see [`crate::core::format::embeddings`]).

use std::time::Duration;

use super::{
    super::{
        Callout, Env, Exchange, Next,
        next::{Then, Upstream},
        seams::Called,
    },
    Body, Flow, Preparing,
};
use crate::core::{
    codec::json::Object, error::Error, format::embeddings::is_tokens, operation::Operation,
    protocol::TEXTS_PATH, route::plan::Plan,
};

/// How long the ledger may take over the tokens of a request.
const LIMIT: Duration = Duration::from_secs(10);

/// Puts texts in the place of tokens, if a deployment that may be called takes none.
pub(super) fn as_texts(
    exchange: &mut Exchange,
    preparing: &mut Preparing,
    body: &mut Body<'_>,
    _: &mut Env<'_>,
) -> Result<Flow, Error> {
    if exchange.received.api.operation != Operation::Embed || !exchange.config.general.has_ledger {
        return Ok(Flow::Done);
    }
    let Some(input) = body.object(exchange)?.raw("input").filter(|input| is_tokens(input)) else {
        return Ok(Flow::Done);
    };
    if exchange.plan().is_none_or(|plan| exchange.all_take_tokens(plan)) {
        return Ok(Flow::Done);
    }
    match std::mem::take(&mut preparing.called) {
        Called::No => {
            let input = input.as_bytes().to_vec();
            preparing.calls()?;
            Ok(Flow::Leave(Next::Call(ask(input))))
        }
        Called::Response(Some(response)) => {
            let told = Object::parse(&response.body).unwrap_or_default();
            if response.status == 400 {
                let why = told.read::<String>("detail").unwrap_or_default();
                return Err(
                    Error::bad_request(format!("`input` is no list of tokens: {why}")).with_param("input")
                );
            }
            // Whoever takes none says so when its request is built.
            let Some(texts) = told.raw("input").filter(|_| response.status == 200) else {
                return Ok(Flow::Done);
            };
            let mut object = body.take(exchange)?;
            object.set("input", texts.to_owned());
            exchange.change_body(object.to_bytes())?;
            Ok(Flow::Changed)
        }
        Called::Response(None) => Ok(Flow::Done),
    }
}

fn ask(input: Vec<u8>) -> Callout {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Callout {
        to: Upstream::Ledger,
        headers: vec![
            header(":method", "POST"),
            header(":path", TEXTS_PATH),
            header("content-type", "application/json"),
        ],
        body: Some(input),
        limit: LIMIT,
        then: Then::Seam,
    }
}

impl Exchange {
    fn all_take_tokens(&self, plan: &Plan) -> bool {
        let deployments = plan.deployments().filter_map(|at| self.config.deployments.get(at));
        deployments.into_iter().all(|deployment| deployment.brand.quirks.takes_tokens)
    }
}

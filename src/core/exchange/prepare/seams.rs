//! Histories, guards and caches before a request is routed.

use std::rc::Rc;

use super::{
    super::{
        Env, Exchange, Next, Released, Reply, bounds, local,
        open::size_allowed,
        seams::{Request, Seam, Verdict},
    },
    Body, Flow, Preparing,
};
use crate::core::{error::Error, headers::Headers, model::status::Status};

impl Exchange {
    /// Lets the seams of a step judge the request, those that have not yet.
    pub(super) fn pass_seams(
        &mut self,
        seams: &[Box<dyn Seam>],
        preparing: &mut Preparing,
        body: &Body<'_>,
        env: &Env<'_>,
    ) -> Result<Flow, Error> {
        if seams.is_empty() {
            return Ok(Flow::Done);
        }
        while let Some(seam) = seams.get(preparing.seam) {
            let request = Request {
                caller: &self.caller,
                api: self.received.api,
                model: &preparing.model,
                body: body.bytes,
            };
            match seam.before(&request, std::mem::take(&mut preparing.called)) {
                Verdict::Go => preparing.seam = preparing.seam.saturating_add(1),
                Verdict::Change(changed) => {
                    self.change_body(changed)?;
                    preparing.seam = preparing.seam.saturating_add(1);
                    return Ok(Flow::Changed);
                }
                Verdict::Reply(body) => return Ok(Flow::Leave(self.reply_with(body, env))),
                Verdict::Block(error) => return Err(error),
                Verdict::Call(callout) => {
                    preparing.calls()?;
                    return Ok(Flow::Leave(Next::Call(callout)));
                }
            }
        }
        preparing.seam = 0;
        Ok(Flow::Done)
    }

    /// Puts a body in the place of the client's, within the bounds that hold for every body.
    pub(super) fn change_body(&mut self, changed: Vec<u8>) -> Result<(), Error> {
        let length = u64::try_from(changed.len()).unwrap_or(u64::MAX);
        size_allowed(length, &self.config)?;
        bounds::check(&self.members(&changed)?, self.received.api)?;
        self.received.body_bytes = length;
        self.received.changed = Some(Rc::from(changed));
        Ok(())
    }

    /// Answers with a body for which no provider was called.
    fn reply_with(&mut self, body: Vec<u8>, env: &Env) -> Next {
        self.delivery.status = Some(Status::OK);
        self.delivery.first_ms = env.now_ms;
        self.delivery.released = Released::Response;
        let mut headers = Headers::from_pairs(&[("content-type", "application/json")]);
        self.add_gateway_headers(&mut headers);
        self.add_limit_headers(&mut headers, None);
        let mut reply = Reply { status: 200, headers: Vec::new(), body, members: Vec::new() };
        reply.extend(&headers);
        local::add_cors(&mut reply, self.received.cors);
        Next::Reply(reply)
    }
}

//! From a request's body to its first attempt: the steps of [`PREPARE`], one after the other.
//!
//! A step that has to wait, or to call somebody, leaves; it is run again when what it left for has come, with the same body,
//! and the steps before it are not. What they found stands in [`Preparing`] and in the exchange.

mod build;
mod permit;
mod plan;
mod read;
mod seams;
mod tokens;
mod unpack;

use std::{rc::Rc, sync::Arc};

use super::{
    Env, Exchange, Phase,
    lookup::learn,
    next::{Next, Then},
    seams::Called,
};
use crate::core::{codec::json::Object, error::Error, host::CallResponse, model::virtual_key::EndUser};

/// What happens to a request before its first attempt, in this order.
const PREPARE: &[(&str, Step)] = &[
    ("unpack", unpack::unpack),
    ("read", read::read),
    ("end user", permit::end_user),
    ("permit", permit::permit),
    ("history", |exchange, preparing, body, env| {
        exchange.pass_seams(&env.seams.history, preparing, body, env)
    }),
    ("guard", |exchange, preparing, body, env| exchange.pass_seams(&env.seams.guards, preparing, body, env)),
    ("cache", |exchange, preparing, body, env| exchange.pass_seams(&env.seams.cache, preparing, body, env)),
    ("plan", plan::plan),
    ("tokens", tokens::as_texts),
    ("reserve", plan::reserve),
    ("mocked fallback", plan::mock_fallback),
    (SLOT, build::slot),
    ("mock", build::mock),
    ("count", build::count),
    ("build", build::build),
];
/// The step that takes a slot at the current candidate.
const SLOT: &str = "slot";

/// A request asks for no more than this: records that change all the time must not keep it here for ever.
const MOST_CALLS: u8 = 6;

type Step = fn(&mut Exchange, &mut Preparing, &mut Body<'_>, &mut Env<'_>) -> Result<Flow, Error>;

/// How it goes on after a step.
enum Flow {
    /// With the next step.
    Done,
    /// With the same step, on the body that stands in the client's place now.
    Changed,
    /// With the step that takes a slot: another candidate has become the current one.
    ToSlot,
    /// Not now; a step that waits is run again.
    Leave(Next),
}

/// What is known of a request while the steps are run.
#[derive(Default)]
pub(super) struct Preparing {
    /// The step to run next, in [`PREPARE`].
    at: usize,
    /// The model that was asked for.
    model: String,
    /// The record of the end user that the request names.
    end_user: Option<Arc<EndUser>>,
    /// Which seam of the current step is to judge next.
    seam: usize,
    /// What came of the call that the current step has made.
    called: Called,
    calls: u8,
    /// Since when it waits for a slot, Unix milliseconds.
    pub waits_since_ms: Option<u64>,
    /// A mocked time-out has taken its time.
    timed_out: bool,
}

impl Preparing {
    /// Counts a call.
    fn calls(&mut self) -> Result<(), Error> {
        self.calls = self.calls.saturating_add(1);
        if self.calls <= MOST_CALLS {
            return Ok(());
        }
        Err(Error::unavailable("the gateway lost track of this request; send it again."))
    }
}

/// The request's body while it is in hand.
struct Body<'b> {
    bytes: &'b [u8],
    object: Option<Object<'b>>,
}

impl<'b> Body<'b> {
    /// The body as an object.
    fn object(&mut self, exchange: &Exchange) -> Result<&Object<'b>, Error> {
        let object = self.take(exchange)?;
        Ok(self.object.insert(object))
    }

    /// The body as an object to be changed.
    fn take(&mut self, exchange: &Exchange) -> Result<Object<'b>, Error> {
        self.object.take().map_or_else(|| exchange.members(self.bytes), Ok)
    }
}

impl Exchange {
    /// The whole body is here, for the first time or again: goes on with the steps up to the first attempt.
    pub fn on_body(&mut self, body: &[u8], env: &mut Env) -> Next {
        let mut preparing = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Receiving { .. } => Preparing::default(),
            Phase::Preparing(preparing) => preparing,
            phase => {
                self.phase = phase;
                return Next::Hold;
            }
        };
        let next = self.prepare(&mut preparing, body, env);
        let next = next.unwrap_or_else(|error| Next::Reply(self.refuse(error)));
        if matches!(next, Next::Wait(_) | Next::Call(_)) {
            self.phase = Phase::Preparing(preparing);
        }
        next
    }

    /// A wait is over: it goes on, or its body is wanted. A request takes its slot as soon as there is one.
    pub fn on_wait(&mut self, env: &mut Env) -> Next {
        match &self.phase {
            Phase::Preparing(Preparing { waits_since_ms: Some(since_ms), .. }) => {
                self.wait_on(*since_ms, env)
            }
            _ => Next::ReadBody,
        }
    }

    /// A call that [`Next::Call`] asked for has its response, or will have none.
    pub fn on_called(&mut self, then: &Then, response: Option<CallResponse>, env: &mut Env) -> Next {
        match (then, &mut self.phase) {
            (Then::Record(lookup), _) => learn(lookup, response, env),
            (Then::Seam, Phase::Preparing(preparing)) => preparing.called = Called::Response(response),
            (Then::Seam, _) => return self.on_judged(response, env),
        }
        // The body is read when no call's response is in hand: what is too much for this worker kills it wherever it is read,
        // but a request that is in a call's response then would never be answered.
        Next::Wait(0)
    }

    fn prepare(&mut self, preparing: &mut Preparing, body: &[u8], env: &mut Env) -> Result<Next, Error> {
        loop {
            let changed = self.received.changed.as_ref().map(Rc::clone);
            let body = Body { bytes: changed.as_deref().unwrap_or(body), object: None };
            if let Some(next) = self.run(preparing, body, env)? {
                return Ok(next);
            }
        }
    }

    /// Runs steps until one leaves. `None`: the body has been changed.
    fn run(
        &mut self,
        preparing: &mut Preparing,
        mut body: Body<'_>,
        env: &mut Env,
    ) -> Result<Option<Next>, Error> {
        while let Some((_, step)) = PREPARE.get(preparing.at) {
            match step(self, preparing, &mut body, env)? {
                Flow::Done => preparing.at = preparing.at.saturating_add(1),
                Flow::Changed => return Ok(None),
                Flow::ToSlot => {
                    preparing.at = PREPARE.iter().position(|(name, _)| *name == SLOT).unwrap_or(0)
                }
                Flow::Leave(next) => return Ok(Some(next)),
            }
        }
        Err(Error::internal("a request was prepared and has no attempt"))
    }
}

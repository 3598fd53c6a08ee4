//! Where histories, guards and caches come in: things of others that look at a request and at its response on their way.
//!
//! Production has none yet. Each place where one could stand asks only whether its list is empty.

use crate::core::{
    access::Caller, error::Error, exchange::next::Callout, host::CallResponse, operation::ApiRef,
};

/// What looks at requests and responses, in the order in which it does.
#[derive(Default)]
pub struct Seams {
    /// What puts earlier turns into a request.
    pub history: Vec<Box<dyn Seam>>,
    /// What may change or block a request, or its response.
    pub guards: Vec<Box<dyn Seam>>,
    /// What may answer a request in a provider's place.
    pub cache: Vec<Box<dyn Seam>>,
}

/// Something that looks at requests and responses on their way.
pub trait Seam {
    /// Judges a request that its caller may make, before it is routed. `called` is the response to what it asked for last.
    fn before(&self, _request: &Request<'_>, _called: Called) -> Verdict {
        Verdict::Go
    }

    /// Judges a response, or a part of a streamed one, before the client sees it. `called` as above.
    fn after(&self, _response: &Response<'_>, _called: Called) -> Verdict {
        Verdict::Go
    }
}

/// A request as a seam sees it.
pub struct Request<'r> {
    /// The caller.
    pub caller: &'r Caller,
    /// The client's API.
    pub api: ApiRef,
    /// The model that is asked for.
    pub model: &'r str,
    /// The body, with what earlier seams have changed.
    pub body: &'r [u8],
}

/// A response in the client's format as a seam sees it.
pub struct Response<'r> {
    /// The client's API.
    pub api: ApiRef,
    /// The whole body, or the newest part of a stream.
    pub body: &'r [u8],
    /// The body is a part of a stream.
    pub is_part: bool,
}

/// Whether a seam is asked for the first time, or has its response.
#[derive(Debug, Default)]
pub enum Called {
    /// The seam has called nobody yet.
    #[default]
    No,
    /// What came of its call; `None`: it failed, or took too long.
    Response(Option<CallResponse>),
}

/// What a seam decides.
pub enum Verdict {
    /// What is judged goes on as it is.
    Go,
    /// What is judged goes on with this body.
    Change(Vec<u8>),
    /// The client gets this body, in its own format. Of a response it is what [`Verdict::Change`] is.
    Reply(Vec<u8>),
    /// The client gets this error.
    Block(Error),
    /// The seam is asked again when this call has its response.
    Call(Callout),
}

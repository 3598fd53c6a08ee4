//! Where a response stands, with what is known only there.

use super::encoding::Unpacking;
use crate::core::{
    codec::{framing::Shape, tap::Tap},
    format::{pipeline::Pipeline, translate::Back},
    headers::Headers,
    model::status::Status,
};

/// Where the response to an attempt stands.
pub(in crate::core::exchange) enum Response {
    /// The response has not begun; with the way back of what will come.
    Awaited(Back),
    /// A failure whose body is being read.
    Failing {
        /// The provider's status.
        status: Option<Status>,
        /// The response's headers.
        headers: Headers,
    },
    /// A buffered response whose headers wait for its end.
    Held {
        /// What reads it.
        pipeline: Box<Pipeline>,
        /// The response's headers.
        headers: Headers,
        /// However large it is, it does not pass before its end.
        to_the_end: bool,
    },
    /// A buffered response too large to hold: it passes while its usage is caught.
    Passing {
        /// What keeps its usage.
        pipeline: Box<Pipeline>,
        /// What catches it.
        tap: Box<Tap>,
    },
    /// A stream.
    Streaming(Box<Streaming>),
    /// The response, or a part of it, is held while a seam judges it.
    Judging(Box<Judging>),
    /// Nothing more is to be read.
    Over,
}

impl Response {
    /// Whether nothing of it has come.
    pub fn is_awaited(&self) -> bool {
        matches!(self, Response::Awaited(_))
    }
}

/// A stream under way.
pub(in crate::core::exchange) struct Streaming {
    pub(super) pipeline: Pipeline,
    /// The response's headers, until something of the answer goes out.
    pub(super) headers: Option<Headers>,
    /// While parts are kept back, the host gives them again with the next one: how much of them is known.
    pub(super) seen: usize,
    pub(super) unpacking: Unpacking,
    /// A stream, or a response that is to be read whole in its place; `None` while its first bytes have not come.
    pub(super) shape: Option<Shape>,
    /// What has come, unpacked, while they do not tell.
    pub(super) beginning: Vec<u8>,
    /// What waits until the answer begins, in the client's format.
    pub(super) held: Vec<u8>,
    /// What has been judged and waits to go out.
    pub(super) ready: Vec<u8>,
    /// What came while that was judged, and is judged with the next part.
    pub(super) unjudged: Vec<u8>,
}

impl Streaming {
    pub(super) fn new(pipeline: Pipeline, headers: Headers) -> Streaming {
        Streaming {
            pipeline,
            unpacking: Unpacking::new(&headers),
            headers: Some(headers),
            seen: 0,
            shape: None,
            beginning: Vec::new(),
            held: Vec::new(),
            ready: Vec::new(),
            unjudged: Vec::new(),
        }
    }

    /// Whether what has come in the place of a stream is a response that is to be read whole.
    pub(super) fn is_whole(&self) -> bool {
        self.shape == Some(Shape::Whole)
    }

    /// Whether the client has seen its beginning.
    pub(super) fn has_begun(&self) -> bool {
        self.headers.is_none()
    }
}

/// What is being judged.
pub(in crate::core::exchange) struct Judging {
    pub(super) what: Judged,
    /// In the client's format, with what guards have changed.
    pub(super) body: Vec<u8>,
    /// Which guard is to judge next.
    pub(super) at: usize,
    /// How often guards have called somebody.
    pub(super) calls: u8,
}

pub(super) enum Judged {
    Whole { pipeline: Box<Pipeline>, headers: Headers },
    Part { stream: Box<Streaming>, kept: usize, end: bool },
}

impl Judging {
    /// A buffered response.
    pub(super) fn whole(pipeline: Box<Pipeline>, headers: Headers, body: Vec<u8>) -> Box<Judging> {
        Box::new(Judging { what: Judged::Whole { pipeline, headers }, body, at: 0, calls: 0 })
    }

    /// A part of a stream; `kept`: how much of it the host keeps back.
    pub(super) fn part(stream: Box<Streaming>, body: Vec<u8>, kept: usize, end: bool) -> Box<Judging> {
        Box::new(Judging { what: Judged::Part { stream, kept, end }, body, at: 0, calls: 0 })
    }

    /// What has read it.
    pub(super) fn pipeline(&self) -> &Pipeline {
        match &self.what {
            Judged::Whole { pipeline, .. } => pipeline,
            Judged::Part { stream, .. } => &stream.pipeline,
        }
    }
}

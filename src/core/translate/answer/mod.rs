//! Answers: a wire format's body or stream as a client API's.

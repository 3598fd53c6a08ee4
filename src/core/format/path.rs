//! Where in a request a value stands, for refusals that name it (`messages[2].content[0].type`).

use std::fmt;

use serde_json::{Map, Value};

use crate::core::error::Error;

/// A place in a JSON body. Costs nothing until it is printed.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    /// A member of the body itself.
    pub fn top(member: &'a str) -> Path<'a> {
        Path { above: None, step: Step::Member(member) }
    }

    /// A member of the object here.
    pub fn member(&'a self, member: &'a str) -> Path<'a> {
        Path { above: Some(self), step: Step::Member(member) }
    }

    /// An item of the list here.
    pub fn item(&'a self, at: usize) -> Path<'a> {
        Path { above: Some(self), step: Step::Item(at) }
    }

    /// The refusal of what stands here: 400 with the path as its `param`.
    pub fn wrong(&self, expected: &str) -> Error {
        Error::bad_request(format!("`{self}` must be {expected}")).with_param(self.to_string())
    }

    /// `value` as the object it must be.
    pub fn object(&self, value: Value) -> Result<Map<String, Value>, Error> {
        match value {
            Value::Object(object) => Ok(object),
            _ => Err(self.wrong("an object")),
        }
    }

    /// `value` as the list it must be.
    pub fn list(&self, value: Value) -> Result<Vec<Value>, Error> {
        match value {
            Value::Array(list) => Ok(list),
            _ => Err(self.wrong("a list")),
        }
    }

    /// Takes the text member `name` out of the object that stands here.
    pub fn take_text(&self, object: &mut Map<String, Value>, name: &str) -> Result<String, Error> {
        match object.shift_remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(self.member(name).wrong("a string")),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Member(name) if self.above.is_some() => write!(f, ".{name}"),
            Step::Member(name) => f.write_str(name),
            Step::Item(at) => write!(f, "[{at}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_the_json_it_points_into() {
        let messages = Path::top("messages");
        let (message, content) = (messages.item(2), "content");
        assert_eq!(message.member(content).item(0).to_string(), "messages[2].content[0]");
        let error = message.wrong("an object");
        assert_eq!((error.status(), error.message.as_str()), (400, "`messages[2]` must be an object"));
        assert_eq!(error.param.as_deref(), Some("messages[2]"));
    }
}

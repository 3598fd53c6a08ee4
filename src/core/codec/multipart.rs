//! A multipart form (RFC 7578): its parts where they lie in the body, none of them copied.
//!
//! Whoever reads a form after us must find the same in it. So what two readers may read differently is a [`Fault`]: line breaks
//! that are not `\r\n`, text before the first boundary or behind one, doubled or folded headers, contents in another encoding.

use std::{borrow::Cow, fmt};

use memchr::memmem;

/// The most parts of a form, as LiteLLM has it.
const MOST_PARTS: usize = 1_000;

/// The most bytes of the headers of one part.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// The most bytes of a boundary (RFC 2046).
const MAX_BOUNDARY_BYTES: usize = 70;

/// What is wrong with a form, in words for whoever sent it. Of what was sent only names of fields are quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(Cow<'static, str>);

impl Fault {
    const fn new(text: &'static str) -> Fault {
        Fault(Cow::Borrowed(text))
    }

    /// A fault of a field; so much of its name is quoted as a client would still read.
    fn of(name: &str, text: &str) -> Fault {
        let name: String = name.chars().filter(|letter| !letter.is_control()).take(64).collect();
        Fault(Cow::Owned(format!("the field `{name}` {text}")))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const NO_END: Fault = Fault::new("it ends before its last boundary");
const NO_START: Fault = Fault::new("it does not begin with the boundary that `content-type` names");
const NO_LINE_END: Fault = Fault::new(
    "the boundary stands in it where no part ends: choose one that no part holds, and end lines with `\\r\\n`",
);
const BAD_HEADER: Fault = Fault::new("a header of a part is none: expected `name: value`, one on each line");

/// One part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'b> {
    /// The field's name.
    pub name: &'b str,
    /// Whether it has a file name: it is a file then, whatever it holds.
    pub is_file: bool,
    /// What stands in it.
    pub content: &'b [u8],
}

impl<'b> Part<'b> {
    /// The text of a field that is no file.
    pub fn text(&self) -> Result<&'b str, Fault> {
        simdutf8::basic::from_utf8(self.content).map_err(|_| Fault::of(self.name, "is not UTF-8"))
    }
}

/// Finds the parts of a form, in their order: one pass over the body.
pub fn parts<'b>(boundary: &str, body: &'b [u8]) -> Result<Vec<Part<'b>>, Fault> {
    let delimiter = [b"\n--", boundary.as_bytes()].concat();
    let finder = memmem::Finder::new(&delimiter);
    // The first boundary needs no line break before it; some clients send one.
    let start = body.strip_prefix(b"\r\n").unwrap_or(body);
    let mut rest = start.strip_prefix(delimiter.get(1..).unwrap_or_default()).ok_or(NO_START)?;
    let mut parts = Vec::new();
    while let Some(part) = behind_boundary(rest)? {
        let (head, content) = head(part)?;
        let at = finder.find(content).ok_or(NO_END)?;
        let (inside, after) = content.split_at(at);
        // Parts end with a line break, which belongs to the boundary.
        let content = inside.strip_suffix(b"\r").ok_or(NO_LINE_END)?;
        if parts.len() == MOST_PARTS {
            return Err(Fault(Cow::Owned(format!("it has more than {MOST_PARTS} parts"))));
        }
        parts.push(Part { name: head.name, is_file: head.is_file, content });
        rest = after.get(delimiter.len()..).unwrap_or_default();
    }
    Ok(parts)
}

/// What follows a boundary: a part, or nothing more of the form. What stands behind the last boundary's line is nobody's.
fn behind_boundary(rest: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let (is_last, rest) = match rest.strip_prefix(b"--") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match (is_last, rest.get(padding..).unwrap_or_default()) {
        (true, [] | [b'\r', b'\n', ..]) => Ok(None),
        (false, [b'\r', b'\n', part @ ..]) => Ok(Some(part)),
        (false, [] | [b'\r']) => Err(NO_END),
        _ => Err(NO_LINE_END),
    }
}

/// What the headers of a part tell.
struct Head<'b> {
    name: &'b str,
    is_file: bool,
}

/// The headers of a part, and what stands behind the empty line after them.
fn head(part: &[u8]) -> Result<(Head<'_>, &[u8]), Fault> {
    let mut found = None;
    let (mut rest, mut left) = (part, MAX_HEADER_BYTES);
    loop {
        let window = rest.get(..rest.len().min(left.saturating_add(2))).unwrap_or_default();
        let Some(end) = memmem::find(window, b"\r\n") else {
            return Err(if window.len() < rest.len() { LONG_HEADERS } else { NO_END });
        };
        let (line, after) = (rest.get(..end).unwrap_or_default(), rest.get(end + 2..).unwrap_or_default());
        (rest, left) = (after, left.saturating_sub(end + 2));
        if line.is_empty() {
            return Ok((found.ok_or(NO_NAME)?, rest));
        }
        let line = std::str::from_utf8(line).map_err(|_| BAD_HEADER)?;
        let (name, value) = line.split_once(':').ok_or(BAD_HEADER)?;
        // A line that begins with a space goes on with the one before for some readers; one of dashes could be a boundary.
        let begins = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if !begins
            || !name.bytes().all(is_token)
            || line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
        {
            return Err(BAD_HEADER);
        }
        if name.eq_ignore_ascii_case("content-disposition") && found.replace(disposition(value)?).is_some() {
            return Err(Fault::new("a part has two headers `content-disposition`"));
        }
        if name.eq_ignore_ascii_case("content-transfer-encoding") && !is_plain_encoding(value.trim()) {
            return Err(Fault::new(
                "a part is in a `content-transfer-encoding`: expected its bytes as they are",
            ));
        }
    }
}

const LONG_HEADERS: Fault = Fault::new("the headers of a part have more than 8 KiB");
const NO_NAME: Fault =
    Fault::new("a part has no name: expected the header `content-disposition: form-data; name=\"…\"`");

fn is_plain_encoding(value: &str) -> bool {
    ["7bit", "8bit", "binary"].iter().any(|plain| value.eq_ignore_ascii_case(plain))
}

/// Reads `form-data; name="…"; filename="…"`.
fn disposition(value: &str) -> Result<Head<'_>, Fault> {
    let (kind, rest) = value.split_once(';').unwrap_or((value, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err(NO_NAME);
    }
    let (mut name, mut is_file) = (None, false);
    for parameter in Parameters(rest) {
        let (key, value) = parameter?;
        if key.eq_ignore_ascii_case("name") && name.replace(value).is_some() {
            return Err(Fault::new("a part has two names"));
        }
        is_file |= key.eq_ignore_ascii_case("filename") || key.eq_ignore_ascii_case("filename*");
    }
    // Some readers take an escape for what it stands for, some do not.
    match name {
        Some(Cow::Borrowed(name)) if !name.is_empty() => Ok(Head { name, is_file }),
        Some(Cow::Owned(_)) => Err(Fault::new("the name of a part has `\\\"` or `\\\\` in it")),
        _ => Err(NO_NAME),
    }
}

/// The boundary that a `content-type` names; `None` when it is not that of a form.
pub fn boundary(content_type: &str) -> Result<Option<Cow<'_, str>>, Fault> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    let mut found = None;
    for parameter in Parameters(parameters) {
        let (name, value) = parameter?;
        if name.eq_ignore_ascii_case("boundary") && found.replace(value).is_some() {
            return Err(Fault::new("its `content-type` names two boundaries"));
        }
    }
    match found {
        None => Err(Fault::new(
            "its `content-type` names no boundary: expected `multipart/form-data; boundary=…`",
        )),
        Some(boundary) if is_boundary(&boundary) => Ok(Some(boundary)),
        Some(_) => Err(Fault::new(
            "its `content-type` has a boundary that is none: expected 1 to 70 letters, digits and hyphens",
        )),
    }
}

fn is_boundary(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=MAX_BOUNDARY_BYTES).contains(&text.len()) && text.bytes().all(is_plain) && !text.ends_with(' ')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `name=value; name="value"`: what follows the `;` of a header's value.
struct Parameters<'t>(&'t str);

impl<'t> Iterator for Parameters<'t> {
    type Item = Result<(&'t str, Cow<'t, str>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches([' ', '\t', ';']);
        self.0 = "";
        (!text.is_empty()).then(|| {
            let (name, value) = text.split_once('=').ok_or(BAD_PARAMETER)?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(BAD_PARAMETER);
            }
            let (value, rest) = match value.strip_prefix('"') {
                Some(quoted) => unquoted(quoted)?,
                None => {
                    let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
                    let (value, rest) = value.split_at(end);
                    (Cow::Borrowed(value), rest)
                }
            };
            let rest = rest.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(';') {
                return Err(BAD_PARAMETER);
            }
            self.0 = rest;
            Ok((name, value))
        })
    }
}

const BAD_PARAMETER: Fault =
    Fault::new("a parameter of a header is none: expected `name=value` or `name=\"value\"`");

/// A text up to the quote that ends it, and what follows. Owned when something in it was escaped.
fn unquoted(text: &str) -> Result<(Cow<'_, str>, &str), Fault> {
    let mut whole = Cow::Borrowed("");
    let mut rest = text;
    loop {
        let at = rest.find(['"', '\\']).ok_or(BAD_PARAMETER)?;
        let (plain, after) = rest.split_at(at);
        if after.starts_with('"') {
            let after = after.get(1..).unwrap_or_default();
            return Ok((if whole.is_empty() { Cow::Borrowed(plain) } else { whole + plain }, after));
        }
        // Paths of Windows have backslashes that escape nothing.
        let escaped =
            after.get(1..).and_then(|after| after.chars().next()).filter(|it| matches!(it, '"' | '\\'));
        let mut text = whole.into_owned() + plain;
        text.push(escaped.unwrap_or('\\'));
        whole = Cow::Owned(text);
        rest = after.get(1 + usize::from(escaped.is_some())..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;

//! A request's or a response's headers as bytes: what the network sent, not what it should have sent.
//!
//! All names and values stand in one buffer, in the layout that the host reads and writes: a request has dozens of headers on
//! its way through, and two allocations for each of them would be most of what the gateway does for it.

use std::{fmt, io::Write};

/// Header names (lower-case, as Envoy gives them) and values in order. A value may be any bytes.
#[derive(Clone, Default)]
pub struct Headers {
    /// `name NUL value NUL` for each header, wherever its span says.
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where one header stands: its name, a NUL, its value, a NUL.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    name: u32,
    value: u32,
}

/// Bytes that most headers fit into.
const ROOM: usize = 40;

impl Headers {
    /// An empty list with room for so many headers.
    pub fn with_capacity(count: usize) -> Headers {
        Headers { bytes: Vec::with_capacity(count.saturating_mul(ROOM)), spans: Vec::with_capacity(count) }
    }

    /// The list from text.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    /// Takes over a list in the host's layout: the number of headers, the lengths of each name and value, then all of them,
    /// each with a NUL behind it; numbers are little-endian `u32`. What does not fit that layout is no header.
    pub fn from_map(bytes: Vec<u8>) -> Headers {
        let number = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
        };
        let count = number(0).unwrap_or(0);
        let mut spans = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len() / 10));
        let mut start = count.saturating_mul(8).saturating_add(4);
        for at in (4..).step_by(8).take(usize::try_from(count).unwrap_or(0)) {
            let (Some(name), Some(value)) = (number(at), number(at + 4)) else { break };
            let span = Span { start, name, value };
            start = start.saturating_add(name).saturating_add(value).saturating_add(2);
            if usize::try_from(start).unwrap_or(usize::MAX) > bytes.len() {
                break;
            }
            spans.push(span);
        }
        Headers { bytes, spans }
    }

    /// The list in the host's layout, see [`Headers::from_map`].
    pub fn to_map(&self) -> Vec<u8> {
        let size: usize = self.spans.iter().map(|span| span.range().len() + 8).sum();
        let mut map = Vec::with_capacity(size + 4);
        map.extend_from_slice(&u32::try_from(self.spans.len()).unwrap_or(0).to_le_bytes());
        for span in &self.spans {
            map.extend_from_slice(&span.name.to_le_bytes());
            map.extend_from_slice(&span.value.to_le_bytes());
        }
        for span in &self.spans {
            map.extend_from_slice(self.bytes.get(span.range()).unwrap_or_default());
        }
        map
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let span = self.spans.iter().find(|span| self.name(span) == name.as_bytes())?;
        Some(self.value(span))
    }

    /// The first value of a name when it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Names and values in order, names as bytes too, for callers that only compare them.
    pub fn raw(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| (self.name(span), self.value(span)))
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.spans
            .iter()
            .map(|span| (std::str::from_utf8(self.name(span)).unwrap_or_default(), self.value(span)))
    }

    /// Adds a header at the end.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.push_with(&[name], |bytes| bytes.extend_from_slice(value));
    }

    /// Adds a header whose name may be any bytes, too.
    pub fn push_bytes(&mut self, name: &[u8], value: &[u8]) {
        self.push_with(&[name], |bytes| bytes.extend_from_slice(value));
    }

    /// Adds a header with a number.
    pub fn push_number(&mut self, name: &str, value: u64) {
        self.push_number_of(&[name], value);
    }

    /// Adds a header with a number, whose name is made of parts.
    pub fn push_number_of(&mut self, name: &[&str], value: u64) {
        self.push_with(name, |bytes| bytes.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()));
    }

    /// Adds a header with whatever can be shown.
    pub fn push_shown(&mut self, name: &str, value: impl fmt::Display) {
        // Writing to a Vec cannot fail.
        self.push_with(&[name], |bytes| _ = write!(bytes, "{value}"));
    }

    /// Adds a header whose name is made of parts and whose value `write` puts down.
    pub fn push_with(&mut self, name: &[impl AsRef<[u8]>], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.reserve(ROOM);
        name.iter().for_each(|part| self.bytes.extend_from_slice(part.as_ref()));
        let end_of_name = self.bytes.len();
        self.bytes.push(0);
        write(&mut self.bytes);
        let value = self.bytes.len().saturating_sub(end_of_name).saturating_sub(1);
        self.bytes.push(0);
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let name = number(end_of_name.saturating_sub(start));
        self.spans.push(Span { start: number(start), name, value: number(value) });
    }

    /// Puts a value in place of all that a name has, else at the end.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let Some(at) = self.spans.iter().position(|span| self.name(span) == name.as_bytes()) else {
            return self.push(name, value);
        };
        self.push(name, value);
        if let Some(span) = self.spans.pop()
            && let Some(place) = self.spans.get_mut(at)
        {
            *place = span;
        }
        let mut seen = 0_usize;
        self.retain(|other, _| {
            seen += usize::from(other == name);
            other != name || seen == 1
        });
    }

    /// Keeps the headers for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.retain(|span| keep(std::str::from_utf8(self.name(span)).unwrap_or_default(), self.value(span)));
        self.spans = spans;
    }

    /// Adds all of another list.
    pub fn append(&mut self, other: &Headers) {
        let moved = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&other.bytes);
        let shifted =
            other.spans.iter().map(|span| Span { start: span.start.saturating_add(moved), ..*span });
        self.spans.extend(shifted);
    }

    fn name(&self, span: &Span) -> &[u8] {
        self.bytes.get(span.range()).and_then(|bytes| bytes.get(..span.name as usize)).unwrap_or_default()
    }

    fn value(&self, span: &Span) -> &[u8] {
        let start = span.name as usize + 1;
        self.bytes
            .get(span.range())
            .and_then(|bytes| bytes.get(start..start + span.value as usize))
            .unwrap_or_default()
    }
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + self.name as usize + self.value as usize + 2
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Headers {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [u8])>>(list: T) -> Headers {
        let list = list.into_iter();
        let mut headers = match list.size_hint().0 {
            0 => Headers::default(),
            count => Headers::with_capacity(count),
        };
        for (name, value) in list {
            headers.push(name, value);
        }
        headers
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_back_as_they_were_made() {
        let mut headers = Headers::from_pairs(&[("a", "1"), ("b", ""), ("a", "2")]);
        headers.push_number("n", u64::MAX);
        headers.push_shown("s", 1.5);
        headers.push_with(&["x-", "y"], |bytes| bytes.extend_from_slice(&[0, 255]));
        let read = Headers::from_map(headers.to_map());
        assert_eq!(read, headers);
        assert_eq!(
            (read.len(), read.get("a"), read.text("b"), read.get("c")),
            (6, Some(&b"1"[..]), Some(""), None)
        );
        assert_eq!((read.text("n"), read.text("s")), (Some("18446744073709551615"), Some("1.5")));
        assert_eq!((read.get("x-y"), read.text("x-y")), (Some(&[0, 255][..]), None));
        // What was read can be added to.
        let mut more = read.clone();
        more.push("z", b"9");
        assert_eq!((more.len(), more.text("n"), more.text("z")), (7, read.text("n"), Some("9")));
    }

    #[test]
    fn setting_and_keeping() {
        let mut headers = Headers::from_pairs(&[("a", "1"), ("b", "2"), ("a", "3")]);
        headers.set("a", b"four");
        headers.set("c", b"5");
        assert_eq!(headers, Headers::from_pairs(&[("a", "four"), ("b", "2"), ("c", "5")]));
        headers.retain(|name, _| name != "b");
        let mut twice = headers.clone();
        twice.append(&headers);
        assert_eq!(twice, Headers::from_pairs(&[("a", "four"), ("c", "5"), ("a", "four"), ("c", "5")]));
        assert_eq!(Headers::from_map(twice.to_map()), twice);
    }

    #[test]
    fn what_is_cut_or_no_list_at_all_gives_what_is_whole() {
        let whole = Headers::from_pairs(&[("name", "value"), ("other", "thing")]).to_map();
        for end in 0..whole.len() {
            let cut = Headers::from_map(whole[..end].to_vec());
            assert!(cut.len() < 2, "{end}");
            assert_eq!(cut.get("name").is_some(), cut.len() == 1, "{end}");
        }
        assert!(Headers::from_map(vec![255; 64]).is_empty());
        assert!(Headers::from_map(Vec::new()).is_empty());
    }
}

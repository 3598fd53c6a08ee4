//! A look at an event of a stream for the few members that matter on its way through, without parsing it.
//!
//! A stream may have thousands of events, and most of each is the same as in the one before: `"id"`, `"model"` and whatever
//! else stands before the news. So what has been looked at once, and holds none of the names, is only compared from then on.

/// Longer beginnings are not kept.
const MOST_KEPT: usize = 1_024;

/// A member of an event that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// `delta`.
    Delta,
    /// `finish_reason`.
    FinishReason,
    /// `reasoning`.
    Reasoning,
    /// `tool_calls`.
    ToolCalls,
    /// `usage`.
    Usage,
    /// `error`.
    Error,
}

/// Looks at the events of one stream, one after the other.
#[derive(Debug, Default)]
pub struct Glance {
    /// The beginning of the event before, as far as it holds none of the members.
    known: Vec<u8>,
}

impl Glance {
    /// Tells `found` each of the members that `event` holds, at whatever depth, with the rest of the event from its value on.
    /// In a string of JSON quotes are escaped, so what ends with a bare quote before a colon is a name.
    pub fn at<'e>(&mut self, event: &'e [u8], mut found: impl FnMut(Member, &'e [u8])) {
        let start = if event.starts_with(&self.known) { self.known.len() } else { 0 };
        let mut is_kept = start > 0;
        for colon in memchr::memchr_iter(b':', event.get(start..).unwrap_or_default()) {
            let (before, value) = event.split_at_checked(start + colon).unwrap_or_default();
            let before = before.trim_ascii_end();
            let Some((member, name)) = member(before) else { continue };
            if !is_kept {
                let length = before.len() - name;
                self.known.clear();
                self.known.extend_from_slice(event.get(..length.min(MOST_KEPT)).unwrap_or_default());
                is_kept = true;
            }
            found(member, value.get(1..).unwrap_or_default().trim_ascii_start());
        }
    }
}

/// The member whose name stands at the end, and how long it is with its quotes.
fn member(text: &[u8]) -> Option<(Member, usize)> {
    let (member, name): (Member, &[u8]) = match text {
        [.., b'a', b'"'] => (Member::Delta, b"\"delta\""),
        [.., b'n', b'"'] => (Member::FinishReason, b"\"finish_reason\""),
        [.., b'e', b'"'] => (Member::Usage, b"\"usage\""),
        [.., b'n', b'g', b'"'] => (Member::Reasoning, b"\"reasoning\""),
        [.., b'l', b'l', b's', b'"'] => (Member::ToolCalls, b"\"tool_calls\""),
        [.., b'o', b'r', b'"'] => (Member::Error, b"\"error\""),
        _ => return None,
    };
    text.ends_with(name).then_some((member, name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<'e>(glance: &mut Glance, event: &'e str) -> Vec<(Member, &'e str)> {
        let mut list = Vec::new();
        glance.at(event.as_bytes(), |member, value| list.push((member, std::str::from_utf8(value).unwrap())));
        list
    }

    const EVENTS: [(&str, &[(Member, &str)]); 10] = [
        (
            r#"{"id":"a","choices":[{"delta":{"content":"x: \"usage\":1"},"finish_reason" : null}]}"#,
            &[
                (Member::Delta, r#"{"content":"x: \"usage\":1"},"finish_reason" : null}]}"#),
                (Member::FinishReason, "null}]}"),
            ],
        ),
        (r#"{"id":"a","choices":[{"delta":{}}]}"#, &[(Member::Delta, "{}}]}")]),
        (r#"{"id":"a","choices":[],"usage":{"n":1}}"#, &[(Member::Usage, r#"{"n":1}}"#)]),
        (
            r#"{"usage":null,"id":"a","choices":[{"delta":{}}]}"#,
            &[(Member::Usage, r#"null,"id":"a","choices":[{"delta":{}}]}"#), (Member::Delta, "{}}]}")],
        ),
        (
            r#"{"id":"a","choices":[{"delta":{"reasoning":"a","tool_calls":[]}}]}"#,
            &[
                (Member::Delta, r#"{"reasoning":"a","tool_calls":[]}}]}"#),
                (Member::Reasoning, r#""a","tool_calls":[]}}]}"#),
                (Member::ToolCalls, "[]}}]}"),
            ],
        ),
        (r#"{"id":"b","choices":[{"text":"delta","deltas":1,"usag\u0065":2}]}"#, &[]),
        (
            r#"{"id":"a","error":{"code":1},"choices":[{"delta":{}}]}"#,
            &[(Member::Error, r#"{"code":1},"choices":[{"delta":{}}]}"#), (Member::Delta, "{}}]}")],
        ),
        (r#""delta":"#, &[(Member::Delta, "")]),
        (r#""delta""#, &[]),
        ("", &[]),
    ];

    #[test]
    fn members_are_found_whatever_came_before() {
        for (first, _) in EVENTS {
            for (second, expected) in EVENTS {
                let mut glance = Glance::default();
                all(&mut glance, first);
                assert_eq!(all(&mut glance, second), expected, "{first} {second}");
                assert_eq!(all(&mut glance, second), expected, "{first} {second} again");
            }
        }
    }

    #[test]
    fn a_long_beginning_is_kept_in_part() {
        let mut glance = Glance::default();
        let event = format!(r#"{{"x":"{}","delta":1}}"#, "y".repeat(5_000));
        for _ in 0..2 {
            assert_eq!(all(&mut glance, &event), [(Member::Delta, "1}")]);
            assert_eq!(glance.known.len(), MOST_KEPT);
        }
    }
}

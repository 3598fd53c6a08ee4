//! A JSON object by its top-level members, each value kept as the text it arrived in.
//!
//! This is how same-format traffic stays untouched: one pass finds the members, the few that are ours are replaced, and
//! the rest is copied, so unknown fields survive and numbers keep every digit.

use std::{borrow::Cow, fmt};

use hashbrown::HashMap;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::scan::{self, Contents, MOST_MEMBERS, Member, Words};

/// No tree is made of a text with more values than this: each takes many times the bytes that it is written with.
pub const MOST_VALUES: usize = 250_000;

/// What is said of a value that was put in, or not scanned.
const UNSEEN: Contents = Contents { values: 0, words: Words::ALL };

/// Why bytes are not a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnObject(pub String);

impl fmt::Display for NotAnObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The members of one JSON object in the order they came, values as raw JSON text.
///
/// When a name comes twice the last one counts, as in every common parser, and only that one is written back: a check
/// on a member and the provider's reading of it can never differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    /// Finds the members of the object that `bytes` hold. Nesting costs no stack.
    pub fn parse(bytes: &'a [u8]) -> Result<Object<'a>, NotAnObject> {
        match simdutf8::basic::from_utf8(bytes).ok().and_then(scan::members) {
            Some(members) => Ok(Object { members: last_of_each(members) }),
            None => serde_json::from_slice(bytes).map_err(|e| NotAnObject(complaint(&e))),
        }
    }

    /// The raw JSON text of a member.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(key, ..)| key == name).map(|(_, value, _)| value.as_ref())
    }

    /// How many values are in a member; 0 when it is absent, one by itself, or was set.
    pub fn values(&self, name: &str) -> usize {
        self.members.iter().find(|(key, ..)| key == name).map_or(0, |(.., contents)| contents.values)
    }

    /// Which words are inside a member: more than there are where nobody has looked.
    pub fn words(&self, name: &str) -> Words {
        self.members
            .iter()
            .find(|(key, ..)| key == name)
            .map_or(Words::default(), |(.., contents)| contents.words)
    }

    /// How many values are in all members.
    pub fn all_values(&self) -> usize {
        self.members.iter().fold(0, |sum, (.., contents)| sum.saturating_add(contents.values))
    }

    /// A member read as `T`; `None` when it is absent, not a `T`, or of more than [`MOST_VALUES`].
    pub fn read<'s, T: Deserialize<'s>>(&'s self, name: &str) -> Option<T> {
        if self.values(name) > MOST_VALUES {
            return None;
        }
        serde_json::from_str(self.raw(name)?).ok()
    }

    /// Whether a member is there with a value other than `null`.
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|raw| raw != "null")
    }

    /// Sets a member to raw JSON text, in its place when it is there, else at the end.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, raw: impl Into<Cow<'a, str>>) {
        let (name, raw) = (name.into(), raw.into());
        match self.members.iter_mut().find(|(key, ..)| *key == name) {
            Some(member) => (member.1, member.2) = (raw, UNSEEN),
            None => self.members.push((name, raw, UNSEEN)),
        }
    }

    /// Takes a member out and returns its raw text.
    pub fn remove(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.members.iter().position(|(key, ..)| key == name)?;
        Some(self.members.remove(at).1)
    }

    /// Calls a member that is there by another name, in its place; what had that name before goes.
    pub fn rename(&mut self, from: &str, to: impl Into<Cow<'a, str>>) {
        let to = to.into();
        self.members.retain(|(key, ..)| *key != to);
        if let Some(member) = self.members.iter_mut().find(|(key, ..)| key == from) {
            member.0 = to;
        }
    }

    /// Keeps the members for which `keep(name, raw)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.members.retain(|(key, value, _)| keep(key, value));
    }

    /// Names and raw values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(key, value, _)| (key.as_ref(), value.as_ref()))
    }

    /// The object as JSON bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let size = self.members.iter().map(|(key, value, _)| key.len() + value.len() + 4).sum::<usize>();
        let mut out = Vec::with_capacity(size + 2);
        out.push(b'{');
        for (at, (key, value, _)) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_string(&mut out, key);
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        }
        out.push(b'}');
        out
    }
}

/// Why a text is no JSON, or not the JSON that was expected, in words for its writer. Nothing of the text is quoted.
pub fn complaint(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let said = text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said);
    let words = match said {
        _ if error.is_eof() => "it ends before it is complete",
        "expected ident" | "expected value" => {
            "expected a value: {…}, […], a text in double quotes, a number, true, false or null"
        }
        "key must be a string" => "expected a name in double quotes",
        "expected `:`" => "expected `:` after a name",
        "expected `,` or `}`" => "expected `,` or `}` after a member",
        "expected `,` or `]`" => "expected `,` or `]` after an item",
        "trailing comma" => "a comma with nothing after it",
        "trailing characters" => "expected nothing after the value",
        "invalid escape" => "an escape that JSON does not have",
        "invalid number" | "number out of range" => "a number that is none in JSON",
        "recursion limit exceeded" => "too many values inside each other",
        _ if said.starts_with("control character") => {
            "a line break or another control character inside a text: write it as an escape such as \\n"
        }
        _ if said.starts_with("invalid unicode") || said.contains("surrogate") => {
            "a text that is not valid Unicode"
        }
        // What was found there instead is the client's.
        _ if said.starts_with("invalid ") => said
            .rsplit_once(", expected ")
            .map_or("a value of another kind was expected", |(_, expected)| expected),
        _ => said,
    };
    let expected = if said.starts_with("invalid ") && said.ends_with(words) { "expected " } else { "" };
    match (error.line(), error.column()) {
        (0, _) => format!("{expected}{words}"),
        (line, column) => format!("line {line}, column {column}: {expected}{words}"),
    }
}

/// Writes one JSON object member by member, for the few objects that are written for every request.
pub struct Writer<'o>(&'o mut Vec<u8>);

impl<'o> Writer<'o> {
    /// Begins an object at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>) -> Writer<'o> {
        out.push(b'{');
        Writer(out)
    }

    /// Goes on with members that follow others: what is written begins with a comma.
    pub fn follow(out: &'o mut Vec<u8>) -> Writer<'o> {
        Writer(out)
    }

    /// Ends it.
    pub fn end(self) {
        self.0.push(b'}');
    }

    /// A string.
    pub fn text(&mut self, name: &'static str, value: &str) {
        write_string(self.name(name), value);
    }

    /// A string, if there is one.
    pub fn text_if(&mut self, name: &'static str, value: Option<&str>) {
        value.into_iter().for_each(|value| self.text(name, value));
    }

    /// Strings, if there are any.
    pub fn texts_if(&mut self, name: &'static str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let out = self.name(name);
        for (at, value) in values.iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            write_string(out, value);
        }
        out.push(b']');
    }

    /// A number.
    pub fn number(&mut self, name: &'static str, value: impl itoa::Integer) {
        self.name(name).extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Anything else.
    pub fn value(&mut self, name: &'static str, value: &impl serde::Serialize) {
        // Writing to a Vec cannot fail, and nothing that is written here is no JSON.
        _ = serde_json::to_writer(self.name(name), value);
    }

    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        let Writer(out) = self;
        // No value ends like that, so it is the beginning of the object.
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out
    }
}

/// Appends `text` as a JSON string, the same bytes as `serde_json` writes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    out.push(b'"');
    while let Some((plain, special)) = rest.split_at_checked(scan::plain(rest)) {
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { break };
        write_escape(out, byte);
        rest = after;
    }
    out.push(b'"');
}

/// Appends the escape of a byte that cannot stand in a string.
fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        b'"' | b'\\' => byte,
        _ => {
            let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// `text` as a JSON string.
pub fn string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
            type Value = Object<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'a>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    if members.len() == MOST_MEMBERS {
                        let why = format_args!("an object of more than {MOST_MEMBERS} members");
                        return Err(serde::de::Error::custom(why));
                    }
                    let contents = Contents { values: scan::values(value.get()), ..UNSEEN };
                    members.push((key, Cow::Borrowed(value.get()), contents));
                }
                Ok(Object { members: last_of_each(members) })
            }
        }

        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

/// The members with each name once, in its first place and with its last value. Linear time: a hostile body may have a
/// million members.
fn last_of_each(members: Vec<Member<'_>>) -> Vec<Member<'_>> {
    const FEW: usize = 24;
    let repeats = |at: usize, name: &str| members.iter().take(at).any(|(earlier, ..)| earlier == name);
    if members.len() <= FEW && !members.iter().enumerate().any(|(at, (name, ..))| repeats(at, name)) {
        return members;
    }
    let mut places: HashMap<Cow<'_, str>, usize> = HashMap::with_capacity(members.len());
    let mut kept: Vec<Member<'_>> = Vec::with_capacity(members.len());
    for (name, value, values) in members {
        match places.get(&name).and_then(|&at| kept.get_mut(at)) {
            Some(earlier) => (earlier.1, earlier.2) = (value, values),
            None => {
                places.insert(name.clone(), kept.len());
                kept.push((name, value, values));
            }
        }
    }
    kept
}

/// A member's name, borrowed unless it has escapes. (`Cow<str>` itself always deserialises as owned.)
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_keeps_every_byte() {
        let body = br#"{"model":"a","x":1.10,"big":12345678901234567890123,"e":1e400,"n\u006fte":{ "deep" : [1, 2] }}"#;
        let mut object = Object::parse(body).unwrap();
        assert_eq!(object.read::<&str>("model"), Some("a"));
        assert_eq!(object.raw("note"), Some(r#"{ "deep" : [1, 2] }"#));
        object.set("model", r#""b""#);
        assert_eq!(
            String::from_utf8(object.to_bytes()).unwrap(),
            r#"{"model":"b","x":1.10,"big":12345678901234567890123,"e":1e400,"note":{ "deep" : [1, 2] }}"#
        );
    }

    #[test]
    fn the_last_of_two_equal_names_counts_alone() {
        let object = Object::parse(br#"{"model":"cheap","a":1,"model":"dear"}"#).unwrap();
        assert_eq!(object.to_bytes(), br#"{"model":"dear","a":1}"#);
    }

    #[test]
    fn many_members_cost_linear_time() {
        let body: String = (0..100_000).map(|at| format!(r#","m{}":{at}"#, at % 60_000)).collect();
        let object = Object::parse(format!("{{{}}}", &body[1..]).as_bytes())
            .map(|o| (o.iter().count(), o.raw("m5").map(str::to_owned)));
        assert_eq!(object, Ok((60_000, Some("60005".to_owned()))));
    }

    #[test]
    fn removing_and_keeping() {
        let mut object = Object::parse(br#"{"a":1,"b":null,"c":3}"#).unwrap();
        assert!(object.has("a") && !object.has("b") && !object.has("z"));
        assert_eq!(object.remove("a").as_deref(), Some("1"));
        object.retain(|_, raw| raw != "null");
        assert_eq!(object.to_bytes(), br#"{"c":3}"#);
    }

    #[test]
    fn a_member_is_renamed_in_its_place() {
        let mut object = Object::parse(br#"{"a":1,"b":2,"c":null}"#).unwrap();
        object.rename("a", "c");
        assert_eq!(object.to_bytes(), br#"{"c":1,"b":2}"#);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        let deep = [b"{\"a\":".as_slice(), &vec![b'['; 200_000]].concat();
        for body in [&b""[..], b"[]", b"\"x\"", b"{", b"{\"a\":}", b"{\"a\":1} x", b"{\"a\":\"\xff\"}", &deep]
        {
            assert!(Object::parse(body).is_err());
        }
    }

    #[test]
    fn what_is_no_json_is_told_in_plain_words() {
        let rows = [
            ("not json", "line 1, column 2: expected a value: {…}"),
            ("{\"a\": 1,\n  b}", "line 2, column 3: expected a name in double quotes"),
            ("{\"a\" 1}", "line 1, column 6: expected `:` after a name"),
            ("{\"a\": 1 \"b\"}", "expected `,` or `}` after a member"),
            ("{\"a\": 1,}", "a comma with nothing after it"),
            ("{\"a\": [1", "it ends before it is complete"),
            ("{} {}", "line 1, column 4: expected nothing after the value"),
            ("{\"a\": \"x\ny\"}", "a line break or another control character"),
            ("{\"a\": \"\\x\"}", "an escape that JSON does not have"),
            ("{\"a\": 01}", "a number that is none in JSON"),
            ("[1]", "line 1, column 0: expected a JSON object"),
            ("\"a secret prompt\"", "expected a JSON object"),
        ];
        for (text, words) in rows {
            let told = Object::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(words), "{text}: {told}");
            assert!(!told.contains("secret") && !told.contains(" at line "), "{told}");
        }
    }
}

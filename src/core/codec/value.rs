//! `serde_json`'s values: made without copies, read and written with long texts taken as a whole instead of letter by letter.

use serde_json::{Map, Value};

use super::json::write_string;

/// A JSON object out of values that are moved into it. `serde_json::json!` copies what it is given, lists and texts too.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::core::codec::value::object_of([$(($name, ::serde_json::Value::from($value))),*])
    };
}
pub(in crate::core) use object;

/// What `object!` makes of its members.
pub fn object_of<const COUNT: usize>(members: [(&'static str, Value); COUNT]) -> Value {
    let mut map = Map::with_capacity(COUNT);
    for (name, value) in members {
        map.insert(name.to_owned(), value);
    }
    Value::Object(map)
}

/// Reads a value.
pub fn read(bytes: &[u8]) -> serde_json::Result<Value> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        // It says where.
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// A value as JSON, the same bytes as `serde_json` writes.
pub fn to_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(&mut out, value);
    out
}

/// Appends a value. What was read is never nested so deep that this could use up the stack.
fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => match number.as_u64() {
            Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            // Writing to a Vec cannot fail.
            None => _ = serde_json::to_writer(out, number),
        },
        Value::String(text) => write_string(out, text),
        Value::Array(values) => {
            out.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(out, value);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(out, name);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_what_serde_json_writes() {
        let ascii: String = (0..128u8).map(char::from).collect();
        let value = json!({
            "": null, "\"\\\n": [true, false, {}, []], "n": [0, -1, u64::MAX, i64::MIN, 1.5, -0.0, 1e300, 1e-7],
            "every letter": ascii, "é": "plain 漢字 of more than sixteen bytes\u{2028}\u{7f}", "nested": {"a": [[{"b": "c"}]]},
        });
        assert_eq!(String::from_utf8(to_bytes(&value)).unwrap(), value.to_string());
        assert_eq!(read(&to_bytes(&value)).unwrap(), value);
    }

    #[test]
    fn what_is_no_json_is_told_as_by_serde_json() {
        for bytes in [&b""[..], b"{", b"[1,]", b"\"\xff\"", b"{\"a\":\"\xc3\x28\"}"] {
            let (ours, theirs) = (read(bytes), serde_json::from_slice::<Value>(bytes));
            assert_eq!(ours.unwrap_err().to_string(), theirs.unwrap_err().to_string());
        }
    }

    #[test]
    fn objects() {
        let (list, text) = (vec![Value::Null], "b".to_owned());
        let made = object! {"a": list, "b": text, "c": 1, "d": [object! {}], "e": None::<Value>};
        assert_eq!(made, json!({"a": [null], "b": "b", "c": 1, "d": [{}], "e": null}));
    }
}

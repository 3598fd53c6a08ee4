//! What a call carries in its body, and how the gateway reads what it must know of it.

use crate::core::{
    codec::{
        json::{Object, string},
        multipart,
    },
    error::Error,
};

/// The kind of a call's body: where the call's model and parameters stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// A JSON object, which has them as members.
    Json,
    /// A multipart form, which has them as fields beside its files.
    Form,
    /// Bytes that nobody looks into, or nothing: only the path can name a model.
    Opaque,
}

impl Carries {
    /// Whether [`members`](Self::members) has to know the `content-type`.
    pub fn needs_content_type(self) -> bool {
        self == Carries::Form
    }

    /// What a body says by name, `model` among it: of a form its texts, as strings. Files are left where they are.
    pub fn members<'b>(self, content_type: Option<&str>, body: &'b [u8]) -> Result<Object<'b>, Error> {
        match self {
            Carries::Json => json(body),
            Carries::Form => form(content_type.unwrap_or_default(), body),
            Carries::Opaque => Ok(Object::default()),
        }
    }
}

/// A JSON object, or why it is none.
fn json(body: &[u8]) -> Result<Object<'_>, Error> {
    Object::parse(body).map_err(|e| {
        Error::bad_request(match body.trim_ascii() {
            b"" => "the request has no body; a JSON object was expected.".to_owned(),
            _ if e.0.ends_with("a JSON object") => format!("the request body is not a JSON object: {e}."),
            _ => format!("the request body is not valid JSON: {e}."),
        })
    })
}

/// The texts of a form. A name with `[]` is that of a list, which nothing of ours is; any other may have one text only, for
/// of two each reader would take another.
fn form<'b>(content_type: &str, body: &'b [u8]) -> Result<Object<'b>, Error> {
    let no_form =
        |fault: multipart::Fault| Error::bad_request(format!("the request body is not a form: {fault}."));
    let Some(boundary) = multipart::boundary(content_type).map_err(no_form)? else {
        return Err(Error::bad_request(
            "the request body must be a form: expected the header `content-type: multipart/form-data; boundary=…`.",
        ));
    };
    let parts = multipart::parts(&boundary, body).map_err(no_form)?;
    let mut names: Vec<(&str, bool)> = parts.iter().map(|part| (part.name, part.is_file)).collect();
    // Texts before files of the same name.
    names.sort_unstable();
    for (one, other) in names.iter().zip(names.iter().skip(1)) {
        if one.0 == other.0 && !one.1 && !one.0.ends_with("[]") {
            let message = format!("the form has more than one field `{}`: expected one.", one.0);
            return Err(Error::bad_request(message).with_param(one.0.to_owned()));
        }
    }
    let mut members = Object::default();
    for part in parts.iter().filter(|part| !part.is_file && !part.name.ends_with("[]")) {
        members.set(part.name, string(part.text().map_err(no_form)?));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, whether it is a file, content.
    type Field = (&'static str, bool, &'static str);

    /// The members of a form of these fields.
    fn read(fields: &[Field]) -> Result<String, Error> {
        let mut body = String::new();
        for (name, is_file, content) in fields {
            let file = if *is_file { "; filename=\"f\"" } else { "" };
            body +=
                &format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n");
        }
        body += "--b--\r\n";
        let members = Carries::Form.members(Some("multipart/form-data; boundary=b"), body.as_bytes())?;
        Ok(String::from_utf8(members.to_bytes()).unwrap())
    }

    #[test]
    fn the_texts_of_a_form_are_members_and_its_files_are_not() {
        let rows: [(&[Field], &str); 4] = [
            (&[], "{}"),
            (
                &[("model", false, "whisper-1"), ("file", true, "ID3"), ("user", false, "a \"b\"")],
                r#"{"model":"whisper-1","user":"a \"b\""}"#,
            ),
            (&[("image", true, "1"), ("image", true, "2"), ("n", false, "2")], r#"{"n":"2"}"#),
            (&[("granularities[]", false, "word"), ("granularities[]", false, "segment")], "{}"),
        ];
        for (fields, members) in rows {
            assert_eq!(read(fields).as_deref(), Ok(members), "{fields:?}");
        }
    }

    #[test]
    fn a_name_that_two_texts_have_is_refused() {
        for fields in [
            [("model", false, "a"), ("model", false, "b")],
            [("model", false, "a"), ("model", true, "b")],
            [("model", true, "a"), ("model", false, "b")],
        ] {
            let error = read(&fields).unwrap_err();
            assert_eq!((error.status(), error.param.as_deref()), (400, Some("model")), "{fields:?}");
        }
    }

    #[test]
    fn what_is_no_form_is_told_why() {
        let rows = [
            (None, "must be a form"),
            (Some("application/json"), "must be a form"),
            (Some("multipart/form-data"), "names no boundary"),
            (Some("multipart/form-data; boundary=b"), "does not begin with the boundary"),
        ];
        for (content_type, words) in rows {
            let error = Carries::Form.members(content_type, b"{}").unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.message.contains(words), "{}", error.message);
        }
    }

    #[test]
    fn bytes_say_nothing_by_name() {
        assert_eq!(Carries::Opaque.members(None, b"{\"model\":1"), Ok(Object::default()));
    }
}

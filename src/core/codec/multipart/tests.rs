//! Forms of real clients, every oddity of a boundary, and any bytes.

use super::*;
use crate::core::fuzz;

/// Name, whether it is a file, content.
type Row = (&'static str, bool, &'static [u8]);

fn read(body: &[u8]) -> Result<Vec<(String, bool, Vec<u8>)>, String> {
    let parts = parts("b", body).map_err(|fault| fault.to_string())?;
    Ok(parts.iter().map(|part| (part.name.to_owned(), part.is_file, part.content.to_vec())).collect())
}

/// One field as clients write it.
fn field(name: &str, content: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
}

#[test]
fn forms_are_read_as_their_clients_meant_them() {
    let long = "x".repeat(300);
    let file = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n";
    let rows: [(String, &[Row]); 14] = [
        (field("model", "whisper-1") + "--b--\r\n", &[("model", false, b"whisper-1")]),
        (field("model", "") + "--b--", &[("model", false, b"")]),
        // A line break before the first boundary, padding behind boundaries, and what follows the last of them.
        ("\r\n".to_owned() + &field("a", "1") + "--b-- \t\r\nby the way", &[("a", false, b"1")]),
        (
            field("a", "1").replace("--b\r\n", "--b \t \r\n") + &field("b", "2") + "--b--\r\n",
            &[("a", false, b"1"), ("b", false, b"2")],
        ),
        // Contents with line breaks, dashes and what looks like a beginning of the boundary.
        (field("a", "\r\n") + "--b--", &[("a", false, b"\r\n")]),
        (field("a", "\r\n--") + "--b--", &[("a", false, b"\r\n--")]),
        (field("a", "--b--") + "--b--", &[("a", false, b"--b--")]),
        (field("a", "\n-b\r\n--a\r") + "--b--", &[("a", false, b"\n-b\r\n--a\r")]),
        // Files: by their name, which may be empty or in the other notation.
        (format!("{file}ID3\0\r\n--b--"), &[("file", true, b"ID3\0")]),
        (format!("{file}\r\n--b--").replace("a.mp3", ""), &[("file", true, b"")]),
        (format!("{file}1\r\n--b--").replace("filename=\"a.mp3\"", "filename*=UTF-8''a.mp3"), &[("file", true, b"1")]),
        // Quotes and semicolons inside a quoted name of a file end nothing.
        (format!("{file}1\r\n--b--").replace("a.mp3", "a\\\"; name=\\\"model\\\\"), &[("file", true, b"1")]),
        // Names without quotes, headers of any case, others beside them.
        (
            "--b\r\nX-Other: 1\r\ncontent-DISPOSITION:form-data;name=n\r\nContent-Transfer-Encoding: 8BIT\r\n\r\nü\r\n--b--"
                .to_owned(),
            &[("n", false, "ü".as_bytes())],
        ),
        ("--b--\r\n".to_owned(), &[]),
    ];
    for (body, expected) in rows {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, file, content)| ((*name).to_owned(), *file, content.to_vec()))
            .collect();
        assert_eq!(read(body.as_bytes()), Ok(expected), "{body:?}");
    }
    assert_eq!(read((field("a", &long) + "--b--").as_bytes()).unwrap()[0].2, long.as_bytes());
}

#[test]
fn what_readers_could_read_differently_is_refused() {
    let disposition = "Content-Disposition: form-data; name=\"a\"";
    let one = |headers: &str| format!("--b\r\n{headers}\r\n\r\n1\r\n--b--\r\n");
    let rows = [
        // Where the form begins.
        (String::new(), "does not begin"),
        ("before\r\n".to_owned() + &field("a", "1") + "--b--", "does not begin"),
        ("\n".to_owned() + &field("a", "1") + "--b--", "does not begin"),
        (field("a", "1").replace("--b", "--c") + "--c--", "does not begin"),
        // Where it ends.
        (field("a", "1"), "ends before its last boundary"),
        (field("a", "1") + "--b", "ends before its last boundary"),
        (field("a", "1") + "--b\r\n", "ends before its last boundary"),
        ("--b".to_owned(), "ends before its last boundary"),
        // A boundary that a line goes on behind, or that follows half a line break.
        (field("a", "1") + "--bc\r\n" + &field("c", "2") + "--b--", "where no part ends"),
        (field("a", "1") + "--b--c\r\n", "where no part ends"),
        (field("a", "1") + "--b-\r\n", "where no part ends"),
        (field("a", "1").replace("1\r\n", "1\n") + "--b--", "where no part ends"),
        (field("a", "1\n--b\r\nx") + "--b--", "where no part ends"),
        (field("a", "1") + "--b\n" + disposition + "\r\n\r\n2\r\n--b--", "where no part ends"),
        // Headers.
        ("--b\r\n\r\n1\r\n--b--".to_owned(), "has no name"),
        (one("Content-Type: text/plain"), "has no name"),
        (one("Content-Disposition: attachment; name=\"a\""), "has no name"),
        (one("Content-Disposition: form-data"), "has no name"),
        (one("Content-Disposition: form-data; name=\"\""), "has no name"),
        (one("Content-Disposition: form-data; name=\"a\"; name=\"b\""), "two names"),
        (one(&format!("{disposition}\r\n{disposition}")), "two headers"),
        (one(&format!("{disposition};\r\n filename=\"x\"")), "a header of a part is none"),
        (one(&format!("{disposition}\nX: 1")), "a header of a part is none"),
        (one(&format!("{disposition}\rX: 1")), "a header of a part is none"),
        (one(&format!("{disposition}\r\n--b: 1")), "a header of a part is none"),
        (one(&format!("{disposition}\r\nnothing")), "a header of a part is none"),
        (one(&format!("{disposition}\r\nX : 1")), "a header of a part is none"),
        (one("Content-Disposition: form-data; name=\"a"), "a parameter of a header is none"),
        (one("Content-Disposition: form-data; name=\"a\"b"), "a parameter of a header is none"),
        (one("Content-Disposition: form-data; name"), "a parameter of a header is none"),
        (one("Content-Disposition: form-data; name=\"a\\\"b\""), "the name of a part"),
        (one(&format!("{disposition}\r\nContent-Transfer-Encoding: base64")), "content-transfer-encoding"),
        (one(&format!("{disposition}\r\nX: {}", "x".repeat(MAX_HEADER_BYTES))), "more than 8 KiB"),
        (field("a", "1").repeat(MOST_PARTS + 1) + "--b--", "more than 1000 parts"),
    ];
    for (body, words) in rows {
        let told = read(body.as_bytes()).expect_err(&body);
        assert!(told.contains(words), "{told}: {:?}", body.get(..200.min(body.len())));
    }
    assert_eq!(read((field("a", "1").repeat(MOST_PARTS) + "--b--").as_bytes()).unwrap().len(), MOST_PARTS);
    let latin: Vec<u8> =
        [b"--b\r\nContent-Disposition: form-data; name=\"\xe4\"\r\n\r\n1\r\n--b--".as_slice()].concat();
    assert!(read(&latin).is_err());
}

#[test]
fn texts_are_utf8() {
    let body =
        [b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\xff\r\n--b--".as_slice()].concat();
    let parts = parts("b", &body).unwrap();
    assert_eq!(parts[0].text().unwrap_err().to_string(), "the field `a` is not UTF-8");
}

#[test]
fn boundaries_are_read_out_of_content_types() {
    let longest = "x".repeat(MAX_BOUNDARY_BYTES);
    let named = [
        ("multipart/form-data; boundary=b".to_owned(), "b"),
        ("Multipart/Form-Data ;charset=utf-8; Boundary=\"b 1:2\"".to_owned(), "b 1:2"),
        (
            "multipart/form-data;boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW;".to_owned(),
            "----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        (format!("multipart/form-data; boundary={longest}"), &longest),
    ];
    for (content_type, expected) in named {
        assert_eq!(boundary(&content_type).unwrap().as_deref(), Some(expected), "{content_type}");
    }
    for content_type in
        ["", "application/json", "multipart/mixed; boundary=b", "multipart/form-data-x; boundary=b"]
    {
        assert_eq!(boundary(content_type), Ok(None), "{content_type}");
    }
    let refused = [
        ("multipart/form-data".to_owned(), "names no boundary"),
        ("multipart/form-data; boundary".to_owned(), "a parameter"),
        ("multipart/form-data; boundary=".to_owned(), "is none"),
        ("multipart/form-data; boundary=\"b \"".to_owned(), "is none"),
        ("multipart/form-data; boundary=\"b\\\"\"".to_owned(), "is none"),
        ("multipart/form-data; boundary=b; boundary=c".to_owned(), "two boundaries"),
        ("multipart/form-data; boundary=b c".to_owned(), "a parameter"),
        (format!("multipart/form-data; boundary=x{longest}"), "is none"),
    ];
    for (content_type, words) in refused {
        let told = boundary(&content_type).expect_err(&content_type).to_string();
        assert!(told.contains(words), "{content_type}: {told}");
    }
}

/// A form that ends early is refused wherever that is, never read as a smaller one.
#[test]
fn no_beginning_of_a_form_is_a_form() {
    let whole = field("model", "whisper-1") + &field("file", "\r\n-\r\n--\r\n") + "--b--";
    for at in 0..whole.len() {
        assert!(read(&whole.as_bytes()[..at]).is_err(), "{:?}", &whole[..at]);
    }
    assert_eq!(read(whole.as_bytes()).unwrap().len(), 2);
}

/// What was written is read, whatever the contents are; and a form with any of its bytes changed does no harm.
#[test]
fn random_forms_are_read_as_they_were_written() {
    let mut random = fuzz::chance(11);
    let bits: [&[u8]; 9] = [b"\r", b"\n", b"-", b"--", b"b", b"\r\n", b"\r\n--", b"--a", b"\xff"];
    for _ in 0..fuzz::cases(2_000) {
        let mut body = Vec::new();
        let mut written = Vec::new();
        for at in 0..fuzz::below(&mut random, 4) {
            let content = loop {
                let count = fuzz::below(&mut random, 8);
                let content: Vec<u8> =
                    (0..count).flat_map(|_| bits[fuzz::below(&mut random, bits.len())]).copied().collect();
                // A sender chooses a boundary that no part holds.
                if memmem::find(&[b"\r\n", &content[..]].concat(), b"\n--b").is_none() {
                    break content;
                }
            };
            body.extend_from_slice(
                format!("--b\r\nContent-Disposition: form-data; name=\"n{at}\"\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n");
            written.push((format!("n{at}"), false, content));
        }
        body.extend_from_slice(b"--b--\r\n");
        assert_eq!(read(&body), Ok(written), "{body:?}");
        let at = fuzz::below(&mut random, body.len());
        body[at] = u8::try_from(fuzz::below(&mut random, 256)).unwrap();
        harmless(&body);
    }
}

#[test]
fn any_bytes_are_answered() {
    let mut random = fuzz::chance(12);
    let bits: [&[u8]; 12] = [
        b"--b",
        b"\r\n",
        b"--",
        b"\r",
        b"\n",
        b" ",
        b"Content-Disposition: form-data; name=",
        b"\"a\"",
        b"; filename=",
        b"\\",
        b":",
        b"x",
    ];
    for _ in 0..fuzz::cases(5_000) {
        let count = fuzz::below(&mut random, 40);
        let body: Vec<u8> = (0..count)
            .flat_map(|_| match fuzz::below(&mut random, 20) {
                0 => vec![u8::try_from(fuzz::below(&mut random, 256)).unwrap()],
                _ => bits[fuzz::below(&mut random, bits.len())].to_vec(),
            })
            .collect();
        harmless(&[b"--b\r\n", &body[..]].concat());
        harmless(&body);
        let _ = boundary(&format!("multipart/form-data; {}", String::from_utf8_lossy(&body)));
    }
}

/// Parts lie in the body, in order, with a boundary between each two.
fn harmless(body: &[u8]) {
    let Ok(parts) = parts("b", body) else { return };
    let mut least = body.as_ptr() as usize;
    for part in parts {
        let at = part.content.as_ptr() as usize;
        assert!(at >= least && at + part.content.len() <= body.as_ptr() as usize + body.len(), "{body:?}");
        assert!(memmem::find(part.content, b"\n--b").is_none(), "{body:?}");
        least = at + part.content.len() + 5;
    }
}

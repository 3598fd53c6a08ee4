//! Server-sent events at every split.

use super::*;

/// An event that outlives the decoder.
type Owned = (Vec<u8>, Option<Vec<u8>>, Vec<u8>);

fn owned(event: Event<'_>) -> Owned {
    (event.raw.to_vec(), event.name.map(<[u8]>::to_vec), event.data.into_owned())
}

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Owned> {
    let mut decoder = Decoder::new(1 << 20);
    let mut frames = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(frame) = decoder.next() {
            frames.push(owned(frame.unwrap()));
        }
    }
    while let Some(frame) = decoder.finish() {
        frames.push(owned(frame.unwrap()));
    }
    frames
}

/// What must hold of any bytes: the same events however they are cut, and nothing lost or added.
fn fuzz(bytes: &[u8]) {
    let whole = decode([bytes]);
    assert_eq!(whole.iter().flat_map(|f| f.0.clone()).collect::<Vec<_>>(), bytes);
    assert_eq!(decode(bytes.chunks(1)), whole, "byte by byte: {bytes:?}");
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(decode([a, b]), whole, "split at {at}: {bytes:?}");
    }
}

#[test]
fn events_and_their_data() {
    type Row = (&'static str, &'static [(Option<&'static str>, &'static str)]);
    let rows: &[Row] = &[
        ("data: a\n\n", &[(None, "a")]),
        ("data:a\n\ndata:  b\n\n", &[(None, "a"), (None, " b")]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", &[(None, "a"), (None, "b")]),
        ("data: a\r\rdata: b\r\r", &[(None, "a"), (None, "b")]),
        ("data: a\r\n\ndata: b\n\r\n", &[(None, "a"), (None, "b")]),
        ("event: message_start\ndata: {}\n\n", &[(Some("message_start"), "{}")]),
        ("event: x\nevent: y\ndata\n\n", &[(Some("y"), "")]),
        ("data: a\ndata:\ndata: b\n\n", &[(None, "a\n\nb")]),
        (": ping\n\ndata: a\nid: 7\nretry: 1\n\n", &[(None, ""), (None, "a")]),
        ("\u{feff}data: a\n\n\u{feff}data: b\n\n", &[(None, "a"), (None, "")]),
        ("\u{feff}\ndata: a\n\n", &[(None, ""), (None, "a")]),
        ("\n\ndata: a\n\n", &[(None, ""), (None, ""), (None, "a")]),
        ("data: {\"a\":\"b: c\"}\n\n", &[(None, "{\"a\":\"b: c\"}")]),
        ("data: a\n\ndata: cut", &[(None, "a"), (None, "cut")]),
        ("data: a\n", &[(None, "a")]),
        ("data: a\r", &[(None, "a")]),
        ("data: h\u{e9} \u{1f600}\n\n", &[(None, "h\u{e9} \u{1f600}")]),
        ("", &[]),
        ("\u{feff}", &[(None, "")]),
    ];
    for (text, expected) in rows {
        let got: Vec<_> = decode([text.as_bytes()])
            .into_iter()
            .map(|(_, event, data)| {
                (event.map(|e| String::from_utf8(e).unwrap()), String::from_utf8(data).unwrap())
            })
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(e, d)| (e.map(str::to_owned), (*d).to_owned())).collect();
        assert_eq!(got, expected, "{text:?}");
        fuzz(text.as_bytes());
    }
}

#[test]
fn recorded_streams_survive_every_split() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sse");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        fuzz(&bytes);
        assert!(decode([bytes.as_slice()]).len() > 3);
        seen += 1;
    }
    assert!(seen >= 4, "{seen} fixtures");
}

#[test]
fn pseudo_random_bytes() {
    const PARTS: [&[u8]; 12] = [
        b"\n",
        b"\r",
        b"\r\n",
        b"data",
        b":",
        b" ",
        b"event",
        b"x",
        b"\xef\xbb\xbf",
        b"\xff",
        b"data: {}\n\n",
        b"",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..3_000 {
        let mut bytes = Vec::new();
        for _ in 0..12 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend_from_slice(PARTS[(seed % 12) as usize]);
        }
        fuzz(&bytes);
    }
}

#[test]
fn the_cap_is_on_one_event_and_the_same_for_every_split() {
    let fits = b"data: 345678\n\n";
    let text = [&fits[..], fits, b"data: 3456789\n\n", fits].concat();
    for size in 1..=text.len() {
        let mut decoder = Decoder::new(fits.len());
        let (mut frames, mut failed) = (0, false);
        for chunk in text.chunks(size) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next() {
                match frame {
                    Ok(_) => frames += 1,
                    Err(error) => {
                        assert_eq!(error, TooLong { cap: fits.len() });
                        failed = true;
                        break;
                    }
                }
            }
        }
        assert_eq!((frames, failed), (2, true), "chunks of {size}");
        assert!(decoder.remainder().starts_with(b"data: 345678"));
        assert!(matches!(decoder.finish(), Some(Err(_))));
    }
}

#[test]
fn many_small_chunks_take_linear_time_and_little_memory() {
    let mut decoder = Decoder::new(8 << 20);
    for _ in 0..(4 << 20) / 16 {
        decoder.push(b"0123456789abcdef");
        assert!(decoder.next().is_none());
    }
    decoder.push(b"\n\n");
    assert_eq!(decoder.next().unwrap().unwrap().raw.len(), (4 << 20) + 2);

    let mut decoder = Decoder::new(1 << 10);
    for _ in 0..100_000 {
        decoder.push(b"data: 0123456789\n\ndata: ");
        while decoder.next().is_some() {}
    }
    assert!(decoder.buf.capacity() < 1 << 10);
}

#[test]
fn what_is_written_is_read_back() {
    let rows: [(Option<&str>, &str, &str); 5] = [
        (None, "{}", "data: {}\n\n"),
        (Some("ping"), "{}", "event: ping\ndata: {}\n\n"),
        (None, "a\nb\r\nc\rd\n", "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (None, "", "data: \n\n"),
        (Some("a\ndata: x"), "y", "event: a\ndata: y\n\n"),
    ];
    for (event, data, text) in rows {
        let mut out = Vec::new();
        write(&mut out, event, data.as_bytes());
        assert_eq!(String::from_utf8(out.clone()).unwrap(), text);
        let frames = decode([out.as_slice()]);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].2, data.replace("\r\n", "\n").replace('\r', "\n").as_bytes());
    }
}

#[test]
fn the_done_marker() {
    for (text, done) in [("data: [DONE]\n\n", true), ("data:[DONE] \n\n", true), ("data: {}\n\n", false)] {
        let mut decoder = Decoder::new(64);
        decoder.push(text.as_bytes());
        assert_eq!(decoder.next().unwrap().unwrap().is_done(), done);
    }
}

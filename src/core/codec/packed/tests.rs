//! Codings against what packs them, cut everywhere.

use flate2::{Compression, FlushCompress, write::GzEncoder};

use super::{
    pack::{deflate, gzip, zlib},
    *,
};

const MOST: usize = 1 << 20;

fn text() -> Vec<u8> {
    (0..60).flat_map(|at| format!("data: {{\"n\":{}}}\n\n", at * 7_919).into_bytes()).collect()
}

fn unpacker(values: &[&str]) -> Result<Option<Unpacker>, Unreadable> {
    Unpacker::new(values.iter().map(|value| value.as_bytes()))
}

/// Packs a text.
type Pack = fn(&[u8]) -> Vec<u8>;

/// What a server says of how it has packed, and how it has.
const PACKED: [(&[&str], Pack); 12] = [
    (&["gzip"], gzip),
    (&["x-gzip"], gzip),
    (&["GZIP"], gzip),
    (&[" gzip "], gzip),
    (&["identity, gzip", ""], gzip),
    (&["deflate"], zlib),
    (&["Deflate"], deflate),
    (&["gzip"], |plain| {
        let (one, two) = plain.split_at(plain.len() / 3);
        [gzip(one), gzip(two)].concat()
    }),
    (&["gzip, gzip"], |plain| gzip(&gzip(plain))),
    (&["deflate, gzip"], |plain| gzip(&zlib(plain))),
    (&["gzip", "deflate"], |plain| deflate(&gzip(plain))),
    (&["deflate,gzip,identity,deflate"], |plain| zlib(&gzip(&deflate(plain)))),
];

#[test]
fn what_is_packed_is_the_same_however_it_is_cut() {
    let text = text();
    for (values, pack) in PACKED {
        let packed = pack(&text);
        for at in 0..=packed.len() {
            let mut unpacker = unpacker(values).unwrap().unwrap();
            let (one, two) = packed.split_at(at);
            let mut plain = unpacker.push(one, MOST).unwrap();
            plain.extend(unpacker.push(two, MOST).unwrap());
            assert!(plain == text, "{values:?} cut at {at}");
            assert_eq!(unpacker.finish(), Ok(()), "{values:?} cut at {at}");
        }
        let mut unpacker = unpacker(values).unwrap().unwrap();
        let plain: Vec<u8> = packed.chunks(1).flat_map(|piece| unpacker.push(piece, MOST).unwrap()).collect();
        assert!(plain == text, "{values:?} byte by byte");
    }
}

#[test]
fn what_was_flushed_comes_out_at_once() {
    let raw_stream = |framed: bool| {
        let mut packer = flate2::Compress::new(Compression::default(), framed);
        move |event: &[u8]| {
            let mut out = Vec::with_capacity(1_024);
            packer.compress_vec(event, &mut out, FlushCompress::Sync).unwrap();
            out
        }
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let gzip = move |event: &[u8]| {
        gzip.write_all(event).and_then(|()| gzip.flush()).unwrap();
        std::mem::take(gzip.get_mut())
    };
    type PackNext = Box<dyn FnMut(&[u8]) -> Vec<u8>>;
    let packers: [(&str, PackNext); 3] = [
        ("gzip", Box::new(gzip)),
        ("deflate", Box::new(raw_stream(true))),
        ("deflate", Box::new(raw_stream(false))),
    ];
    for (name, mut pack) in packers {
        let mut unpacker = unpacker(&[name]).unwrap().unwrap();
        for at in 0..5 {
            let event = format!("data: {{\"at\":{at}}}\n\n");
            let packed = pack(event.as_bytes());
            assert_eq!(unpacker.push(&packed, MOST).unwrap(), event.as_bytes(), "{name} {at}");
        }
        assert_eq!(unpacker.finish(), Err(Unreadable::Broken(name)), "it has not ended");
    }
}

#[test]
fn what_was_cut_or_changed_is_told() {
    let text = text();
    for (values, pack) in PACKED {
        let packed = pack(&text);
        let read = |packed: &[u8]| {
            let mut unpacker = unpacker(values).unwrap().unwrap();
            let plain = unpacker.push(packed, MOST)?;
            unpacker.finish().map(|()| plain)
        };
        for at in [0, 1, 2, 9, packed.len() / 2, packed.len() - 1] {
            let error = read(&packed[..at]);
            assert!(matches!(error, Err(Unreadable::Broken(_))), "{values:?} cut at {at}: {error:?}");
        }
        for other in [&b"{\"choices\":[]}"[..], b"\xff\xff\xff\xff\xff", &text] {
            assert!(matches!(read(other), Err(Unreadable::Broken(_))), "{values:?}");
        }
    }
}

#[test]
fn what_is_not_understood_is_told_by_its_name() {
    for (values, name) in [
        (&["br"][..], "br"),
        (&["zstd"], "zstd"),
        (&["gzip, br"], "br"),
        (&["compress"], "compress"),
        (&["gzip", "zstd"], "zstd"),
        (&["a\u{1}b"], "a\u{fffd}b"),
        (&["gzip;q=1"], "gzip;q=1"),
    ] {
        assert_eq!(unpacker(values).unwrap_err(), Unreadable::Unknown(name.to_owned()), "{values:?}");
    }
    let long = "x".repeat(10_000);
    assert_eq!(unpacker(&[&long]).unwrap_err(), Unreadable::Unknown("x".repeat(40)));
    let many = ["gzip"; 5].join(",");
    assert_eq!(unpacker(&[&many]).unwrap_err(), Unreadable::TooMany);
    assert_eq!(
        unpacker(&["br"]).unwrap_err().to_string(),
        "has the content-encoding `br`: expected `gzip`, `deflate` or none"
    );
    for values in [&[][..], &[""], &["identity"], &[" Identity , ", "identity"]] {
        assert!(unpacker(values).unwrap().is_none(), "{values:?}");
    }
}

#[test]
fn a_bomb_stops_where_it_is_too_large() {
    let plain = vec![b' '; 30 << 20];
    let packs: [(&str, Pack); 4] =
        [("gzip", gzip), ("deflate", zlib), ("deflate", deflate), ("gzip,gzip", |plain| gzip(&gzip(plain)))];
    for (name, pack) in packs {
        let packed = pack(&plain);
        let mut unpacker = unpacker(&[name]).unwrap().unwrap();
        assert_eq!(unpacker.push(&packed, MOST), Err(Unreadable::TooLarge(MOST)), "{name}");
    }
}

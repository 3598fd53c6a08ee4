//! What the sources of the crate may not say, so that every host can run the gateway.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// All Rust files below a folder of `src`.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|kind| kind == "rs") => {
                    found.push((path.clone(), fs::read_to_string(path).unwrap()));
                }
                false => {}
            }
        }
    }
    found
}

/// Places where a text stands.
fn places(sources: &[(PathBuf, String)], says: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = sources.iter().flat_map(|(path, text)| {
        text.lines().enumerate().map(move |(at, line)| (path.display(), at + 1, line.trim()))
    });
    lines.filter(|(_, _, line)| says(line)).map(|(path, at, line)| format!("{path}:{at}: {line}")).collect()
}

/// A variable of the whole process or thread is declared here.
fn is_static(line: &str) -> bool {
    let item = line
        .strip_prefix("pub")
        .map_or(line, |rest| rest.trim_start_matches("(super)").trim_start_matches("(crate)"));
    let is_item = ["static ", "unsafe static "].iter().any(|word| item.trim_start().starts_with(word));
    is_item || line.contains(concat!("thread_", "local!"))
}

#[test]
fn only_the_door_names_the_sdk() {
    let name = concat!("proxy", "_wasm");
    let (own, others): (Vec<_>, Vec<_>) = sources("")
        .into_iter()
        .partition(|(path, _)| path.components().any(|part| part.as_os_str() == "wasm"));
    assert!(!places(&own, |line| line.contains(name)).is_empty() && others.len() > 100);
    assert_eq!(places(&others, |line| line.contains(name)), [""; 0], "only src/wasm may name it");
}

#[test]
fn the_roles_keep_nothing_outside_their_worker() {
    for (line, expected) in [
        ("static TABLE: RefCell<u8> = RefCell::new(1);", true),
        ("pub static TABLE: u8 = 1;", true),
        ("pub(super) static TABLE: u8 = 1;", true),
        (concat!("thread_", "local! {"), true),
        ("pub fn name(&self) -> &'static str {", false),
        ("const NAMES: [&'static str; 1] = [\"static \"];", false),
        ("/// A static table.", false),
    ] {
        assert_eq!(is_static(line), expected, "{line}");
    }
    let roles = sources("gateway");
    assert!(roles.len() > 10);
    let found = places(&roles, |line| is_static(line) && !line.starts_with('('));
    assert_eq!(found, [""; 0], "a worker's state is a field of `Worker`, which its door owns");
}

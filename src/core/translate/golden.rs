//! Golden fixtures: `<case>.json` goes in, what comes out must be `<case>.out.json`. `UPDATE=1` rewrites the latter.

use std::{fs, path::Path};

use serde_json::Value;

/// Runs every case of a folder under `tests/fixtures` and compares; all differences are reported together.
pub(super) fn walk(folder: &str, run: impl Fn(&Value) -> Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .filter(|path| !path.to_string_lossy().ends_with(".out.json"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has no cases", folder.display());
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.display();
        let input =
            serde_json::from_slice(&fs::read(&case).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let got = run(&input);
        let golden = case.with_extension("out.json");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, format!("{got:#}\n")).unwrap();
            continue;
        }
        let want: Value =
            fs::read(&golden).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if got != want {
            wrong.push(format!("{name}:\n  got  {got}\n  want {want}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! Golden fixtures: `<case>.json` goes in, what comes out must be `<case>.out.json`. `UPDATE=1` rewrites the latter.
//!
//! They stand in `tests/fixtures/formats/<format>/{request,response,stream}/{read,write}`, `read` being what makes chat of the
//! format and `write` what makes the format of chat.

pub(in crate::core::format) mod requests;
pub(in crate::core::format) mod responses;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Runs every case of a folder and compares; all differences are reported together.
#[allow(clippy::disallowed_methods, reason = "whoever runs the tests may have the goldens written")]
pub(in crate::core::format) fn walk(folder: &str, run: impl Fn(&Value) -> Value) {
    let mut wrong = Vec::new();
    for (case, input) in cases(folder) {
        let got = run(&input);
        let golden = case.with_extension("out.json");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, format!("{got:#}\n")).unwrap();
            continue;
        }
        let want: Value =
            fs::read(&golden).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if got != want {
            wrong.push(format!("{}:\n  got  {got}\n  want {want}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Hands every case of a folder to `run`.
pub(in crate::core::format) fn each(folder: &str, mut run: impl FnMut(&Value)) {
    cases(folder).iter().for_each(|(_, input)| run(input));
}

/// Hands `run` copies of `value` in each of which one value inside is replaced by one of `odd`.
pub(in crate::core::format) fn mutants(value: &Value, odd: &[Value], run: &mut impl FnMut(&Value)) {
    let mut places = Vec::new();
    pointers(value, String::new(), &mut places);
    for place in places {
        for odd in odd {
            let mut mutant = value.clone();
            *mutant.pointer_mut(&place).unwrap() = odd.clone();
            run(&mutant);
        }
    }
}

/// The JSON pointer of everything in `value`, itself apart.
fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in members {
        let place = format!("{at}/{name}");
        places.push(place.clone());
        pointers(value, place, places);
    }
}

/// The cases of a folder in order, with their content.
fn cases(folder: &str) -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(folder);
    let read = |path: PathBuf| {
        let value = serde_json::from_slice(&fs::read(&path).unwrap());
        let value = value.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, value)
    };
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .filter(|path| !path.to_string_lossy().ends_with(".out.json"))
        .map(read)
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!cases.is_empty(), "{} has no cases", folder.display());
    cases
}

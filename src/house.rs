//! What holds for the whole source: the order of the modules, that no two files need each other, and how docs begin.
//!
//! What stands in [`MAY_USE`] is the whole rule. A module is named after those that it may use, so there is no way round in a
//! circle; an edge that is missing here is a decision to be made, not a line to be added.
//! Methods are not seen: `impl` blocks of a noun may stand in the module that has the rule (`Usage::from_openai` in `cost`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each module, and what it may use besides itself.
const MAY_USE: &[(&str, &[&str])] = &[
    // The ground: bytes, chance, what hosts are like, and the nouns.
    ("codec", &[]),
    ("headers", &[]),
    ("random", &[]),
    ("model", &["codec"]),
    ("host", &["headers"]),
    ("store", &["host"]),
    ("error", &["model"]),
    ("protocol", &["codec", "model"]),
    // Rules about one thing each. Where one of them needs another, it says so here.
    ("operation", &["codec", "error"]),
    ("cost", &["codec", "model"]),
    ("provider", &["operation", "codec", "error", "headers", "model"]),
    ("format", &["operation", "codec", "cost", "error", "headers", "model", "provider"]),
    ("config", &["codec", "cost", "model", "protocol", "provider"]),
    ("quota", &["codec", "host", "model", "store"]),
    (
        "access",
        &[
            "operation",
            "codec",
            "config",
            "cost",
            "error",
            "headers",
            "host",
            "model",
            "protocol",
            "provider",
            "quota",
            "store",
        ],
    ),
    // Where a call goes.
    (
        "route",
        &[
            "access",
            "operation",
            "codec",
            "config",
            "cost",
            "error",
            "host",
            "model",
            "quota",
            "random",
            "store",
        ],
    ),
    // The life of a request, and what the node tells the ledger.
    ("exchange", CORE),
    (
        "sync",
        &["access", "codec", "config", "host", "model", "protocol", "quota", "random", "route", "store"],
    ),
    // What carries bytes between a host and the core, and the doors through which hosts come in.
    ("gateway", CORE),
    ("wasm", &["gateway", "headers", "host", "store"]),
    ("module", &["error", "exchange", "gateway", "headers", "host", "quota", "store"]),
    // The command and the ledger: they know the core, and no module of the filter.
    ("control", CORE),
];

/// Every module of `core` that stands before.
const CORE: &[&str] = &["core"];

/// Files that need each other although they stand side by side. No other two may; a line goes when its files are untied.
const CIRCLES: &[&[&str]] = &[];

/// What the first sentence of a doc does not begin with. Rustdoc and editors show it alone, away from what stands before it.
const OPENINGS: &[(&str, &str)] = &[
    ("The same", "say what it is: what it is the same as stands elsewhere"),
    ("It", "name the item's subject"),
    ("Its", "name whose"),
    ("They", "name the items' subject"),
    ("Their", "name whose"),
    ("Those", "name the things"),
    ("This one", "name the thing"),
    (
        "Who",
        "name the caller, key, user, worker … that is meant; `Whether …` is fine for what is true or false",
    ),
    ("Whoever", "name the caller, key, user, worker … that is meant"),
    ("Somebody", "name the caller, key, user, worker … that is meant"),
    ("Nobody", "say what is not done, without a person"),
];

/// Folders and files under `src` whose docs are read for [`OPENINGS`].
const DOCS: &[&str] = &["core", "gateway", "module", "wasm", "house.rs", "lib.rs", "main.rs"];

/// What is compiled into the product: the text of each module, by its path.
struct Source {
    modules: BTreeMap<String, String>,
}

impl Source {
    /// Everything that the crate's root declares, except what is only for tests.
    fn read() -> Source {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut source = Source { modules: BTreeMap::new() };
        for name in declared(&without_tests(&fs::read_to_string(root.join("lib.rs")).unwrap())) {
            source.add(&root, &name, &name);
        }
        source
    }

    /// The module of this name, whose file is in `folder`, and those that it declares.
    fn add(&mut self, folder: &Path, name: &str, path: &str) {
        let files: [PathBuf; 2] = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
        let file = files.iter().find(|file| file.exists()).unwrap_or_else(|| panic!("no file of {path}"));
        let text = without_tests(&fs::read_to_string(file).unwrap());
        for child in declared(&text) {
            self.add(&folder.join(name), &child, &format!("{path}::{child}"));
        }
        self.modules.insert(path.to_owned(), text);
    }

    /// Which module uses which other.
    fn edges(&self) -> BTreeSet<(&str, &str)> {
        let mut edges = BTreeSet::new();
        for (from, text) in &self.modules {
            for used in paths(text, from) {
                if let Some(to) = self.module_of(&used).filter(|to| to != from) {
                    edges.insert((from.as_str(), to));
                }
            }
        }
        edges
    }

    /// The module in which a path ends.
    fn module_of(&self, path: &str) -> Option<&str> {
        let mut path = path;
        loop {
            if let Some((module, _)) = self.modules.get_key_value(path) {
                return Some(module);
            }
            (path, _) = path.rsplit_once("::")?;
        }
    }
}

/// Source text without comments and without what is only compiled for tests.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start() != "#[cfg(test)]" {
            let code = line.split("//").next().unwrap_or_default();
            kept.extend([code, "\n"]);
            continue;
        }
        // An item ends with its only line, or with a brace that stands where it began.
        let closing = format!("{}}}", " ".repeat(indent));
        let mut item = lines.by_ref().skip_while(|line| line.trim_start().starts_with("#["));
        if item.next().is_some_and(|first| !first.ends_with([';', '}'])) {
            item.find(|line| *line == closing);
        }
    }
    kept
}

/// The modules that a file declares in files of their own.
fn declared(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let (_, rest) = format!(" {line}").split_once(" mod ").map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        rest.strip_suffix(';').map(str::to_owned)
    };
    text.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| name(line.trim_end())).collect()
}

/// Every path of the crate that a text names, from the crate's root on.
fn paths(text: &str, module: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = ["crate::", "super::", "self::"].iter().filter_map(|word| rest.find(word)).min() {
        let before = rest[..at].chars().next_back();
        let tree = &rest[at..];
        let end = end_of(tree);
        // `$crate::` of a macro and `in_super::` are something else.
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            leaves(&tree[..end], "", &mut |leaf| _ = found.insert(absolute(leaf, module)));
        }
        rest = &tree[end..];
    }
    found
}

/// Where a path ends, with the braces behind it.
fn end_of(tree: &str) -> usize {
    let mut depth = 0;
    for (at, c) in tree.char_indices() {
        match c {
            '{' if depth > 0 || tree[..at].ends_with("::") => depth += 1,
            '}' if depth > 1 => depth -= 1,
            '}' if depth == 1 => return at + 1,
            _ if depth > 0 || c.is_alphanumeric() || "_:".contains(c) => {}
            _ => return at,
        }
    }
    tree.len()
}

/// The paths of a tree such as `a::{b, c::{d, e}}`.
fn leaves(tree: &str, prefix: &str, found: &mut dyn FnMut(&str)) {
    let Some((head, list)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        return found(format!("{prefix}{name}").trim_end_matches("::self").trim_end_matches("::"));
    };
    let prefix = format!("{prefix}{}", head.trim());
    let list =
        list.trim_end().trim_end_matches(|c: char| c.is_whitespace()).strip_suffix('}').unwrap_or(list);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                leaves(&list[start..at], &prefix, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list[start..].trim().is_empty() {
        leaves(&list[start..], &prefix, found);
    }
}

/// A path that begins with `crate`, `self` or `super`, from the crate's root on.
fn absolute(path: &str, module: &str) -> String {
    let mut at: Vec<&str> = module.split("::").collect();
    let mut rest: Vec<&str> = path.split("::").collect();
    match rest[0] {
        "crate" => at.clear(),
        "self" => {}
        _ => {
            while rest.first() == Some(&"super") {
                at.pop();
                rest.remove(0);
            }
            return [at, rest].concat().join("::");
        }
    }
    rest.remove(0);
    [at, rest].concat().join("::")
}

/// What a file belongs to: a module of `core`, or one beside it. None for the lists of modules themselves.
fn home(module: &str) -> Option<&str> {
    match module.strip_prefix("core::") {
        Some(rest) => rest.split("::").next(),
        None => module.split("::").next().filter(|name| *name != "core"),
    }
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let source = Source::read();
    let mut may_use: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, below) in MAY_USE {
        let before = may_use.keys().copied();
        let below: BTreeSet<&str> = match *below == CORE {
            true => before.filter(|other| source.modules.contains_key(&format!("core::{other}"))).collect(),
            false => below.iter().copied().collect(),
        };
        let others: Vec<_> = below.iter().filter(|other| !may_use.contains_key(*other)).collect();
        assert!(others.is_empty(), "`{name}` may use {others:?}, which do not stand before it in the table");
        may_use.insert(name, below);
    }
    let homes: BTreeSet<&str> = source.modules.keys().filter_map(|module| home(module)).collect();
    let listed: BTreeSet<&str> = may_use.keys().copied().collect();
    let missing: Vec<_> = homes.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?} have no line in the table");
    let wrong: Vec<String> = source
        .edges()
        .into_iter()
        .filter_map(|(from, to)| {
            let (one, other) = (home(from)?, home(to)?);
            (one != other && !may_use.get(one)?.contains(other)).then(|| format!("{from} uses {to}"))
        })
        .collect();
    assert!(wrong.is_empty(), "not in the table:\n{}", wrong.join("\n"));
}

/// A file and one inside its folder may know each other: the outer one declares what the inner ones share.
#[test]
fn no_two_files_side_by_side_need_each_other() {
    let source = Source::read();
    let is_inside = |one: &str, other: &str| {
        one.strip_prefix(other).is_some_and(|rest| rest.starts_with("::")) && other != "core"
    };
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in source.edges() {
        if from.starts_with("core::") && !is_inside(from, to) && !is_inside(to, from) {
            uses.entry(from).or_default().insert(to);
        }
    }
    let reached = |start: &str| -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = uses.get(start).into_iter().flatten().copied().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(uses.get(module).into_iter().flatten());
            }
        }
        reached
    };
    let all: BTreeMap<&str, BTreeSet<&str>> = uses.keys().map(|module| (*module, reached(module))).collect();
    let circles: BTreeSet<Vec<&str>> = all
        .iter()
        .filter(|(module, reached)| reached.contains(*module))
        .map(|(module, reached)| {
            reached
                .iter()
                .copied()
                .filter(|other| all.get(other).is_some_and(|r| r.contains(module)))
                .collect()
        })
        .collect();
    let known: BTreeSet<Vec<&str>> = CIRCLES.iter().map(|circle| circle.to_vec()).collect();
    assert_eq!(circles, known, "files that need each other (left) and those that are known to (right)");
}

/// The first line of every doc comment of a text, with its number.
fn first_lines(text: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let words = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if let Some(words) = words.filter(|_| !inside) {
            found.push((number + 1, words.trim()));
        }
        inside = words.is_some();
    }
    found
}

/// The opening that a sentence must not have, and what to write.
fn opening(sentence: &str) -> Option<(&'static str, &'static str)> {
    let begins = |word: &str| {
        sentence.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    OPENINGS.iter().copied().find(|(word, _)| begins(word))
}

/// Every Rust file in a folder, or the file itself.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        return found.push(path.to_owned());
    }
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            files(&path, found);
        }
    }
}

#[test]
fn docs_begin_with_their_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    DOCS.iter().for_each(|path| files(&root.join(path), &mut all));
    let mut wrong = Vec::new();
    for file in &all {
        let name = file.strip_prefix(&root).unwrap();
        for (line, sentence) in first_lines(&fs::read_to_string(file).unwrap()) {
            if let Some((word, advice)) = opening(sentence) {
                wrong.push(format!("src/{}:{line}: begins with `{word}`: {advice}", name.display()));
            }
        }
    }
    assert!(all.len() > 100, "the source is read");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn first_sentences_are_found_and_judged() {
    let text = "//! It is a module.\n//! They are more words.\n\n/// Whether it is.\nfn a() {}\n    /// The same\n    /// for b.\n// It is no doc.\n";
    let lines = first_lines(text);
    assert_eq!(lines, [(1, "It is a module."), (4, "Whether it is."), (6, "The same")]);
    let words = lines.iter().map(|(_, sentence)| opening(sentence).map(|(word, _)| word));
    assert_eq!(words.collect::<Vec<_>>(), [Some("It"), None, Some("The same")]);
    assert_eq!(opening("Items are"), None);
    assert_eq!(opening("Who's there").map(|(word, _)| word), Some("Who"));
}

#[test]
fn uses_are_read_as_the_compiler_reads_them() {
    let text = "use super::{a, b::{self, C}};\nuse crate::core::{\n    d::{E, f::G},\n    h::I as J,\n};\n\
                fn x() { crate::core::k::L::new(); self::m(); super::super::n::o() }\n\
                // crate::not::this\nuse std::fmt;\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::nor::this;\n}\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod y;\nuse crate::p;\n";
    let found = paths(&without_tests(text), "core::q::r");
    let expected = [
        "core::d::E",
        "core::d::f::G",
        "core::h::I",
        "core::k::L::new",
        "core::n::o",
        "core::q::a",
        "core::q::b",
        "core::q::b::C",
        "core::q::r::m",
        "p",
    ];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!(declared("mod a;\npub mod b;\npub(crate) mod c;\nmod d {\n    mod e;\n}\n"), ["a", "b", "c"]);
}

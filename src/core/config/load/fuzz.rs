//! Broken configurations: every example, bitten and rearranged, is loaded or refused, and never ends the process.

use super::load;
use crate::core::{
    fuzz::{below, cases, chance},
    random::Random,
};

const SEED: u64 = 0x7011_6a7e;

/// What stands where it is not expected.
const ODD: &[&str] = &[
    "null",
    "~",
    "-1",
    "0",
    "1e999",
    "99999999999999999999",
    ".inf",
    ".nan",
    "true",
    "''",
    "[]",
    "{}",
    "[[[[[[]]]]]]",
    "&a [*a]",
    "*nobody",
    "!!binary aGk=",
    "!!str 1",
    "? a",
    "|",
    ">-",
    "os.environ/",
    "os.environ/\u{0}",
    "\u{feff}",
    "\u{2028}",
    "'",
    "\"",
    "\t",
    "- ",
    ": ",
    "---\n",
    "...\n",
    "<<: {}",
    "%YAML 9.9",
    "{{{{",
    "sk-",
    "http://[::1",
];

fn examples() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// One bite: a piece cut out, doubled, moved, or an odd value put in the place of a value.
fn bitten(random: &mut Random, text: &str, other: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        lines.push(String::new());
    }
    let at = below(random, lines.len());
    let odd = ODD[below(random, ODD.len())];
    match below(random, 8) {
        0 => drop(lines.drain(at..lines.len().min(at + 3))),
        1 => lines.insert(at, lines[at].clone()),
        2 => lines.insert(at, other.lines().nth(at).unwrap_or("a: b").to_owned()),
        3 => lines[at].insert_str(0, "    "),
        4 => lines[at] = lines[at].trim_start().to_owned(),
        5 => {
            let line = &lines[at];
            let end = line.find(':').map_or(line.len(), |colon| colon + 1);
            lines[at] = format!("{} {odd}", &line[..end]);
        }
        6 => lines[at] = lines[at].chars().rev().collect(),
        _ => {
            let whole = lines.join("\n");
            let cut = below(random, whole.len());
            let cut = (0..=cut).rev().find(|&cut| whole.is_char_boundary(cut)).unwrap_or(0);
            return format!(
                "{}{odd}{}",
                &whole[..cut],
                if random.bits().is_multiple_of(2) { "" } else { &whole[cut..] }
            );
        }
    }
    lines.join("\n")
}

#[test]
fn broken_configurations_are_loaded_or_refused() {
    let examples = examples();
    let mut random = chance(SEED);
    let (mut loaded, mut refused) = (0, 0);
    for _ in 0..cases(1_500) {
        let mut text = examples[below(&mut random, examples.len())].clone();
        for _ in 0..=below(&mut random, 4) {
            let other = &examples[below(&mut random, examples.len())];
            text = bitten(&mut random, &text, other);
        }
        match load(&text, &|name| (name.len() % 2 == 0).then(|| "value".to_owned()), &|_| None) {
            Ok(_) => loaded += 1,
            Err(problems) => {
                assert!(!problems.is_empty(), "refused without a word:\n{text}");
                refused += 1;
            }
        }
    }
    // Both happen, or the bites are too small or too large to find anything.
    assert!(loaded > 0 && refused > 0, "{loaded} loaded, {refused} refused");
}

#[test]
fn deep_and_long_documents_are_refused() {
    for depth in [100, 2_000] {
        for text in [
            format!("model_list: {}{}", "[".repeat(depth), "]".repeat(depth)),
            format!("model_list: {}", "{a: ".repeat(depth)),
            (0..depth).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<String>(),
        ] {
            let _ = load(&text, &|_| None, &|_| None);
        }
    }
    // Ten references to ten references …: a few lines that would be gigabytes.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{},", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let _ = load(&bomb, &|_| None, &|_| None);
}

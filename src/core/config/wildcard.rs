//! `model_name`s with `*`: LiteLLM's order and LiteLLM's way of matching.

use std::cmp::Reverse;

use crate::core::cost::table;
use crate::core::model::deployment::Deployment;

/// What a name has in the places of a pattern's `*`s; `None` when it does not match. A match begins at the name's start
/// but need not reach its end, and an earlier `*` takes as much as it can (LiteLLM uses a regular expression that way).
pub(super) fn captures<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let (first, rest) = pattern.split_once('*')?;
    let mut free = name.strip_prefix(first)?;
    // From the right: every literal as late as the ones after it allow makes every `*` before it as long as possible.
    // What stands behind a literal belongs to the `*` after it; behind the pattern's last literal there is none.
    let mut captures = Vec::new();
    for (at, literal) in rest.rsplit('*').enumerate() {
        let start = if literal.is_empty() { free.len() } else { free.rfind(literal)? };
        let (before, found) = free.split_at_checked(start)?;
        if at > 0 {
            captures.push(found.get(literal.len()..)?);
        }
        free = before;
    }
    captures.push(free);
    captures.reverse();
    Some(captures)
}

/// Sorts before what it should be tried before: the longer regular expression first, then the one with more special
/// characters in it.
pub(super) fn order(pattern: &str) -> Reverse<(usize, usize)> {
    let (mut length, mut special) = (0, 0);
    for c in pattern.chars() {
        match c {
            // Becomes `(.*)`.
            '*' => (length, special) = (length + 4, special + 3),
            '.' | '^' | '$' | '+' | '?' | '{' | '}' | '[' | ']' | '|' | '(' | ')' | '\\' | '-' | '&'
            | '#' | '~' | ' ' => {
                length += 2;
                special += 1 + usize::from("+?\\^$|()".contains(c));
            }
            _ => length += 1,
        }
    }
    Reverse((length, special))
}

/// The names by which clients can call what the price data knows of a deployment's provider. A pattern without a provider
/// (`*`) stands for everything there is, which is too much to read.
pub(super) fn expand(pattern: &str, deployment: &Deployment) -> Vec<String> {
    let at_end = |text: &str| text.strip_suffix('*').filter(|rest| !rest.contains('*')).map(str::to_owned);
    let (Some(called), Some(model)) = (at_end(pattern), at_end(&deployment.model)) else { return Vec::new() };
    if !called.contains('/') {
        return Vec::new();
    }
    let brand = deployment.brand.name;
    let known = table::names_of(|provider| is_of(provider, brand)).into_iter().filter_map(|name| {
        let bare = name.strip_prefix(brand).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&name);
        // Fine-tuned models are priced by their base, images by their size: neither can be called by that name.
        let is_model = !bare.starts_with("ft:") && !bare.contains("-x-");
        let capture = bare.strip_prefix(model.as_str()).filter(|_| is_model)?;
        Some(format!("{called}{capture}"))
    });
    known.collect()
}

/// Whether a provider in the price data's spelling is a brand.
fn is_of(provider: &str, brand: &str) -> bool {
    provider == brand
        || match brand {
            "bedrock" => provider == "bedrock_converse",
            "cohere" => provider == "cohere_chat",
            "openai" => provider == "text-completion-openai",
            "vertex_ai" => provider.starts_with("vertex_ai-"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_like_a_greedy_prefix_match() {
        let rows: &[(&str, &str, Option<&[&str]>)] = &[
            ("*", "gpt-4o", Some(&["gpt-4o"])),
            ("*", "", Some(&[""])),
            ("anthropic/*", "anthropic/claude", Some(&["claude"])),
            ("anthropic/*", "x/anthropic/claude", None),
            ("anthropic/*", "anthropic", None),
            ("*-latest", "gpt-4-latest", Some(&["gpt-4"])),
            ("*-latest", "gpt-latest-latest-x", Some(&["gpt-latest"])),
            ("a/*/b/*", "a/1/b/2/b/3", Some(&["1/b/2", "3"])),
            ("a*b*c", "aXbYcZ", Some(&["X", "Y"])),
            ("a*b*c", "aXcYb", None),
            ("**", "ab", Some(&["ab", ""])),
            ("x-*-é*", "x-ü-é!", Some(&["ü", "!"])),
            ("plain", "plain", None),
        ];
        for (pattern, name, wanted) in rows {
            assert_eq!(captures(pattern, name).as_deref(), *wanted, "{pattern} on {name}");
        }
    }

    #[test]
    fn longer_patterns_go_first() {
        let mut patterns = vec!["*", "gpt-*", "anthropic/*", "anthropic/claude-*", "a/*/*"];
        patterns.sort_by_key(|pattern| order(pattern));
        assert_eq!(patterns, ["anthropic/claude-*", "anthropic/*", "a/*/*", "gpt-*", "*"]);
    }
}

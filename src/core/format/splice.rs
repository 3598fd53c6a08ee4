//! Changes inside a member that leave the text around them as it is.

use serde_json::value::RawValue;

use crate::core::codec::json::{MOST_VALUES, Object};

/// Removes what a path names: `seed`, `response_format.strict`, `tools[*].function.strict`, `messages[0].name`. What is not
/// there, or no path, changes nothing.
pub fn remove(body: &mut Object<'_>, path: &str) {
    if body.remove(path).is_some() {
        return;
    }
    let Some(steps) = steps(path) else {
        return;
    };
    let Some((Step::Member(first), rest)) = steps.split_first() else {
        return;
    };
    // A list of a million numbers has no member that anybody would name.
    if body.values(first) > MOST_VALUES {
        return;
    }
    let changed = body.raw(first).and_then(|raw| without(raw, rest));
    if let Some(changed) = changed {
        body.set((*first).to_owned(), changed);
    }
}

/// The array `raw` with its items changed by `change`, which returns `None` for an item that stays. `None` when all stay or
/// it is no array.
pub fn map_items(raw: &str, mut change: impl FnMut(usize, &str) -> Option<String>) -> Option<String> {
    let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    let changed: Vec<Option<String>> =
        items.iter().enumerate().map(|(at, item)| change(at, item.get())).collect();
    if changed.iter().all(Option::is_none) {
        return None;
    }
    let items: Vec<&str> =
        items.iter().zip(&changed).map(|(item, new)| new.as_deref().unwrap_or(item.get())).collect();
    Some(format!("[{}]", items.join(",")))
}

/// The object `raw` with a member changed by `change`. `None` when it stays, is not there, or `raw` is no object.
pub fn map_member(raw: &str, name: &str, change: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    let mut object = Object::parse(raw.as_bytes()).ok()?;
    let changed = change(object.raw(name)?)?;
    object.set(name.to_owned(), changed);
    String::from_utf8(object.to_bytes()).ok()
}

/// The object `raw` without a member. `None` when it is not there, or `raw` is no object.
pub fn without_member(raw: &str, name: &str) -> Option<String> {
    let mut object = Object::parse(raw.as_bytes()).ok()?;
    object.remove(name)?;
    String::from_utf8(object.to_bytes()).ok()
}

#[derive(Debug, PartialEq)]
enum Step<'a> {
    Member(&'a str),
    Item(usize),
    EveryItem,
}

/// The steps of a path; `None` when it is malformed.
fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, mut items) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() {
            return None;
        }
        steps.push(Step::Member(name));
        while !items.is_empty() {
            let (item, rest) = items.strip_prefix('[')?.split_once(']')?;
            steps.push(if item == "*" { Step::EveryItem } else { Step::Item(item.parse().ok()?) });
            items = rest;
        }
    }
    // More steps than this name nothing real, and each costs a pass over the text.
    (steps.len() <= 32).then_some(steps)
}

/// `raw` without what `steps` names in it; `None` when that is not there.
fn without(raw: &str, steps: &[Step<'_>]) -> Option<String> {
    match steps {
        [] => None,
        [Step::Member(name)] => without_member(raw, name),
        [Step::Item(_) | Step::EveryItem] => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
            let stays = |at: usize| !matches!(steps, [Step::EveryItem]) && steps != [Step::Item(at)];
            let kept: Vec<&str> =
                items.iter().enumerate().filter(|(at, _)| stays(*at)).map(|(_, item)| item.get()).collect();
            Some(format!("[{}]", kept.join(",")))
        }
        [Step::Member(name), rest @ ..] => map_member(raw, name, |inner| without(inner, rest)),
        [Step::Item(wanted), rest @ ..] => {
            map_items(raw, |at, item| if at == *wanted { without(item, rest) } else { None })
        }
        [Step::EveryItem, rest @ ..] => map_items(raw, |_, item| without(item, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_remove_what_they_name_and_nothing_else() {
        let body =
            r#"{"a":{"b":1.10,"c":{"d":2}},"tools":[{"f":{"strict":true,"x":1e400}},{"f":{"x":2}}],"x.y":3}"#;
        let rows = [
            ("a.b", r#"{"a":{"c":{"d":2}},"tools":[{"f":{"strict":true,"x":1e400}},{"f":{"x":2}}],"x.y":3}"#),
            (
                "a.c.d",
                r#"{"a":{"b":1.10,"c":{}},"tools":[{"f":{"strict":true,"x":1e400}},{"f":{"x":2}}],"x.y":3}"#,
            ),
            (
                "tools[*].f.strict",
                r#"{"a":{"b":1.10,"c":{"d":2}},"tools":[{"f":{"x":1e400}},{"f":{"x":2}}],"x.y":3}"#,
            ),
            (
                "tools[1].f.x",
                r#"{"a":{"b":1.10,"c":{"d":2}},"tools":[{"f":{"strict":true,"x":1e400}},{"f":{}}],"x.y":3}"#,
            ),
            ("tools[0]", r#"{"a":{"b":1.10,"c":{"d":2}},"tools":[{"f":{"x":2}}],"x.y":3}"#),
            ("tools[*]", r#"{"a":{"b":1.10,"c":{"d":2}},"tools":[],"x.y":3}"#),
            (
                "x.y",
                r#"{"a":{"b":1.10,"c":{"d":2}},"tools":[{"f":{"strict":true,"x":1e400}},{"f":{"x":2}}]}"#,
            ),
        ];
        for (path, expected) in rows {
            let mut object = Object::parse(body.as_bytes()).unwrap();
            remove(&mut object, path);
            assert_eq!(String::from_utf8(object.to_bytes()).unwrap(), expected, "{path}");
        }
        for path in
            ["", ".", "a.", "a[", "a[x].b", "a]b", "[*].f", "tools[9].f", "a[0].b", "z.b", "a.b.c", "tools.f"]
        {
            let mut object = Object::parse(body.as_bytes()).unwrap();
            remove(&mut object, path);
            assert_eq!(String::from_utf8(object.to_bytes()).unwrap(), body, "{path}");
        }
    }
}

//! `general_settings.keys`: virtual keys of the configuration, known by their hash. They need no ledger.

use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::Value;

use super::{
    blocks::Blocks,
    read::{Block, Source, scalar_text},
    settings::Verdict,
    yaml::item,
};
use crate::core::model::{
    general::General,
    key_record::{KeyRecord, Principal},
    limits::{Budget, Limits, MOST_BUDGETS, Several},
    period::Civil,
    virtual_key::VirtualKey,
};

/// Reads them, by their hash.
pub(super) fn read(src: &mut Source, blocks: &Blocks, general: &General) -> HashMap<String, Arc<VirtualKey>> {
    let own = &blocks.general;
    let mut keys = HashMap::new();
    for (at, value) in own.list(src, "keys").into_iter().enumerate() {
        let path = item("general_settings.keys", at);
        let Value::Object(map) = value else {
            src.problem(&path, "expected a map with a token", "write `- token: <sha256 of the key>`");
            continue;
        };
        let entry = Block { path, map };
        let Some(hash) = token(src, &entry) else { continue };
        let grant = grant(src, &entry, &hash);
        if keys.insert(hash, grant.into()).is_some() {
            src.problem(
                &format!("{}.token", entry.path),
                "expected a key of its own, found the hash of another entry",
                "remove one of the two",
            );
        }
    }
    if !keys.is_empty() && general.master_key.is_none() {
        let why = "without a master_key everybody may do everything: no key is asked for";
        src.note("general_settings.keys", Verdict::Approximated(why.into()));
    }
    keys
}

/// The hash of the key. A key itself must not stand in a file.
fn token(src: &mut Source, entry: &Block) -> Option<String> {
    let path = format!("{}.token", entry.path);
    let text = entry.text(src, "token").unwrap_or_default().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(text);
    }
    src.problem(
        &path,
        "expected the SHA-256 of the key: 64 hexadecimal digits",
        "write what `printf %s \"$KEY\" | sha256sum` prints",
    );
    None
}

fn grant(src: &mut Source, entry: &Block, hash: &str) -> KeyRecord {
    let metadata = entry.member(src, "metadata");
    let limits = Limits {
        rpm: entry.count(src, "rpm_limit"),
        tpm: entry.count(src, "tpm_limit"),
        parallel: entry.count(src, "max_parallel_requests"),
    };
    let key = Principal {
        id: hash.to_owned(),
        alias: entry.text(src, "key_alias"),
        blocked: entry.flag(src, "blocked").unwrap_or(false),
        models: entry.texts(src, "models"),
        limits,
        budget: Budget {
            max: entry.money(src, "max_budget"),
            soft: entry.money(src, "soft_budget"),
            duration: entry.duration(src, "budget_duration"),
            ..Budget::default()
        },
        model_rpm: counts(src, [entry, &metadata], "model_rpm_limit"),
        model_tpm: counts(src, [entry, &metadata], "model_tpm_limit"),
        budget_limits: budget_limits(src, entry),
        model_budgets: model_budgets(src, entry),
        aliases: texts(&entry.member(src, "aliases")),
        tags: metadata.texts(src, "tags"),
        ..Principal::default()
    };
    let owner = |id: Option<String>| id.map(|id| Box::new(Principal { id, ..Principal::default() }));
    KeyRecord {
        key,
        expires_ms: expires(src, entry),
        allowed_routes: entry.texts(src, "allowed_routes"),
        enforced_params: entry.texts(src, "enforced_params"),
        disable_fallbacks: metadata.flag(src, "disable_fallbacks").unwrap_or(false),
        user: owner(entry.text(src, "user_id")),
        team: owner(entry.text(src, "team_id")),
        ..KeyRecord::default()
    }
}

/// Whole numbers by model, from the first block that has any.
fn counts(src: &mut Source, blocks: [&Block; 2], name: &str) -> HashMap<String, u64> {
    let block = blocks.into_iter().find(|block| block.get(name).is_some());
    let Some(block) = block.map(|block| block.member(src, name)) else { return HashMap::new() };
    let names: Vec<String> = block.map.keys().cloned().collect();
    names.into_iter().filter_map(|model| block.count(src, &model).map(|count| (model, count))).collect()
}

/// `budget_limits`: `[{budget_duration: 1d, max_budget: 1}]`.
fn budget_limits(src: &mut Source, entry: &Block) -> Option<Box<Several>> {
    let mut budgets: Vec<Budget> = Vec::new();
    for (at, value) in entry.list(src, "budget_limits").into_iter().enumerate() {
        let path = item(&format!("{}.budget_limits", entry.path), at);
        let rule = Block { path, map: value.as_object().cloned().unwrap_or_default() };
        let (max, duration) = (rule.money(src, "max_budget"), rule.duration(src, "budget_duration"));
        let is_new = !budgets.iter().any(|other| other.duration == duration);
        if max.is_some() && duration.is_some() && is_new && at < MOST_BUDGETS {
            budgets.push(Budget { max, duration, ..Budget::default() });
        } else {
            let most = format!(
                "expected a budget with a period that no other has, and at most {MOST_BUDGETS} of them"
            );
            src.problem(&rule.path, &most, "write `{budget_duration: 1d, max_budget: 1.5}`");
        }
    }
    Several::of(budgets)
}

/// `model_max_budget`: `{gpt-4o: {budget_limit: 1, time_period: 1d}}`.
fn model_budgets(src: &mut Source, entry: &Block) -> HashMap<String, Budget> {
    let block = entry.member(src, "model_max_budget");
    let mut budgets = HashMap::new();
    for model in block.map.keys() {
        let rule = block.member(src, model);
        let limit = if rule.get("budget_limit").is_some() { "budget_limit" } else { "max_budget" };
        let period = if rule.get("time_period").is_some() { "time_period" } else { "budget_duration" };
        let max = rule.money(src, limit);
        if max.is_none() {
            src.problem(&rule.path, "expected a budget", "write `{budget_limit: 1.5, time_period: 1d}`");
        }
        let duration = rule.duration(src, period);
        budgets.insert(model.clone(), Budget { max, duration, ..Budget::default() });
    }
    budgets
}

fn texts(block: &Block) -> HashMap<String, String> {
    block.map.iter().filter_map(|(name, value)| Some((name.clone(), scalar_text(value)?))).collect()
}

/// `expires`, a moment: when a key of a file was made is unknown, so a duration would never end.
fn expires(src: &mut Source, entry: &Block) -> Option<u64> {
    if entry.get("duration").is_some() {
        src.problem(
            &format!("{}.duration", entry.path),
            "expected `expires`: a key of the configuration has no day on which its duration began",
            "write `expires: 2027-01-31T00:00:00Z`",
        );
    }
    let text = entry.text(src, "expires")?;
    let ms = moment(&text);
    if ms.is_none() {
        src.problem(
            &format!("{}.expires", entry.path),
            "expected a moment in UTC",
            "write it as `2027-01-31T00:00:00Z` or `2027-01-31`",
        );
    }
    ms
}

/// `2027-01-31`, `2027-01-31T12:30:00Z`, `2027-01-31 12:30:00` (UTC) in Unix milliseconds.
fn moment(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches('Z').trim_end_matches("+00:00");
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "0:0:0"));
    let whole = time.split('.').next().unwrap_or(time);
    let numbers = |text: &str, by: char| {
        let parts: Option<Vec<i64>> = text.split(by).map(|part| part.parse().ok()).collect();
        <[i64; 3]>::try_from(parts?).ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(whole, ':')?;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let small = |number: i64| u8::try_from(number).ok();
    let civil = Civil {
        year,
        month: small(month)?,
        day: small(day)?,
        hour: small(hour)?,
        minute: small(minute)?,
        second: small(second)?,
    };
    valid.then(|| civil.to_ms())
}

#[cfg(test)]
mod tests {
    use crate::core::{access, config};

    fn load(keys: &str) -> Result<config::Loaded, Vec<config::Problem>> {
        let yaml = format!("general_settings:\n  master_key: sk-master\n  keys:\n{keys}");
        config::load(&yaml, &|_| None, &|_| None)
    }

    #[test]
    fn a_key_with_everything() {
        let hash = access::hash(b"sk-one");
        let loaded = load(&format!(
            "    - token: {}\n      key_alias: one\n      models: [a, 'openai/*']\n      max_budget: 1.5\n      \
             budget_duration: 30d\n      soft_budget: 1\n      tpm_limit: 1000\n      rpm_limit: 5\n      \
             max_parallel_requests: 2\n      model_rpm_limit: {{a: 3}}\n      model_max_budget: {{a: {{budget_limit: 0.5, time_period: 1d}}}}\n      \
             budget_limits: [{{budget_duration: 1d, max_budget: 0.5}}, {{budget_duration: 7d, max_budget: 1}}]\n      \
             expires: 2027-01-31T12:30:00Z\n      aliases: {{x: a}}\n      metadata: {{tags: [t1, t2], model_tpm_limit: {{a: 7}}}}\n      \
             user_id: u\n      team_id: t\n      allowed_routes: [/chat/completions]\n      blocked: false\n",
            hash.to_uppercase()
        ));
        let loaded = loaded.unwrap();
        let grant = &loaded.config.general.keys[&hash];
        assert_eq!((grant.key.id.as_str(), grant.key.alias.as_deref()), (hash.as_str(), Some("one")));
        assert_eq!(grant.key.budget.max, Some(1_500_000_000_000));
        assert_eq!(grant.key.budget.duration.as_deref(), Some("30d"));
        assert_eq!(
            (grant.key.limits.rpm, grant.key.limits.tpm, grant.key.limits.parallel),
            (Some(5), Some(1000), Some(2))
        );
        assert_eq!((grant.key.model_rpm["a"], grant.key.model_tpm["a"]), (3, 7));
        assert_eq!(grant.key.model_budgets["a"].max, Some(500_000_000_000));
        let several = &grant.key.budget_limits.as_ref().unwrap().0;
        assert_eq!(
            (several.len(), several[1].duration.as_deref(), several[0].max),
            (2, Some("7d"), Some(500_000_000_000))
        );
        assert_eq!(grant.expires_ms, Some(1_801_398_600_000));
        assert_eq!((grant.key.aliases["x"].as_str(), grant.key.tags.len()), ("a", 2));
        assert_eq!(grant.user.as_ref().unwrap().id, "u");
        assert_eq!(grant.team.as_ref().unwrap().id, "t");
        assert_eq!(grant.revision, 0);
        let left: Vec<String> = loaded
            .report
            .rows
            .iter()
            .filter(|row| row.verdict != config::settings::Verdict::Used)
            .map(|row| format!("{} {:?}", row.path, row.verdict))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let hash = access::hash(b"sk-one");
        let rows = [
            ("    - hello\n".to_owned(), "general_settings.keys[0]"),
            ("    - token: sk-secret\n".to_owned(), "general_settings.keys[0].token"),
            ("    - key_alias: x\n".to_owned(), "general_settings.keys[0].token"),
            (format!("    - token: {hash}\n      rpm_limit: many\n"), "general_settings.keys[0].rpm_limit"),
            (format!("    - token: {hash}\n      max_budget: lots\n"), "general_settings.keys[0].max_budget"),
            (format!("    - token: {hash}\n      max_budget: -1\n"), "general_settings.keys[0].max_budget"),
            (
                format!("    - token: {hash}\n      budget_duration: soon\n"),
                "general_settings.keys[0].budget_duration",
            ),
            (format!("    - token: {hash}\n      expires: soon\n"), "general_settings.keys[0].expires"),
            (
                format!("    - token: {hash}\n      budget_limits: [{{max_budget: 1}}]\n"),
                "general_settings.keys[0].budget_limits[0]",
            ),
            (
                format!(
                    "    - token: {hash}\n      budget_limits: [{{max_budget: 1, budget_duration: 1d}}, {{max_budget: 2, budget_duration: 1d}}]\n"
                ),
                "general_settings.keys[0].budget_limits[1]",
            ),
            (format!("    - token: {hash}\n      duration: 30d\n"), "general_settings.keys[0].duration"),
            (format!("    - token: {hash}\n    - token: {hash}\n"), "general_settings.keys[1].token"),
        ];
        for (text, path) in rows {
            let problems = load(&text).unwrap_err();
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert_eq!(problems[0].setting, path);
            assert!(!problems[0].to_string().contains("sk-secret"));
        }
    }

    #[test]
    fn moments() {
        for (text, ms) in [
            ("1970-01-01", Some(0)),
            ("2026-01-01T00:00:10Z", Some(1_767_225_610_000)),
            ("2024-02-29 23:59:59.5", Some(1_709_251_199_000)),
            ("2024-13-01", None),
            ("2024-01", None),
        ] {
            assert_eq!(super::moment(text), ms, "{text}");
        }
    }
}

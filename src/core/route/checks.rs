//! Deployments that the ledger's health checks found failing, known to all workers.
//!
//! One small value in shared data: until when it is to be believed, and the ids. A ledger that goes away leaves nothing behind
//! for longer than that. A failing deployment is left out of a group's candidates while another one passes.

use crate::core::host::Store;
use crate::core::route::world::World;

/// Key of the list.
const KEY: &str = "route/failing";
/// Most ids that are kept. They are looked through by every request while there are any.
const MOST: usize = 1_000;
/// A list that says the same is not written again until so much of its time has passed.
const RENEW_MS: u64 = 1_000;

/// Takes over what the ledger says: which deployments fail, to be believed until `until_ms`.
pub fn note(shared: &dyn Store, failing: &[String], until_ms: u64) {
    let ids: Vec<&str> = failing.iter().take(MOST).map(String::as_str).collect();
    let text = ids.join("\n");
    let stored = shared.get(KEY).map(|(bytes, _)| bytes).unwrap_or_default();
    let (old_until_ms, old) = split(&stored);
    let is_same = old == text.as_bytes();
    // When none fails it does not matter until when.
    if is_same && (text.is_empty() || until_ms.abs_diff(old_until_ms) < RENEW_MS) {
        return;
    }
    let bytes = [&until_ms.to_le_bytes()[..], text.as_bytes()].concat();
    shared.set(KEY, &bytes, None);
}

/// Leaves out of a group's candidates those that fail, unless all of them do.
pub(super) fn prefer_passing(candidates: &mut Vec<usize>, world: &World) {
    if candidates.len() < 2 || !world.config.ledger.health.steer() {
        return;
    }
    let Some((stored, _)) = world.shared.get(KEY) else { return };
    let (until_ms, ids) = split(&stored);
    if ids.is_empty() || until_ms <= world.now_ms {
        return;
    }
    let passes = |at: &usize| {
        let deployment = world.config.deployments.get(*at);
        deployment.is_some_and(|d| !ids.split(|&byte| byte == b'\n').any(|id| id == d.id.as_bytes()))
    };
    if candidates.iter().any(passes) {
        for &at in candidates.iter().filter(|at| !passes(at)) {
            world.tell(|trace| trace.note(at, "fails its health checks"));
        }
        candidates.retain(passes);
    }
}

/// Until when the list is good, and its ids with line ends between them.
fn split(stored: &[u8]) -> (u64, &[u8]) {
    stored.split_first_chunk::<8>().map_or((0, &[]), |(until, ids)| (u64::from_le_bytes(*until), ids))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{config, host::Version, quota::Worker, random::Random, store::Memory};

    const NOW_MS: u64 = 1_000_000;
    const THREE: &str = "
model_list:
  - {model_name: g, litellm_params: {model: openai/a, api_key: k}, model_info: {id: a}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k}, model_info: {id: b}}
  - {model_name: g, litellm_params: {model: openai/c, api_key: k}, model_info: {id: c}}
";

    /// The deployments that are left of `a`, `b` and `c`.
    fn left(settings: &str, shared: &dyn Store, now_ms: u64) -> String {
        let config = config::load(&format!("{THREE}{settings}"), &|_| None, &|_| None).unwrap().config;
        let world = World {
            config: &config,
            shared,
            now_ms,
            random: &mut Random::new(1),
            worker: Worker(1),
            trace: None,
        };
        let mut candidates = vec![0, 1, 2];
        prefer_passing(&mut candidates, &world);
        candidates.into_iter().map(|at| config.deployments[at].id.as_str()).collect()
    }

    #[test]
    fn who_fails_is_left_out_but_never_everybody() {
        let on = "general_settings: {background_health_checks: true}";
        let steered = "general_settings: {background_health_checks: true, enable_health_check_routing: true}";
        let unsteered =
            "general_settings: {background_health_checks: true, enable_health_check_routing: false}";
        let by_router = "general_settings: {background_health_checks: true}
router_settings: {enable_health_check_routing: false}";
        let rows: &[(&str, &[&str], &str)] = &[
            (on, &[], "abc"),
            (on, &["a"], "bc"),
            (on, &["c", "a"], "b"),
            (on, &["a", "b", "c"], "abc"),
            (on, &["other", "ab"], "abc"),
            (steered, &["a"], "bc"),
            (unsteered, &["a"], "abc"),
            (by_router, &["a"], "abc"),
            ("", &["a"], "abc"),
        ];
        for (settings, failing, expected) in rows {
            let shared = Memory::default();
            let failing: Vec<String> = failing.iter().map(|id| (*id).to_owned()).collect();
            note(&shared, &failing, NOW_MS + 60_000);
            assert_eq!(left(settings, &shared, NOW_MS), *expected, "{settings} {failing:?}");
        }
    }

    #[test]
    fn what_was_found_is_believed_for_its_time_only() {
        let on = "general_settings: {background_health_checks: true}";
        let shared = Memory::default();
        assert_eq!(left(on, &shared, NOW_MS), "abc", "nothing was said yet");
        note(&shared, &["a".to_owned()], NOW_MS + 60_000);
        assert_eq!(left(on, &shared, NOW_MS + 59_999), "bc");
        assert_eq!(left(on, &shared, NOW_MS + 60_000), "abc");
        note(&shared, &["a".to_owned()], NOW_MS + 90_000);
        assert_eq!(left(on, &shared, NOW_MS + 60_000), "bc", "said again");
        note(&shared, &[], NOW_MS + 90_000);
        assert_eq!(left(on, &shared, NOW_MS), "abc", "passes again");
    }

    #[test]
    fn what_is_kept_is_bounded_and_not_written_without_need() {
        let shared = Memory::default();
        let version = |shared: &Memory| shared.get(KEY).map_or(0, |(_, version): (_, Version)| version);
        note(&shared, &[], 1);
        assert_eq!(version(&shared), 0);
        let many: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        note(&shared, &many, NOW_MS);
        let stored = shared.get(KEY).unwrap().0;
        assert_eq!(split(&stored).1.split(|&byte| byte == b'\n').count(), MOST);
        note(&shared, &many, NOW_MS + 250);
        assert_eq!(version(&shared), 1);
        note(&shared, &many, NOW_MS + RENEW_MS);
        assert_eq!(version(&shared), 2);
    }
}

//! Groups in the order they are to be tried: one, its fallbacks, and theirs.

use hashbrown::HashSet;
use serde_json::{Map, Value};

use super::{
    affinity, checks, cooldown,
    retries::{MOST, Rules},
    segment::{Segment, key},
    strategy,
    world::{Controls, RoutingInput, World},
};
use crate::core::{
    config::{Config, Resolved},
    error::{Error, RequestFault},
    model::{
        failure::Class,
        fallback::{Fallback, Fallbacks},
    },
};

/// However fallbacks are nested, a plan has no more groups than this.
pub(super) const MAX_SEGMENTS: usize = 32;

/// Of one list of fallbacks no more entries are looked at: a client may send any number of names that stand for nothing.
const MAX_ENTRIES: usize = 4 * MAX_SEGMENTS;

/// Which list of fallbacks a failure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FallbackKind {
    General,
    ContextWindow,
    ContentPolicy,
}

impl FallbackKind {
    /// The list that failures of a class have to themselves.
    pub(super) fn of(class: Class) -> Option<FallbackKind> {
        match class {
            Class::ContextWindowExceeded => Some(FallbackKind::ContextWindow),
            Class::ContentPolicyViolation => Some(FallbackKind::ContentPolicy),
            _ => None,
        }
    }
}

/// A chain of segments while it is being made.
pub(super) struct Chain<'c> {
    controls: &'c Controls,
    pub(super) segments: Vec<Segment>,
    /// [`key`]s of what is in the chain or was tried before it: nothing comes twice.
    seen: HashSet<String>,
    /// When the first of the deployments left out because they are cooling down is available again (Unix milliseconds).
    pub(super) available_at_ms: Option<u64>,
    /// Why deployments of the group asked for that do not rest were left out, all of them.
    pub(super) why: Option<Error>,
    /// How many segments may be added.
    room: usize,
}

impl<'c> Chain<'c> {
    /// An empty chain that skips what was tried already.
    pub(super) fn new(controls: &'c Controls, tried: &[Segment]) -> Chain<'c> {
        let mut seen = HashSet::new();
        for segment in tried {
            seen.insert(segment.key());
            if segment.overrides.is_empty() {
                seen.insert(segment.group.clone());
            }
        }
        let room = MAX_SEGMENTS.saturating_sub(tried.len());
        Chain { controls, segments: Vec::new(), seen, available_at_ms: None, why: None, room }
    }

    /// Adds a group and, after it, its fallbacks. An error means that the name stands for nothing that can be called.
    pub(super) fn group(&mut self, entry: &Fallback, depth: u32, world: &mut World) -> Result<(), Error> {
        if self.room == 0 || !self.seen.insert(key(&entry.model, &entry.overrides)) {
            return Ok(());
        }
        let resolved = resolve(world.config, &entry.model, &self.controls.call)?;
        let group = resolved.group.clone();
        if entry.overrides.is_empty() {
            self.seen.insert(group.clone());
        }
        let failure = self.segment(resolved, entry, depth, world);
        // A prompt that is too long for the whole group goes where such failures go.
        let own_list = depth == 0 && self.controls.fallbacks.is_some();
        let kind = failure.and_then(FallbackKind::of).filter(|_| !own_list);
        let kind = kind.filter(|&kind| special(self.controls, world.config, kind).is_some());
        self.fallbacks([&entry.model, &group], depth, kind.unwrap_or(FallbackKind::General), world);
        Ok(())
    }

    /// Adds the fallbacks of a group for one kind of failure, each with its own general fallbacks after it.
    pub(super) fn fallbacks(&mut self, names: [&str; 2], depth: u32, kind: FallbackKind, world: &mut World) {
        let config = world.config;
        for entry in fallbacks(self.controls, config, names, depth, kind) {
            // A fallback that names nothing callable is skipped: it must not take the others down with it.
            let depth = depth.saturating_add(1);
            if let Err(why) = self.group(entry, depth, world) {
                world.tell(|trace| trace.skip(&entry.model, depth, &why));
            }
        }
    }

    /// Adds one group's segment, unless all of its deployments rest, are used up or may not take the call. Then it says how
    /// that is to be taken.
    fn segment(
        &mut self,
        resolved: Resolved,
        entry: &Fallback,
        depth: u32,
        world: &mut World,
    ) -> Option<Class> {
        let config = world.config;
        world.tell(|trace| trace.visit(&entry.model, &resolved, depth, config));
        // A request for one deployment by its id wants that one, however it fares. An id that is a group's name too says less.
        let is_group = config.groups.contains_key(&resolved.requested);
        let by_id = !is_group
            && resolved
                .deployments
                .first()
                .and_then(|&at| config.deployments.get(at))
                .is_some_and(|deployment| deployment.id == resolved.requested);
        let mut healthy = Vec::with_capacity(resolved.deployments.len());
        for &at in &resolved.deployments {
            let Some(deployment) = config.deployments.get(at) else { continue };
            let call = &self.controls.call;
            let is_foreign = deployment.choice.team.is_some() && deployment.choice.team != call.team;
            if is_foreign && !(by_id && call.any_team) {
                world.tell(|trace| trace.note(at, "is another team's"));
                continue;
            }
            match cooldown::cooling_down_until(world.shared, deployment, world.now_ms).filter(|_| !by_id) {
                None => healthy.push(at),
                Some(until) => {
                    self.available_at_ms =
                        Some(self.available_at_ms.map_or(until, |first: u64| first.min(until)));
                    let seconds = until.saturating_sub(world.now_ms).div_ceil(1_000);
                    world.tell(|trace| trace.note(at, format!("rests after failures, {seconds} s more")));
                }
            }
        }
        if healthy.is_empty() {
            return None;
        }
        checks::prefer_passing(&mut healthy, world);
        let ordered = match by_id {
            true => Ok(healthy),
            false => strategy::order(healthy, &resolved.group, &self.controls.call, world),
        };
        let mut order = match ordered {
            Ok(order) => order,
            Err(why) => {
                world.tell(|trace| trace.pass_over(&why));
                let class = why.class();
                if depth == 0 {
                    self.why = Some(why);
                }
                return class;
            }
        };
        if order.len() > 1 {
            affinity::prefer(world.shared, &self.controls.call.cached, &mut order, config, world.now_ms);
        }
        let rules =
            Rules { config, asked: self.controls.num_retries, names: [&entry.model, &resolved.group] };
        let attempts = rules.most(&order).saturating_add(1);
        world.tell(|trace| trace.settle(&order, attempts));
        self.room = self.room.saturating_sub(1);
        self.segments.push(Segment {
            name: entry.model.clone(),
            group: resolved.group,
            requested: resolved.requested,
            captures: resolved.captures,
            order,
            attempts,
            group_size: resolved.deployments.len(),
            overrides: entry.overrides.clone(),
            depth,
        });
        None
    }
}

/// The fallbacks of a group, for one kind of failure.
pub(super) fn fallbacks<'a>(
    controls: &'a Controls,
    config: &'a Config,
    names: [&str; 2],
    depth: u32,
    kind: FallbackKind,
) -> impl Iterator<Item = &'a Fallback> + use<'a> {
    all_fallbacks(controls, config, names, depth, kind).iter().take(MAX_ENTRIES)
}

fn all_fallbacks<'a>(
    controls: &'a Controls,
    config: &'a Config,
    names: [&str; 2],
    depth: u32,
    kind: FallbackKind,
) -> &'a [Fallback] {
    if controls.disable_fallbacks || depth >= config.router.max_fallbacks {
        return &[];
    }
    if let (0, FallbackKind::General, Some(list)) = (depth, kind, &controls.fallbacks) {
        return list;
    }
    let found = match kind {
        FallbackKind::General => {
            let map = controls.group_fallbacks.as_ref().unwrap_or(&config.router.fallbacks);
            let bare = |name: &str| name.split_once('/').and_then(|(_, rest)| map.get(rest));
            let exact = names.iter().find_map(|name| map.get(*name));
            exact.or_else(|| names.iter().find_map(|name| bare(name))).or_else(|| map.get("*"))
        }
        FallbackKind::ContextWindow | FallbackKind::ContentPolicy => {
            special(controls, config, kind).and_then(|map| names.iter().find_map(|name| map.get(*name)))
        }
    };
    found.map(Vec::as_slice).unwrap_or_default()
}

/// The table that failures of a kind have to themselves, if there is one. Where there is, the general fallbacks are not
/// theirs.
pub(super) fn special<'a>(
    controls: &'a Controls,
    config: &'a Config,
    kind: FallbackKind,
) -> Option<&'a Fallbacks> {
    match kind {
        FallbackKind::General => None,
        FallbackKind::ContextWindow => {
            controls.context_window_fallbacks.as_ref().or(config.router.context_window_fallbacks.as_ref())
        }
        FallbackKind::ContentPolicy => {
            controls.content_policy_fallbacks.as_ref().or(config.router.content_policy_fallbacks.as_ref())
        }
    }
}

/// Everything that a call of one model can lead to, whatever fails how.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// The most attempts it can take: as no group comes twice, those of all groups together.
    pub(super) attempts: u32,
    /// The deployments it may call, each with the model that it would be asked for where its own holds `*`.
    pub(super) deployments: Vec<(usize, String)>,
}

impl Reach {
    /// Adds deployments that serve a name (`requested`, with what its wildcard's `*`s stand for).
    pub(super) fn extend(
        &mut self,
        deployments: &[usize],
        (requested, captures): (&str, &[String]),
        config: &Config,
    ) {
        let model = |at: &usize| {
            let any = config.deployments.get(*at).filter(|deployment| deployment.has_any_model());
            any.map_or_else(String::new, |deployment| {
                let captures: Vec<&str> = captures.iter().map(String::as_str).collect();
                deployment.model_for(requested, &captures)
            })
        };
        self.deployments.extend(deployments.iter().map(|at| (*at, model(at))));
    }
}

/// What a call of `model` can lead to, by any kind of fallback.
pub(super) fn reach(controls: &Controls, config: &Config, model: &str) -> Reach {
    let plain = Map::new();
    let mut seen: HashSet<String> = HashSet::from_iter([key(model, &plain)]);
    let mut level: Vec<(&str, &Map<String, Value>)> = vec![(model, &plain)];
    let mut reach = Reach::default();
    let mut depth = 0_u32;
    while !level.is_empty() {
        let mut deeper = Vec::new();
        for (name, _) in level {
            let Ok(resolved) = resolve(config, name, &controls.call) else { continue };
            let names = [name, resolved.group.as_str()];
            let rules = Rules { config, asked: controls.num_retries, names };
            reach.attempts =
                reach.attempts.saturating_add(rules.most(&resolved.deployments)).saturating_add(1);
            reach.extend(&resolved.deployments, (&resolved.requested, &resolved.captures), config);
            for kind in [FallbackKind::General, FallbackKind::ContextWindow, FallbackKind::ContentPolicy] {
                for entry in fallbacks(controls, config, names, depth, kind) {
                    if seen.insert(key(&entry.model, &entry.overrides)) {
                        deeper.push((entry.model.as_str(), &entry.overrides));
                    }
                    if seen.len() > MAX_SEGMENTS {
                        // A plan does not get longer than this.
                        reach.attempts =
                            u32::try_from(MAX_SEGMENTS).unwrap_or(u32::MAX).saturating_mul(MOST + 1);
                        return reach;
                    }
                }
            }
        }
        level = deeper;
        depth = depth.saturating_add(1);
    }
    reach
}

/// The deployments a name stands for.
fn resolve(config: &Config, model: &str, call: &RoutingInput) -> Result<Resolved, Error> {
    // What is another team's is nothing for this caller; the master key may ask for one by its id.
    let is_open = |resolved: &Resolved| {
        resolved.deployments.iter().filter_map(|&at| config.deployments.get(at)).any(|deployment| {
            let is_own = deployment.choice.team.is_none() || deployment.choice.team == call.team;
            is_own || (call.any_team && deployment.id == resolved.requested)
        })
    };
    match config.resolve_for(model, call.team.as_deref()) {
        Some(resolved) if is_open(&resolved) => Ok(resolved),
        _ => match config.why_unavailable(model) {
            Some(reason) => Err(Error::bad_request(format!("model `{model}` cannot be called: {reason}"))),
            None => Err(unknown_model("/chat/completions", model)),
        },
    }
}

/// The refusal of a name that is no model, with the Python form of LiteLLM's detail map.
pub fn unknown_model(path: &str, model: &str) -> Error {
    Error::of(
        RequestFault::UnknownModel,
        format!(
            "{{'error': '{path}: Invalid model name passed in model={model}. Call `/v1/models` to view available models for your key.'}}"
        ),
    )
}

//! The plan of one request: what it may try, in which order, and where to go after a failure.
//!
//! A plan is a chain of [`Segment`]s, one per model group: the group asked for, then its fallbacks. Within a segment the
//! deployments come in the order the strategy drew, each retry taking the next one. [`Plan::following`] tells, before an
//! attempt is made, what comes after it if it just fails (Envoy reads that without asking again, because a refused
//! connection never comes back to us). [`Plan::advance`] decides after a failure whose class is known; a context-window or
//! content-policy error replaces the rest of the chain by the fallbacks configured for it.

use std::rc::Rc;

use hashbrown::HashSet;
use serde_json::Value;

use crate::core::{
    config::{Config, Fallback, Fallbacks, Resolved},
    error::{Class, Error},
    random::Random,
    route::{cooldown, pick},
    shared::Shared,
};

/// However fallbacks are nested, a plan has no more groups than this.
const MAX_SEGMENTS: usize = 32;

/// What planning needs to know of the world.
pub struct World<'w> {
    /// The configuration.
    pub config: &'w Config,
    /// Cooldowns of all workers.
    pub shared: &'w dyn Shared,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Chance.
    pub random: &'w mut Random,
}

/// What the client may say about routing, out of its request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Controls {
    /// `num_retries`.
    pub num_retries: Option<u32>,
    /// `fallbacks` as a list of names or parameter maps: used for every kind of error.
    pub fallbacks: Option<Vec<Fallback>>,
    /// `fallbacks` as router-style maps: in place of the configured ones.
    pub group_fallbacks: Option<Fallbacks>,
    /// `context_window_fallbacks`.
    pub context_window_fallbacks: Option<Fallbacks>,
    /// `content_policy_fallbacks`.
    pub content_policy_fallbacks: Option<Fallbacks>,
    /// `disable_fallbacks`.
    pub disable_fallbacks: bool,
}

/// One model group of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The group's name (`x-litellm-model-group`).
    pub group: String,
    /// The name that was asked for, which fills wildcards.
    pub requested: String,
    /// What the `*`s of a wildcard group stand for.
    pub captures: Vec<String>,
    /// Deployments that may be called, in the order they are to be tried.
    pub order: Vec<usize>,
    /// How many attempts may be made, the first included.
    pub attempts: u32,
    /// How many deployments the group has, resting ones included.
    pub group_size: usize,
    /// Request members to replace in this segment.
    pub overrides: serde_json::Map<String, Value>,
    /// 0 for the group asked for, 1 for its fallbacks, 2 for theirs.
    pub depth: u32,
}

/// A deployment and its place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index into [`Config::deployments`].
    pub deployment: usize,
    segment: usize,
    attempt: u32,
}

/// The plan.
#[derive(Clone, Debug)]
pub struct Plan {
    segments: Vec<Segment>,
    controls: Rc<Controls>,
    current: Candidate,
    /// Attempts that a jump to another chain may add, for [`Plan::max_retries`].
    jump_attempts: u32,
    /// Deployments that a jump from the first group may lead to.
    jump_deployments: Vec<usize>,
}

impl Candidate {
    /// Whether both are attempts on the same group.
    pub fn is_same_group(self, other: Candidate) -> bool {
        self.segment == other.segment
    }
}

impl Plan {
    /// Plans a call of `model`.
    pub fn new(model: &str, controls: Controls, world: &mut World) -> Result<Plan, Error> {
        let controls = Rc::new(controls);
        let mut chain =
            Chain { controls: &controls, segments: Vec::new(), seen: HashSet::new(), resting: None };
        chain.group(&Fallback { model: model.to_owned(), ..Fallback::default() }, 0, Kind::General, world)?;
        let resting = chain.resting;
        let segments = chain.segments;
        let Some(first) = segments.first() else { return Err(none_available(model, resting, world.now_ms)) };
        let Some(&deployment) = first.order.first() else {
            return Err(none_available(model, resting, world.now_ms));
        };
        let jumps = [Kind::ContextWindow, Kind::ContentPolicy]
            .map(|kind| jump(&controls, &first.group, first.depth, kind, world));
        let jump_attempts =
            jumps.iter().map(|chain| chain.iter().map(|s| s.attempts).sum::<u32>()).max().unwrap_or(0);
        let jump_deployments = jumps.iter().flatten().flat_map(|segment| segment.order.clone()).collect();
        let current = Candidate { deployment, segment: 0, attempt: 0 };
        Ok(Plan { segments, controls, current, jump_attempts, jump_deployments })
    }

    /// What is being tried.
    pub fn current(&self) -> Candidate {
        self.current
    }

    /// The segment of a candidate.
    pub fn segment_of(&self, candidate: Candidate) -> Option<&Segment> {
        self.segments.get(candidate.segment)
    }

    /// Every deployment that may be tried.
    pub fn deployments(&self) -> impl Iterator<Item = usize> {
        let planned = self.segments.iter().flat_map(|segment| &segment.order);
        planned.chain(&self.jump_deployments).copied()
    }

    /// The groups in order, the one asked for first.
    pub fn groups(&self) -> Vec<&str> {
        self.segments.iter().map(|segment| segment.group.as_str()).collect()
    }

    /// The segment being tried.
    pub fn segment(&self) -> Option<&Segment> {
        self.segments.get(self.current.segment)
    }

    /// How many attempts there can be after the first: what Envoy must be told.
    pub fn max_retries(&self) -> u32 {
        let planned: u32 = self.segments.iter().map(|segment| segment.attempts).sum();
        planned.saturating_sub(1).saturating_add(self.jump_attempts)
    }

    /// What comes after the current candidate when it fails in a way that says nothing more: the next attempt of its
    /// segment, else the next segment.
    pub fn following(&self) -> Option<Candidate> {
        self.next_attempt().or_else(|| self.next_segment())
    }

    /// Goes on to a candidate that [`Plan::following`] named.
    pub fn take(&mut self, candidate: Candidate) {
        self.current = candidate;
    }

    /// Goes on after a failure of `class`. `None`: there is nothing left to try, the failure is the client's to see.
    pub fn advance(&mut self, class: Class, world: &mut World) -> Option<Candidate> {
        let next = match class {
            Class::ContextWindowExceeded => self.jump_or_fall_back(Kind::ContextWindow, world),
            Class::ContentPolicyViolation => self.jump_or_fall_back(Kind::ContentPolicy, world),
            // The same request fails the same way on every deployment of the group.
            Class::BadRequest | Class::UnsupportedParams | Class::UnprocessableEntity | Class::NotFound => {
                self.next_segment()
            }
            Class::Authentication | Class::PermissionDenied => {
                self.next_attempt_elsewhere().or_else(|| self.next_segment())
            }
            Class::RateLimit if self.has_more_segments() => {
                self.next_attempt_elsewhere().or_else(|| self.next_segment())
            }
            _ => self.following(),
        };
        let next = next.map(|candidate| self.awake(candidate, world))?;
        self.current = next;
        Some(next)
    }

    /// Goes on as if the whole group had failed with `class` (`mock_testing_*`).
    pub fn abandon_group(&mut self, class: Class, world: &mut World) -> Option<Candidate> {
        match class {
            Class::ContextWindowExceeded | Class::ContentPolicyViolation => self.advance(class, world),
            _ => {
                self.current = self.next_segment()?;
                Some(self.current)
            }
        }
    }

    /// The next attempt in the segment; the order starts over when there are more attempts than deployments.
    fn next_attempt(&self) -> Option<Candidate> {
        let segment = self.segments.get(self.current.segment)?;
        let attempt = self.current.attempt.saturating_add(1);
        if attempt >= segment.attempts || segment.order.is_empty() {
            return None;
        }
        let deployment = *segment.order.get(attempt as usize % segment.order.len())?;
        Some(Candidate { deployment, segment: self.current.segment, attempt })
    }

    /// The next attempt, if it is one on another deployment.
    fn next_attempt_elsewhere(&self) -> Option<Candidate> {
        self.next_attempt().filter(|next| next.deployment != self.current.deployment)
    }

    fn next_segment(&self) -> Option<Candidate> {
        let segment = self.current.segment.checked_add(1)?;
        let deployment = *self.segments.get(segment)?.order.first()?;
        Some(Candidate { deployment, segment, attempt: 0 })
    }

    fn has_more_segments(&self) -> bool {
        self.segments.len() > self.current.segment.saturating_add(1)
    }

    /// Prefers, within the candidate's segment, a deployment that no other request has sent to rest meanwhile.
    fn awake(&self, candidate: Candidate, world: &World) -> Candidate {
        let Some(segment) = self.segments.get(candidate.segment) else { return candidate };
        let awake = |at: &usize| {
            let deployment = world.config.deployments.get(*at);
            deployment.is_some_and(|d| cooldown::resting_until(world.shared, d, world.now_ms).is_none())
        };
        let turn = candidate.attempt as usize;
        let found = (0..segment.order.len())
            .filter_map(|step| segment.order.get(turn.wrapping_add(step) % segment.order.len()))
            .find(|at| awake(at));
        Candidate { deployment: found.copied().unwrap_or(candidate.deployment), ..candidate }
    }

    /// Fallbacks for a context-window or content-policy error: its own list when one is configured at all (and nothing
    /// else then, not even the general fallbacks), else the general ones.
    fn jump_or_fall_back(&mut self, kind: Kind, world: &mut World) -> Option<Candidate> {
        if !is_configured(&self.controls, world.config, kind) {
            return self.next_segment();
        }
        let here = self.segments.get(self.current.segment)?;
        let chain = jump(&self.controls, &here.group, here.depth, kind, world);
        let deployment = *chain.first()?.order.first()?;
        self.segments.truncate(self.current.segment.saturating_add(1));
        self.segments.extend(chain);
        let segment = self.current.segment.saturating_add(1);
        Some(Candidate { deployment, segment, attempt: 0 })
    }
}

/// Which list of fallbacks a failure asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    General,
    ContextWindow,
    ContentPolicy,
}

/// A chain of segments while it is being made.
struct Chain<'c> {
    controls: &'c Controls,
    segments: Vec<Segment>,
    seen: HashSet<String>,
    /// When the first resting deployment that was left out wakes.
    resting: Option<u64>,
}

impl Chain<'_> {
    /// Adds a group and, after it, its fallbacks.
    fn group(&mut self, entry: &Fallback, depth: u32, kind: Kind, world: &mut World) -> Result<(), Error> {
        if self.segments.len() >= MAX_SEGMENTS || !self.seen.insert(entry.model.clone()) {
            return Ok(());
        }
        let resolved = resolve(world.config, &entry.model)?;
        let group = resolved.group.clone();
        self.seen.insert(group.clone());
        self.segment(resolved, entry, depth, world);
        if depth >= world.config.router.max_fallbacks {
            return Ok(());
        }
        for next in self.fallbacks(&group, depth, kind, world.config) {
            // A fallback that names nothing callable is skipped: it must not take the others down with it.
            let _ = self.group(&next, depth + 1, kind, world);
        }
        Ok(())
    }

    /// Adds one group's segment unless all of its deployments rest.
    fn segment(&mut self, resolved: Resolved, entry: &Fallback, depth: u32, world: &mut World) {
        let config = world.config;
        let mut healthy = Vec::with_capacity(resolved.deployments.len());
        for &at in &resolved.deployments {
            let Some(deployment) = config.deployments.get(at) else { continue };
            match cooldown::resting_until(world.shared, deployment, world.now_ms) {
                None => healthy.push(at),
                Some(until) => self.resting = Some(self.resting.map_or(until, |first: u64| first.min(until))),
            }
        }
        let order = if healthy.len() < 2 {
            healthy
        } else {
            pick::shuffle(&config.deployments, &healthy, world.random)
        };
        let Some(first) = order.first().and_then(|&at| config.deployments.get(at)) else { return };
        let retries = self.controls.num_retries.or(first.num_retries).unwrap_or(config.router.num_retries);
        self.segments.push(Segment {
            group: resolved.group,
            requested: resolved.requested,
            captures: resolved.captures,
            order,
            attempts: retries.saturating_add(1),
            group_size: resolved.deployments.len(),
            overrides: entry.overrides.clone(),
            depth,
        });
    }

    /// The fallbacks of a group, for one kind of failure.
    fn fallbacks(&self, group: &str, depth: u32, kind: Kind, config: &Config) -> Vec<Fallback> {
        if self.controls.disable_fallbacks {
            return Vec::new();
        }
        if let (0, Kind::General, Some(list)) = (depth, kind, &self.controls.fallbacks) {
            return list.clone();
        }
        match kind {
            Kind::General => {
                let map = self.controls.group_fallbacks.as_ref().unwrap_or(&config.router.fallbacks);
                let bare = group.split_once('/').map(|(_, rest)| rest);
                map.get(group)
                    .or_else(|| bare.and_then(|bare| map.get(bare)))
                    .or_else(|| map.get("*"))
                    .cloned()
                    .unwrap_or_default()
            }
            Kind::ContextWindow | Kind::ContentPolicy => special(self.controls, config, kind)
                .and_then(|map| map.get(group))
                .cloned()
                .unwrap_or_default(),
        }
    }
}

/// The chain that a context-window or content-policy error in `group` leads to.
fn jump(controls: &Controls, group: &str, depth: u32, kind: Kind, world: &mut World) -> Vec<Segment> {
    if !is_configured(controls, world.config, kind) {
        return Vec::new();
    }
    let mut chain =
        Chain { controls, segments: Vec::new(), seen: HashSet::from_iter([group.to_owned()]), resting: None };
    let list = match &controls.fallbacks {
        Some(list) => list.clone(),
        None => chain.fallbacks(group, depth, kind, world.config),
    };
    for entry in list {
        let _ = chain.group(&entry, depth.saturating_add(1), kind, world);
    }
    chain.segments
}

/// Whether a list for this kind of failure exists at all. A client's own list of fallbacks serves every kind.
fn is_configured(controls: &Controls, config: &Config, kind: Kind) -> bool {
    !controls.disable_fallbacks && (controls.fallbacks.is_some() || special(controls, config, kind).is_some())
}

fn special<'a>(controls: &'a Controls, config: &'a Config, kind: Kind) -> Option<&'a Fallbacks> {
    match kind {
        Kind::General => None,
        Kind::ContextWindow => {
            controls.context_window_fallbacks.as_ref().or(config.router.context_window_fallbacks.as_ref())
        }
        Kind::ContentPolicy => {
            controls.content_policy_fallbacks.as_ref().or(config.router.content_policy_fallbacks.as_ref())
        }
    }
}

/// The deployments a name stands for.
fn resolve(config: &Config, model: &str) -> Result<Resolved, Error> {
    match config.resolve(model) {
        Some(resolved) if !resolved.deployments.is_empty() => Ok(resolved),
        _ => match config.why_unavailable(model) {
            Some(reason) => Err(Error::bad_request(format!("model `{model}` cannot be called: {reason}"))),
            None => Err(Error::new(400, unknown_model(model))),
        },
    }
}

/// LiteLLM's text for a name that is no model, the Python form of its detail map included.
fn unknown_model(model: &str) -> String {
    format!(
        "{{'error': '/chat/completions: Invalid model name passed in model={model}. Call `/v1/models` to view available models for your key.'}}"
    )
}

fn none_available(model: &str, resting: Option<u64>, now_ms: u64) -> Error {
    let wait = resting.map_or(0, |until| until.saturating_sub(now_ms).div_ceil(1_000));
    let mut error = Error::provider(
        Class::RateLimit,
        format!(
            "No deployments available for selected model, Try again in {wait} seconds. Passed model={model}. \
             pre-call-checks=False"
        ),
    );
    error.kind = None;
    error.with_header("retry-after", wait.to_string())
}

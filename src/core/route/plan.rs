//! The plan of one request: what it may try, in which order, and where to go after a failure.
//!
//! A plan is a chain of [`Segment`]s, one per model group: the group asked for, then its fallbacks, each followed by its own.
//! Within a segment the deployments come in the order the strategy drew, each retry taking the next one. [`Plan::following`]
//! tells, before an attempt is made, what comes after it if it just fails (Envoy reads that without asking again, because a
//! refused connection never comes back to us). [`Plan::advance`] decides after a failure whose class is known; a
//! context-window or content-policy error puts the fallbacks configured for it in place of the group's general ones.

use std::rc::Rc;

use super::{
    affinity,
    chain::{self, Chain, FallbackKind, MAX_SEGMENTS, Reach},
    refusals::none_available,
    retries::Rules,
    segment::Segment,
    world::{Controls, World},
};
use crate::core::{
    config::Config,
    error::Error,
    model::{failure::Class, fallback::Fallback, status::Status},
};

/// A deployment and its place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index into [`Config::deployments`].
    pub deployment: usize,
    segment: usize,
    /// Retries used in the segment before this attempt.
    attempt: u32,
}

impl Candidate {
    /// Whether both are attempts on the same group.
    pub fn is_same_group(self, other: Candidate) -> bool {
        self.segment == other.segment
    }
}

/// The plan.
#[derive(Clone, Debug)]
pub struct Plan {
    asked: String,
    segments: Vec<Segment>,
    controls: Rc<Controls>,
    current: Candidate,
    reach: Rc<Reach>,
}

impl Plan {
    /// Plans a call of `model`.
    pub fn new(model: &str, controls: Controls, world: &mut World) -> Result<Plan, Error> {
        let controls = Rc::new(controls);
        let mut chain = Chain::new(&controls, &[]);
        chain.group(&Fallback { model: model.to_owned(), ..Fallback::default() }, 0, world)?;
        let (segments, available_at_ms) = (chain.segments, chain.available_at_ms);
        let Some(&deployment) = segments.first().and_then(|first| first.order.first()) else {
            return Err(chain.why.unwrap_or_else(|| none_available(model, available_at_ms, world.now_ms)));
        };
        let special = |kind| chain::special(&controls, world.config, kind).is_some();
        let jumps = special(FallbackKind::ContextWindow) || special(FallbackKind::ContentPolicy);
        let reach = if jumps && !controls.disable_fallbacks {
            chain::reach(&controls, world.config, model)
        } else {
            let mut reach =
                Reach { attempts: segments.iter().map(|segment| segment.attempts).sum(), ..Reach::default() };
            for segment in &segments {
                reach.extend(&segment.order, (&segment.requested, &segment.captures), world.config);
            }
            reach
        };
        let current = Candidate { deployment, segment: 0, attempt: 0 };
        Ok(Plan { asked: model.to_owned(), segments, controls, current, reach: Rc::new(reach) })
    }

    /// What the prompt is known by once it is cached.
    pub fn cached(&self) -> Option<affinity::Fingerprint> {
        self.controls.call.cached.first().copied()
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
        self.reach.deployments.iter().map(|(at, _)| *at)
    }

    /// Every deployment that may be tried, with the model that would be asked for where its own holds `*`; else that is empty.
    pub fn reached(&self) -> impl Iterator<Item = (usize, &str)> {
        self.reach.deployments.iter().map(|(at, model)| (*at, model.as_str()))
    }

    /// The name that was asked for.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// The names of the fallbacks in order, tried or not.
    pub fn fallbacks(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter(|segment| segment.depth > 0).map(|segment| segment.name.as_str())
    }

    /// The segment being tried.
    pub fn segment(&self) -> Option<&Segment> {
        self.segments.get(self.current.segment)
    }

    /// The most attempts that there can be after the first: what Envoy must be told.
    pub fn max_retries(&self) -> u32 {
        self.reach.attempts.saturating_sub(1)
    }

    /// What comes after the current candidate when no response comes: the next attempt of its segment, else the next segment.
    ///
    /// Whether a connection will be refused or time out cannot be told beforehand, so both have the retries of a timeout.
    pub fn following(&self, config: &Config, has_room: &mut dyn FnMut(usize) -> bool) -> Option<Candidate> {
        let next = self.next_attempt(Class::Timeout, config, &mut *has_room);
        next.or_else(|| self.next_segment(has_room))
    }

    /// Goes to the first deployment of the current group, from the current one on, that lets the attempt in.
    pub fn enter(&mut self, admits: &mut dyn FnMut(usize) -> bool) -> Option<Candidate> {
        let order = &self.segment()?.order;
        let here = order.iter().position(|&at| at == self.current.deployment).unwrap_or(0);
        let mut turns = order.iter().cycle().skip(here).take(order.len()).copied();
        self.current.deployment = turns.find(|&at| admits(at))?;
        Some(self.current)
    }

    /// Goes on to a candidate that [`Plan::following`] named.
    pub fn take(&mut self, candidate: Candidate) {
        self.current = candidate;
    }

    /// Goes on after a failure of `class` (`status` is the provider's own, 0 when there was none), to a deployment that lets
    /// the attempt in. `None`: there is nothing left to try, the failure is the client's to see.
    pub fn advance(
        &mut self,
        class: Class,
        status: Option<Status>,
        world: &mut World,
        admits: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Candidate> {
        let retry = match self.special(class, world.config) {
            Some(_) => None,
            None => self.retry(class, status, world, admits),
        };
        match retry {
            Some(next) => {
                self.current = next;
                Some(next)
            }
            None => self.abandon_group(class, world, admits),
        }
    }

    /// Goes on as if the whole group had failed with `class`: to its fallbacks, or past them.
    pub fn abandon_group(
        &mut self,
        class: Class,
        world: &mut World,
        admits: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Candidate> {
        if let Some(kind) = self.special(class, world.config) {
            self.jump(kind, world);
        }
        let next = self.next_segment(|at| world.is_available(at) && admits(at))?;
        self.current = next;
        Some(next)
    }

    /// Whether a response that a content filter has cut is a failure: when the group has a fallback for it, or, without any
    /// such list, everything has one.
    pub fn minds_content_filter(&self, config: &Config) -> bool {
        let Some(segment) = self.segment().filter(|_| !self.controls.disable_fallbacks) else { return false };
        match chain::special(&self.controls, config, FallbackKind::ContentPolicy) {
            Some(map) => map.contains_key(&segment.name) || map.contains_key(&segment.group),
            None => config.router.fallbacks.contains_key("*"),
        }
    }

    /// The next attempt on the group, on a deployment that no request has sent to rest meanwhile.
    fn retry(
        &self,
        class: Class,
        status: Option<Status>,
        world: &World,
        admits: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Candidate> {
        let segment = self.segment()?;
        if !self.rules(segment, world.config).is_retried(class, status, segment.group_size) {
            return None;
        }
        // A key that was refused is refused again.
        let elsewhere = matches!(class, Class::Authentication | Class::PermissionDenied);
        self.next_attempt(class, world.config, |at| {
            (!elsewhere || at != self.current.deployment) && world.is_available(at) && admits(at)
        })
    }

    /// The next attempt in the segment, on the next deployment that will do; the order starts over when there are more
    /// attempts than deployments.
    fn next_attempt(
        &self,
        class: Class,
        config: &Config,
        mut will_do: impl FnMut(usize) -> bool,
    ) -> Option<Candidate> {
        let segment = self.segment()?;
        if self.current.attempt >= self.rules(segment, config).allowed(class, self.current.deployment) {
            return None;
        }
        let order = &segment.order;
        let here = order.iter().position(|&at| at == self.current.deployment).unwrap_or(0);
        let mut turns = order.iter().cycle().skip(here.saturating_add(1)).take(order.len()).copied();
        let deployment = turns.find(|&at| will_do(at))?;
        Some(Candidate { deployment, attempt: self.current.attempt.saturating_add(1), ..self.current })
    }

    /// The first attempt on the next group that has a deployment that will do.
    fn next_segment(&self, mut will_do: impl FnMut(usize) -> bool) -> Option<Candidate> {
        let later = self.segments.iter().enumerate().skip(self.current.segment.saturating_add(1));
        later.into_iter().find_map(|(at, segment)| {
            let deployment = segment.order.iter().copied().find(|&at| will_do(at))?;
            Some(Candidate { deployment, segment: at, attempt: 0 })
        })
    }

    fn rules<'r>(&self, segment: &'r Segment, config: &'r Config) -> Rules<'r> {
        Rules { config, asked: self.controls.num_retries, names: [&segment.name, &segment.group] }
    }

    /// The list that a failure of `class` of the current group is to go by instead of the general fallbacks. A client's own
    /// list serves every kind of failure.
    fn special(&self, class: Class, config: &Config) -> Option<FallbackKind> {
        let kind = FallbackKind::of(class)?;
        let asked_group = self.segment().is_some_and(|segment| segment.depth == 0);
        let own_list = asked_group && self.controls.fallbacks.is_some();
        let applies = !self.controls.disable_fallbacks && !own_list;
        (applies && chain::special(&self.controls, config, kind).is_some()).then_some(kind)
    }

    /// Puts the fallbacks for a kind of failure in place of the current group's general ones. What follows for other groups'
    /// sake stays.
    fn jump(&mut self, kind: FallbackKind, world: &mut World) {
        let tried = self.current.segment.saturating_add(1).min(self.segments.len());
        let rest = self.segments.split_off(tried);
        let Some(here) = self.segments.last() else { return };
        let depth = here.depth;
        let mut chain = Chain::new(&self.controls, &self.segments);
        chain.fallbacks([&here.name, &here.group], depth, kind, world);
        let segments = chain.segments;
        let is_new = |segment: &Segment| !segments.iter().any(|other| other.key() == segment.key());
        let rest: Vec<Segment> =
            rest.into_iter().skip_while(|segment| segment.depth > depth).filter(is_new).collect();
        self.segments.extend(segments);
        self.segments.extend(rest);
        self.segments.truncate(MAX_SEGMENTS);
    }
}

#[cfg(test)]
mod tests;

//! Prompts that a provider keeps in its cache go to the deployment that has them (`optional_pre_call_checks: [prompt_caching]`).
//!
//! A prompt is known by the parts that its breakpoints (`cache_control`) end: tools, system text and the messages up to one.
//! The deployment that served it is remembered for five minutes, as long as providers keep it, in a table of a fixed size that
//! all workers share; a newer prompt may put out an older one, which only costs that one its cache.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::core::{codec::json::Object, config::Config, host::Store, model::deployment::Deployment, store};

/// What a prompt is known by.
pub type Fingerprint = [u8; 16];

/// How long a provider keeps a prompt.
const KEPT_MS: u64 = 300_000;
/// The table: so many values of so many entries.
const BUCKETS: u8 = 64;
const ENTRIES: usize = 32;
/// Fingerprint, until when, and the deployment's fingerprint.
const ENTRY: usize = 16 + 8 + 8;
/// Shorter prompts are not cached by providers: 1,024 tokens of about four bytes.
const SHORTEST: usize = 4_096;
/// Providers take so many breakpoints in one prompt.
const BREAKPOINTS: usize = 4;
/// The member that makes a part a breakpoint.
const BREAKPOINT: &str = "\"cache_control\"";

/// The fingerprints of the parts of a prompt that a breakpoint ends, the longest first; nothing when there is none, or all are
/// too short to be cached. Clients move their last breakpoint on with the conversation: what was cached the turn before is one
/// of the shorter ones.
pub fn fingerprints(body: &Object<'_>) -> Vec<Fingerprint> {
    let messages: Vec<&RawValue> = body.read("messages").unwrap_or_default();
    let before = [body.raw("tools"), body.raw("system")].into_iter().flatten();
    let mut fingerprints = VecDeque::with_capacity(BREAKPOINTS);
    let (mut sum, mut length) = (Sha256::new(), 0_usize);
    for part in before.chain(messages.iter().map(|message| message.get())) {
        sum.update(part.len().to_le_bytes());
        sum.update(part);
        length = length.saturating_add(part.len());
        if length < SHORTEST || !part.contains(BREAKPOINT) {
            continue;
        }
        fingerprints.truncate(BREAKPOINTS - 1);
        if let Some(fingerprint) = sum.clone().finalize().first_chunk() {
            fingerprints.push_front(*fingerprint);
        }
    }
    fingerprints.into()
}

/// Remembers the deployment that served a prompt.
pub fn note(shared: &dyn Store, fingerprint: Fingerprint, deployment: &Deployment, now_ms: u64) {
    store::update(shared, &key(fingerprint), |bytes| {
        let mut entries = decode(bytes);
        entries.retain(|entry| entry.fingerprint != fingerprint && entry.until_ms > now_ms);
        // The oldest makes room.
        let excess = (entries.len() + 1).saturating_sub(ENTRIES);
        entries.drain(..excess);
        entries.push(Entry {
            fingerprint,
            until_ms: now_ms.saturating_add(KEPT_MS),
            place: place(deployment),
        });
        (encode(&entries), ())
    });
}

/// Puts the deployment that has most of the prompt in front of the others.
pub fn prefer(
    shared: &dyn Store,
    fingerprints: &[Fingerprint],
    order: &mut [usize],
    config: &Config,
    now_ms: u64,
) {
    let known = fingerprints.iter().find_map(|fingerprint| {
        let (bytes, _) = shared.get(&key(*fingerprint))?;
        decode(Some(&bytes))
            .into_iter()
            .find(|entry| entry.fingerprint == *fingerprint && entry.until_ms > now_ms)
    });
    let Some(known) = known else { return };
    let is_it = |at: &usize| config.deployments.get(*at).is_some_and(|d| place(d) == known.place);
    if let Some(at) = order.iter().position(is_it)
        && let Some(front) = order.get_mut(..=at)
    {
        front.rotate_right(1);
    }
}

#[derive(Clone, Copy)]
struct Entry {
    fingerprint: Fingerprint,
    until_ms: u64,
    place: [u8; 8],
}

fn place(deployment: &Deployment) -> [u8; 8] {
    Sha256::digest(deployment.id.as_bytes()).first_chunk().copied().unwrap_or_default()
}

fn key(fingerprint: Fingerprint) -> String {
    let [first, ..] = fingerprint;
    format!("affinity/{}", first % BUCKETS)
}

fn decode(bytes: Option<&[u8]>) -> Vec<Entry> {
    let entries = bytes.unwrap_or_default().chunks_exact(ENTRY).filter_map(|chunk| {
        let (fingerprint, rest) = chunk.split_first_chunk()?;
        let (until, place) = rest.split_first_chunk()?;
        Some(Entry {
            fingerprint: *fingerprint,
            until_ms: u64::from_le_bytes(*until),
            place: place.try_into().ok()?,
        })
    });
    entries.collect()
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for entry in entries {
        bytes.extend_from_slice(&entry.fingerprint);
        bytes.extend_from_slice(&entry.until_ms.to_le_bytes());
        bytes.extend_from_slice(&entry.place);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::{config, store::Memory};

    fn fingerprints_of(body: &Value) -> Vec<Fingerprint> {
        fingerprints(&Object::parse(body.to_string().as_bytes()).unwrap())
    }

    fn fingerprint_of(body: &Value) -> Option<Fingerprint> {
        fingerprints_of(body).first().copied()
    }

    fn marked(text: &str) -> Value {
        json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
    }

    #[test]
    fn a_prompt_is_known_by_its_cached_part() {
        let long = "x".repeat(SHORTEST);
        let turn = |text: &str| json!({"role": "user", "content": text});
        let document = json!({"role": "user", "content": marked(&long)});
        let one = json!({"messages": [document, turn("first question")]});
        let fingerprint = fingerprint_of(&one).unwrap();
        // What comes behind the mark, and what is said beside the prompt, does not matter.
        for same in [
            json!({"messages": [document, turn("another question")]}),
            json!({"messages": [document, turn("q"), {"role": "assistant", "content": "a"}, turn("r")], "temperature": 1}),
        ] {
            assert_eq!(fingerprint_of(&same), Some(fingerprint), "{same:.80}");
        }
        for other in [
            json!({"system": "be brief", "messages": [document, turn("first question")]}),
            json!({"messages": [turn("hello"), document, turn("first question")]}),
            json!({"messages": [document, {"role": "user", "content": marked("more")}]}),
            json!({"system": marked(&long), "messages": [turn("first question")]}),
        ] {
            let got = fingerprint_of(&other);
            assert!(got.is_some() && got != Some(fingerprint), "{other:.80}");
        }
        for none in [
            json!({"messages": [turn(&long)]}),
            json!({"messages": [{"role": "user", "content": marked("short")}]}),
            json!({"messages": "nonsense", "input": long}),
            json!({}),
        ] {
            assert_eq!(fingerprint_of(&none), None, "{none:.80}");
        }
    }

    #[test]
    fn a_mark_that_moves_on_leaves_a_prompt_known() {
        let turn = |at: usize, is_marked: bool| {
            let text = format!("{at} {}", "x".repeat(SHORTEST));
            json!({"role": "user", "content": if is_marked { marked(&text) } else { json!(text) }})
        };
        let body = |turns: usize, marked: &[usize]| {
            let messages: Vec<Value> = (0..turns).map(|at| turn(at, marked.contains(&at))).collect();
            json!({"messages": messages})
        };
        // The last two of a client's turns are marked, so the next request has one mark of the one before.
        let (one, two) = (fingerprints_of(&body(3, &[0, 2])), fingerprints_of(&body(5, &[0, 2, 4])));
        assert_eq!((one.len(), two.len()), (2, 3));
        assert_eq!(two[1..], one);
        // Of many only the last are looked for.
        let many = fingerprints_of(&body(9, &[0, 1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!((many.len(), many[3]), (BREAKPOINTS, fingerprints_of(&body(9, &[0, 1, 2, 3, 4, 5]))[0]));
        let system = json!({"system": marked(&"x".repeat(SHORTEST)), "messages": [turn(0, true)]});
        assert_eq!(fingerprints_of(&system).len(), 2);
    }

    #[test]
    fn a_prompt_goes_to_who_has_it_for_five_minutes() {
        let yaml = "model_list:\n\
            - {model_name: g, litellm_params: {model: openai/a}, model_info: {id: a}}\n\
            - {model_name: g, litellm_params: {model: openai/b}, model_info: {id: b}}\n\
            - {model_name: g, litellm_params: {model: openai/c}, model_info: {id: c}}\n";
        let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
        let shared = Memory::default();
        let order = |fingerprint: Fingerprint, now_ms: u64| {
            let mut order = [0, 1, 2];
            prefer(&shared, &[[9; 16], fingerprint], &mut order, &config, now_ms);
            order
        };
        assert_eq!(order([1; 16], 1_000), [0, 1, 2]);
        note(&shared, [1; 16], &config.deployments[2], 1_000);
        assert_eq!(order([1; 16], 1_000 + KEPT_MS - 1), [2, 0, 1]);
        assert_eq!(order([1; 16], 1_000 + KEPT_MS), [0, 1, 2]);
        assert_eq!(order([65; 16], 1_000), [0, 1, 2], "another prompt of the same value");
        note(&shared, [1; 16], &config.deployments[1], 2_000);
        assert_eq!(order([1; 16], 2_000), [1, 0, 2], "who served it last");
        // A deployment that may not take the call is not put back.
        let mut left = [0, 2];
        prefer(&shared, &[[1; 16]], &mut left, &config, 2_000);
        assert_eq!(left, [0, 2]);
    }

    #[test]
    fn the_table_does_not_grow() {
        let yaml = "model_list: [{model_name: g, litellm_params: {model: openai/a}}]";
        let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
        let shared = Memory::default();
        for n in 0..20_000_u32 {
            let mut fingerprint = [0; 16];
            fingerprint[..4].copy_from_slice(&n.to_le_bytes());
            note(&shared, fingerprint, &config.deployments[0], 5);
        }
        for n in 0..BUCKETS {
            let (bytes, _) = shared.get(&format!("affinity/{n}")).unwrap();
            assert_eq!(bytes.len(), ENTRIES * ENTRY);
        }
    }
}

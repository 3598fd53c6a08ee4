//! Ids of calls as Anthropic takes them: of few letters, and each once in a conversation.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::core::format::chat::thought;

/// The ids of a conversation's calls, and what their results are to name. Other providers' ids have other letters or a signature in
/// them, and some count the calls of each response from 0.
#[derive(Debug, Default)]
pub(super) struct CallIds {
    given: HashSet<String>,
    /// By the id that a call had: the ids it was given, those without a result yet.
    open: HashMap<String, VecDeque<String>>,
}

impl CallIds {
    /// The id of one more call.
    pub(super) fn call(&mut self, id: String) -> String {
        let id = thought::without_signature(&id).0.to_owned();
        let mut own = fitting(&id);
        let mut times = 1_usize;
        while self.given.contains(&own) {
            times = times.max(self.given.len()).saturating_add(1);
            own = format!("{}_{times}", fitting(&id));
        }
        self.given.insert(own.clone());
        self.open.entry(id).or_default().push_back(own.clone());
        own
    }

    /// The id of the call that a result of `id` answers: of the first one that has none yet.
    pub(super) fn result(&mut self, id: &str) -> String {
        let (id, _) = thought::without_signature(id);
        self.open.get_mut(id).and_then(VecDeque::pop_front).unwrap_or_else(|| fitting(id))
    }
}

/// Whether Anthropic takes an id's letters.
pub(super) fn fits(id: &str) -> bool {
    id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// An id in the letters that Anthropic takes.
fn fitting(id: &str) -> String {
    if fits(id) {
        return id.to_owned();
    }
    id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_an_id_of_its_own_and_results_follow() {
        let mut ids = CallIds::default();
        let called: Vec<String> = ["0", "a:1", "a/1", "toolu_1"].map(|id| ids.call(id.to_owned())).to_vec();
        assert_eq!(called, ["0", "a_1", "a_1_3", "toolu_1"]);
        assert_eq!(["a/1", "0", "a:1"].map(|id| ids.result(id)), ["a_1_3", "0", "a_1"]);
        // The next response of a server that counts from 0.
        assert_eq!(ids.call("0".to_owned()), "0_5");
        assert_eq!(ids.result("0"), "0_5");
        assert_eq!(ids.result("x:y"), "x_y", "nobody has called it");
    }

    #[test]
    fn two_calls_of_one_id_are_answered_in_their_order() {
        let mut ids = CallIds::default();
        let called = ["0", "0"].map(|id| ids.call(id.to_owned()));
        assert_eq!(["0", "0"].map(|id| ids.result(id)), called);
    }
}

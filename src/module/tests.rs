//! The door over a pretended Envoy: what reaches the roles, what reaches Envoy and when, and what is left when a stream ends at any
//! point.

#![allow(unsafe_code, reason = "hooks are called as Envoy calls them")]

use std::sync::Arc;

use super::{
    abi::{Buffer, Opaque, attribute, body, map, status},
    extension::Extension,
    fake::{make, side, world},
    filter::Filter,
    hooks::*,
    host::{Envoy, HttpStream},
    later,
    roles::{Configuration, Role},
    store::{Process, Shared},
};
use crate::core::{
    headers::Headers,
    host::{Callout, HeaderMap, Host, Side, Store, Stream},
    store,
};

const CONFIG: &str = "
model_list:
- {model_name: demo, litellm_params: {model: openai/demo, mock_response: hello}}
- {model_name: gpt, litellm_params: {model: openai/gpt-4o, api_base: 'https://api.example.com/v1', api_key: k}}
- {model_name: slow, litellm_params: {model: openai/demo, mock_timeout: true, timeout: 60}}
general_settings: {master_key: sk-1234}
";

fn configuration(name: &str, text: &str) -> *const Configuration {
    envoy_dynamic_module_on_http_filter_config_new(
        std::ptr::null_mut(),
        Buffer::of(name.as_bytes()),
        Buffer::of(text.as_bytes()),
    )
}

/// A filter of Envoy's with ours behind it.
#[derive(Clone, Copy)]
struct Pair {
    envoys: Opaque,
    ours: Opaque,
}

impl Pair {
    fn new(configuration: *const Configuration, stream: usize) -> Pair {
        let envoys = make(stream);
        let ours = envoy_dynamic_module_on_http_filter_new(configuration, envoys);
        assert!(!ours.is_null());
        side(envoys, |side| side.ours = ours as usize);
        Pair { envoys, ours }
    }

    fn request_headers(self, headers: &[(&str, &[u8])]) -> u32 {
        let list = headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
        side(self.envoys, |side| side.maps[map::REQUEST as usize] = list);
        unsafe { envoy_dynamic_module_on_http_filter_request_headers(self.envoys, self.ours, false) }
    }

    /// A part of a body in its hook; what a filter keeps back is buffered as Envoy does it.
    fn body_part(self, which: Side, part: &[u8], ended: bool) -> u32 {
        let (received, buffered) = match which {
            Side::Request => (body::RECEIVED_REQUEST as usize, body::BUFFERED_REQUEST as usize),
            Side::Response => (body::RECEIVED_RESPONSE as usize, body::BUFFERED_RESPONSE as usize),
        };
        side(self.envoys, |side| side.bodies[received] = Some(part.to_vec()));
        let status = unsafe {
            match which {
                Side::Request => {
                    envoy_dynamic_module_on_http_filter_request_body(self.envoys, self.ours, ended)
                }
                Side::Response => {
                    envoy_dynamic_module_on_http_filter_response_body(self.envoys, self.ours, ended)
                }
            }
        };
        side(self.envoys, |side| {
            let part = side.bodies[received].take().unwrap_or_default();
            side.bodies[buffered].get_or_insert_default().extend_from_slice(&part);
        });
        status
    }

    fn body(self, which: Side) -> String {
        let buffered = match which {
            Side::Request => body::BUFFERED_REQUEST,
            Side::Response => body::BUFFERED_RESPONSE,
        };
        let bytes = side(self.envoys, |side| side.bodies[buffered as usize].clone().unwrap_or_default());
        String::from_utf8(bytes).unwrap()
    }

    fn header(self, map: u32, name: &str) -> Option<String> {
        let found = side(self.envoys, |side| {
            let map = &side.maps[map as usize];
            map.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| value.clone())
        });
        found.map(|value| String::from_utf8(value).unwrap())
    }

    fn stream(self) -> HttpStream {
        *unsafe { self.ours.cast::<Filter>().as_ref() }.unwrap().stream()
    }

    fn end(self) {
        unsafe { envoy_dynamic_module_on_http_filter_stream_complete(self.envoys, self.ours) };
        envoy_dynamic_module_on_http_filter_destroy(self.ours.cast());
        world(|world| world.sides.remove(&(self.envoys as usize)));
    }
}

const ASKING: [(&str, &[u8]); 5] = [
    (":method", b"POST"),
    (":path", b"/v1/chat/completions"),
    (":authority", b"localhost"),
    ("authorization", b"Bearer sk-1234"),
    ("content-type", b"application/json"),
];

fn chat(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#)
}

#[test]
fn a_reply_goes_out_once_when_the_hook_is_done() {
    let policy = configuration("policy", CONFIG);
    let pair = Pair::new(policy, 1);
    assert_eq!(pair.request_headers(&ASKING), status::STOP);
    let (a, b) = (chat("demo"), String::new());
    let (first, rest) = a.split_at(20);
    assert_eq!(pair.body_part(Side::Request, first.as_bytes(), false), status::STOP);
    assert_eq!(pair.body_part(Side::Request, (rest.to_owned() + &b).as_bytes(), true), status::STOP);
    let sent = side(pair.envoys, |side| side.sent.clone());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].status, 200);
    assert!(sent[0].body.contains("hello"), "{}", sent[0].body);
    pair.end();
    let record = world(|world| world.states.get(&(1, b"wasm.tollgate.record".to_vec())).cloned()).unwrap();
    assert!(String::from_utf8(record).unwrap().contains(r#""model":"demo""#));
    assert_eq!(later::count(), 0);
    envoy_dynamic_module_on_http_filter_config_destroy(policy);
}

#[test]
fn a_call_goes_through_both_roles() {
    let (policy, provider) = (configuration("policy", CONFIG), configuration("provider", ""));
    let request = Pair::new(policy, 2);
    assert_eq!(request.request_headers(&ASKING), status::STOP);
    assert_eq!(request.body_part(Side::Request, chat("gpt").as_bytes(), true), status::CONTINUE);
    assert_eq!(side(request.envoys, |side| side.cleared), 1);
    assert!(world(|world| world.states.contains_key(&(2, b"wasm.tollgate.next".to_vec()))));
    assert!(request.header(map::REQUEST, "x-envoy-upstream-rq-per-try-timeout-ms").is_some());

    let attempt = Pair::new(provider, 2);
    assert_eq!(attempt.request_headers(&ASKING), status::CONTINUE);
    assert_eq!(attempt.header(map::REQUEST, ":path").as_deref(), Some("/v1/chat/completions"));
    assert_eq!(attempt.header(map::REQUEST, ":authority").as_deref(), Some("api.example.com"));
    assert_eq!(attempt.header(map::REQUEST, "authorization").as_deref(), Some("Bearer k"));
    assert_eq!(attempt.body_part(Side::Request, chat("gpt").as_bytes(), true), status::CONTINUE);
    assert!(attempt.body(Side::Request).contains(r#""model":"gpt-4o""#), "{}", attempt.body(Side::Request));

    side(attempt.envoys, |side| {
        side.maps[map::RESPONSE as usize] = vec![
            (b":status".to_vec(), b"200".to_vec()),
            (b"content-type".to_vec(), b"application/json".to_vec()),
            (b"x-of-the-provider".to_vec(), b"\xff\xfe".to_vec()),
        ];
    });
    let paused =
        unsafe { envoy_dynamic_module_on_http_filter_response_headers(attempt.envoys, attempt.ours, false) };
    assert_eq!(paused, status::STOP);
    let answer = r#"{"id":"c1","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    let (first, rest) = answer.split_at(30);
    assert_eq!(attempt.body_part(Side::Response, first.as_bytes(), false), status::STOP);
    assert_eq!(attempt.body_part(Side::Response, rest.as_bytes(), true), status::CONTINUE);
    assert_eq!(attempt.body(Side::Response), answer);
    assert_eq!(attempt.header(map::RESPONSE, "x-litellm-model-group").as_deref(), Some("gpt"));
    attempt.end();
    request.end();
    assert_eq!(later::count(), 0);
}

/// Whatever the last thing is that happened to a stream, nothing of it stays.
#[test]
fn a_stream_may_end_at_any_point() {
    let (policy, provider) = (configuration("policy", CONFIG), configuration("provider", ""));
    for steps in 0..8 {
        let request = Pair::new(policy, 100 + steps);
        let mut attempt = None;
        for step in 0..steps {
            match step {
                0 => _ = request.request_headers(&ASKING),
                1 => _ = request.body_part(Side::Request, &chat("gpt").as_bytes()[..10], false),
                2 => _ = request.body_part(Side::Request, &chat("gpt").as_bytes()[10..], true),
                3 => attempt = Some(Pair::new(provider, 100 + steps)),
                4 => _ = attempt.unwrap().request_headers(&ASKING),
                5 => _ = attempt.unwrap().body_part(Side::Request, chat("gpt").as_bytes(), true),
                _ => _ = attempt.unwrap().body_part(Side::Response, b"{\"choices\":", false),
            }
        }
        attempt.into_iter().for_each(Pair::end);
        request.end();
        assert_eq!(later::count(), 0, "after {steps} steps");
    }
}

#[test]
fn a_panic_costs_its_own_request() {
    let policy = configuration("policy", CONFIG);
    let (pair, neighbour) = (Pair::new(policy, 3), Pair::new(policy, 4));
    let filter = unsafe { pair.ours.cast::<Filter>().as_ref() }.unwrap();
    assert_eq!(filter.hook(|_, _| panic!("a fault")), status::STOP);
    let sent = side(pair.envoys, |side| side.sent.clone());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].status, 500);
    assert!(sent[0].body.contains("The gateway failed on this request"), "{}", sent[0].body);
    assert_eq!(pair.body_part(Side::Request, b"{}", true), status::CONTINUE);
    assert_eq!(neighbour.request_headers(&ASKING), status::STOP);
    neighbour.body_part(Side::Request, chat("demo").as_bytes(), true);
    assert_eq!(side(neighbour.envoys, |side| side.sent[0].status), 200);
    pair.end();
    neighbour.end();
    assert_eq!(later::count(), 0);
}

#[test]
fn a_hook_that_is_entered_again_does_nothing() {
    let pair = Pair::new(configuration("policy", CONFIG), 5);
    let filter = unsafe { pair.ours.cast::<Filter>().as_ref() }.unwrap();
    filter.while_borrowed(|| assert_eq!(pair.request_headers(&ASKING), status::CONTINUE));
    pair.end();
}

#[test]
fn a_configuration_that_is_wrong_is_refused_and_says_why() {
    assert!(configuration("policy", "model_list: 3").is_null());
    let log = world(|world| world.log.clone());
    assert!(log.iter().any(|(_, line)| line.contains("model_list")), "{log:?}");
    assert!(configuration("policy", "\u{0}").is_null());
}

#[test]
fn a_request_that_waits_is_woken_and_its_alarm_goes_with_it() {
    let policy = configuration("policy", CONFIG);
    let (pair, other) = (Pair::new(policy, 6), Pair::new(policy, 7));
    for pair in [pair, other] {
        pair.request_headers(&ASKING);
        pair.body_part(Side::Request, chat("slow").as_bytes(), true);
    }
    let waits = side(pair.envoys, |side| side.sent.is_empty());
    assert!(waits, "it was answered at once");
    assert_eq!(world(|world| world.schedulers.len()), 1);
    envoy_dynamic_module_on_http_filter_scheduled(pair.envoys, pair.ours, 0);
    pair.end();
    // The other one still waits.
    assert_eq!(world(|world| world.schedulers.len()), 1);
    other.end();
    assert_eq!(world(|world| world.schedulers.len()), 0);
}

#[test]
fn calls_end_after_the_hook_that_began_them() {
    let pair = Pair::new(configuration("policy", CONFIG), 8);
    let callout = Callout {
        cluster: "c",
        headers: &[(":path", "/p")],
        body: Some(b"b"),
        limit: std::time::Duration::from_secs(1),
    };
    later::hook(|| {
        let stream = pair.stream();
        assert!(stream.call(&callout).is_some());
        assert!(side(pair.envoys, |side| side.calls.is_empty()), "it was begun while the hook ran");
    });
    assert_eq!(
        side(pair.envoys, |side| side.calls.clone()),
        [("c".to_owned(), "/p".to_owned(), b"b".to_vec())]
    );
    assert!(later::ended(pair.stream().id(), 1).is_some());
    assert_eq!(later::ended(pair.stream().id(), 1), None);
    pair.end();
}

#[test]
fn headers_are_put_in_place_of_others_with_all_their_values() {
    let stream = HttpStream::new(1, make(9), true);
    let put = |headers: &[(&str, &str)]| {
        let list: Vec<(&str, &str)> = headers.to_vec();
        stream.replace_headers(HeaderMap::Request, &Headers::from_pairs(&list));
        let mut found: Vec<(String, String)> = stream
            .headers(HeaderMap::Request)
            .iter()
            .map(|(name, value)| (name.to_owned(), String::from_utf8(value.to_vec()).unwrap()))
            .collect();
        found.sort();
        let mut expected: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        expected.sort();
        assert_eq!(found, expected);
    };
    put(&[(":path", "/a"), ("a", "1"), ("b", "2")]);
    put(&[(":path", "/b"), ("a", "1"), ("c", "3")]);
    put(&[("a", "1"), ("a", "2"), ("a", "")]);
    put(&[("a", "2")]);
    put(&[]);
}

#[test]
fn a_body_is_what_was_kept_back_and_what_has_come() {
    let envoys = make(10);
    let stream = HttpStream::new(1, envoys, true);
    side(envoys, |side| {
        side.bodies[body::BUFFERED_RESPONSE as usize] = Some(b"kept".to_vec());
        side.bodies[body::RECEIVED_RESPONSE as usize] = Some(b"come".to_vec());
    });
    assert_eq!(stream.body(Side::Response), b"keptcome");
    assert_eq!(stream.body_size(Side::Response), 8);
    stream.replace_body(Side::Response, b"new");
    assert_eq!(stream.body(Side::Response), b"new");
    // Outside a hook of the body there is only what is kept back.
    side(envoys, |side| {
        side.bodies[body::BUFFERED_RESPONSE as usize] = Some(b"kept".to_vec());
        side.bodies[body::RECEIVED_RESPONSE as usize] = None;
    });
    stream.replace_body(Side::Response, b"other");
    assert_eq!(stream.body(Side::Response), b"other");
    assert_eq!(stream.body(Side::Request), b"");
}

#[test]
fn state_is_shared_and_attributes_are_copied() {
    let (a, b) = (HttpStream::new(1, make(11), false), HttpStream::new(2, make(11), true));
    a.set_state("name", b"\x00value");
    let value = b.state("name").unwrap();
    b.set_state("other", b"");
    assert_eq!(value, b"\x00value");
    assert_eq!(b.state("none"), None);
    world(|world| world.attributes.insert(attribute::SOURCE_ADDRESS, b"10.0.0.1:1".to_vec()));
    assert_eq!(
        a.attribute(crate::core::host::Attribute::ClientAddress).as_deref(),
        Some(b"10.0.0.1:1".as_slice())
    );
}

#[test]
fn counters_reach_envoy_with_their_labels() {
    let extension = Extension::begin(std::ptr::null_mut(), b"").unwrap();
    let host = Envoy::new(Process::own());
    for (name, by) in [
        ("tollgate_requests;model=of this test;status=200", 2),
        ("tollgate_requests;status=201;model=of this test", 3),
        ("tollgate_unknown_family", 1),
    ] {
        let id = host.metric(crate::core::host::Metric::Counter, name).unwrap();
        host.add(id, by);
    }
    extension.on_tick();
    let told = |status: u16| {
        world(|world| {
            world.counters.get(&format!("tollgate_requests(model,status)=of this test,{status}")).copied()
        })
    };
    assert_eq!((told(200), told(201)), (Some(2), Some(3)));
    assert!(world(|world| !world.timers.is_empty()));
}

fn fresh() -> &'static Process {
    Box::leak(Box::default())
}

#[test]
fn a_write_that_names_an_old_version_fails() {
    let shared = Shared::of(fresh());
    assert_eq!(shared.get("k"), None);
    store::create(&shared, "k", b"1");
    store::create(&shared, "k", b"2");
    let (value, version) = shared.get("k").unwrap();
    assert_eq!(value, b"1");
    assert!(shared.set("k", b"3", Some(version)));
    assert!(!shared.set("k", b"4", Some(version)));
    assert_eq!(shared.get("k").unwrap().0, b"3");
    assert!(shared.set("k", b"5", None));
}

#[test]
fn no_update_of_any_thread_is_lost() {
    let process = fresh();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let shared = Shared::of(process);
                for _ in 0..500 {
                    let next = |bytes: Option<&[u8]>| {
                        let now = bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
                        ((now + 1).to_le_bytes().to_vec(), ())
                    };
                    while store::update(&shared, "n", next).is_none() {}
                    shared.count("c");
                    shared.succeeded("d", 7);
                }
            });
        }
    });
    let shared = Shared::of(process);
    assert_eq!(shared.get("n").unwrap().0, 2_000_u64.to_le_bytes());
    assert_eq!(shared.counter("c").and_then(|id| process.counters().value(id)), Some(2_000));
    assert_eq!((shared.successes("d", 7), shared.successes("d", 8), shared.successes("e", 7)), (2_000, 0, 0));
}

#[test]
fn queues_give_back_in_order() {
    let process = fresh();
    assert_eq!(process.find_queue("q"), None);
    let queue = process.make_queue("q").unwrap();
    assert_eq!(process.make_queue("q"), Some(queue));
    assert_eq!(process.find_queue("q"), Some(queue));
    assert!(process.enqueue(queue, b"1") && process.enqueue(queue, b"2"));
    assert!(!process.enqueue(queue + 1, b"3"));
    assert_eq!(process.dequeue(queue).as_deref(), Some(b"1".as_slice()));
    assert_eq!(process.dequeue(queue).as_deref(), Some(b"2".as_slice()));
    assert_eq!(process.dequeue(queue), None);
}

#[test]
fn a_worker_makes_one_policy_of_a_configuration() {
    let text = CONFIG.as_bytes();
    let configuration: Arc<Configuration> = Configuration::read(b"policy", text).unwrap();
    let (Some(Role::Policy(a)), Some(Role::Policy(b))) = (configuration.role(), configuration.role()) else {
        panic!("no policy");
    };
    assert!(std::rc::Rc::ptr_eq(&a, &b));
    assert!(matches!(Configuration::read(b"provider", b"").unwrap().role(), Some(Role::Provider(_))));
}

//! The part of Envoy: listener, router, retries, local replies, calls and ticks, as far as the roles can tell.
//!
//! What it does is taken from a real one: the router buffers the client's body and replays it for every attempt, on a header
//! map that all attempts share; the cluster is the one that the stream's state names when an attempt begins; an answer goes to
//! the client unless it is marked for a retry and one is left; a reply of a filter passes the response hooks of its own stream.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use hashbrown::HashMap;
use serde_json::Value;

use super::super::{
    Turn,
    fake::{FakeHost, FakeStream, Order, Pending, Process},
    policy::Policy,
    provider::Attempt,
    request::Request,
    sync,
    worker::Worker,
};
use crate::core::{
    config,
    exchange::{NO_CLUSTER, RETRY_HEADER, timed},
    headers::Headers,
    host::{Attribute, CallResponse, HeaderMap, Side, Stream},
    protocol::{self, INTERNAL_CLUSTER},
};

/// What a provider, or the ledger, does with a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// There is no connection.
    Refuse,
    /// Nothing comes until the attempt's time is over.
    Hang,
    /// It takes its time: the test says what comes, see [`Envoy::respond`].
    Later,
    /// A response with a JSON body.
    Answer(u16, Value),
    /// Server-sent events, part by part.
    Stream(Vec<String>),
    /// The first parts of a response, and then the connection breaks.
    Broken(Vec<String>),
}
pub use Behaviour::*;

/// A request as it came to a provider or to the ledger.
#[derive(Clone, Debug)]
pub struct Sent {
    pub cluster: String,
    pub model: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

/// A client's request.
pub struct Ask {
    pub headers: Headers,
    /// Its body, as it comes.
    pub parts: Vec<Vec<u8>>,
    pub trailers: bool,
    /// More of it comes later, see [`Envoy::send`].
    pub is_open: bool,
}

/// What the client got, and the access log.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The connection broke before the answer's end.
    pub is_broken: bool,
    /// The request's members of the access log's line.
    pub record: String,
}

impl Story {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A request under way.
struct Client {
    worker: usize,
    role: usize,
    stream: FakeStream,
    request: Request<FakeHost>,
    /// What is to come from the client yet.
    coming: VecDeque<Vec<u8>>,
    trailers: bool,
    is_open: bool,
    /// All of the request that came by and that the filter let go.
    body: Vec<u8>,
    /// The client has sent everything.
    is_whole: bool,
    /// The filter lets it go on.
    goes_on: bool,
    retries_left: Option<u32>,
    /// Milliseconds that each attempt has.
    per_try_ms: u64,
    /// Its worker was replaced: the old one's hooks are not called any more.
    is_orphaned: bool,
    upstream: Option<(FakeStream, Attempt<FakeHost>)>,
    story: Story,
    /// Headers have gone to the client.
    has_answer: bool,
    is_over: bool,
}

/// A worker and the configurations that it runs, the newest at the end, and when each was ticked.
struct Running {
    worker: Rc<Worker<FakeHost>>,
    policies: Vec<(Rc<Policy<FakeHost>>, u64)>,
}

impl Running {
    fn start(process: &Rc<Process>, configuration: &str) -> Running {
        let worker = FakeHost::worker(process, configuration);
        let mut running = Running { worker, policies: Vec::new() };
        assert!(running.configure(process.now_ms.get()), "the configuration is good");
        running
    }

    fn configure(&mut self, now_ms: u64) -> bool {
        self.worker.host.role.set(self.policies.len());
        let policy = Policy::configure(&self.worker);
        self.policies.extend(policy.map(|policy| (Rc::new(policy), now_ms)));
        self.policies.len() > self.worker.host.role.get()
    }

    /// When a role is to be ticked.
    fn next(&self, role: usize) -> u64 {
        let ms = u64::try_from(self.worker.host.period(role).as_millis()).unwrap();
        assert_ne!(ms, 0);
        self.policies[role].1 + ms
    }
}

/// The sync role in a worker of its own.
struct Syncing {
    worker: Rc<Worker<FakeHost>>,
    role: sync::Role<FakeHost>,
    ticked_ms: u64,
}

type Play = Box<dyn FnMut(usize, &Sent) -> Behaviour>;
/// What the ledger says to a call: nothing yet, no response, or one.
type Ledger = Box<dyn FnMut(&Pending) -> Option<Option<CallResponse>>>;

pub struct Envoy {
    pub process: Rc<Process>,
    configuration: String,
    running: Vec<Running>,
    syncing: Option<Syncing>,
    clients: HashMap<usize, Client>,
    /// All that came to providers and to the ledger's cluster.
    pub sent: Vec<Sent>,
    play: Play,
    ledger: Ledger,
    models: HashMap<String, String>,
    /// The client goes away after so many hooks.
    pub patience: Option<u32>,
    /// Responses to what a stream asked for in a tick are handed to the role, as one SDK does.
    pub hands_to_role: bool,
}

impl Envoy {
    pub fn new(configuration: &str, play: impl FnMut(usize, &Sent) -> Behaviour + 'static) -> Envoy {
        Envoy::with_ledger(configuration, HashMap::new(), play, |call| {
            panic!("nobody is to be called: {call:?}")
        })
    }

    pub fn with_ledger(
        configuration: &str,
        environment: HashMap<&'static str, String>,
        play: impl FnMut(usize, &Sent) -> Behaviour + 'static,
        ledger: impl FnMut(&Pending) -> Option<Option<CallResponse>> + 'static,
    ) -> Envoy {
        let known = environment.clone();
        let loaded = config::load(configuration, &|name| known.get(name).cloned(), &|_| None).unwrap();
        let models = loaded.config.deployments.iter().map(|d| (d.cluster.clone(), d.model.clone()));
        let mut envoy = Envoy {
            models: models.collect(),
            process: Process::new(environment),
            configuration: configuration.to_owned(),
            running: Vec::new(),
            syncing: None,
            clients: HashMap::new(),
            sent: Vec::new(),
            play: Box::new(play),
            ledger: Box::new(ledger),
            patience: None,
            hands_to_role: false,
        };
        envoy.add_worker();
        envoy
    }

    /// Starts another worker.
    pub fn add_worker(&mut self) -> usize {
        self.running.push(Running::start(&self.process, &self.configuration));
        self.running.len() - 1
    }

    /// Gives a worker another configuration: requests that come later have it. False when it is refused.
    pub fn configure(&mut self, at: usize, configuration: &str) -> bool {
        let running = &mut self.running[at];
        running.worker.host.configure(configuration);
        if !running.configure(self.process.now_ms.get()) {
            return false;
        }
        let known = self.process.environment.clone();
        let loaded = config::load(configuration, &|name| known.get(name).cloned(), &|_| None).unwrap();
        let models = loaded.config.deployments.iter().map(|d| (d.cluster.clone(), d.model.clone()));
        self.models.extend(models);
        true
    }

    /// Starts the sync role.
    pub fn start_sync(&mut self) {
        let worker = FakeHost::worker(&self.process, "250");
        let role = sync::Role::configure(&worker).expect("there is a secret");
        self.syncing = Some(Syncing { worker, role, ticked_ms: self.process.now_ms.get() });
    }

    /// The sync role is lost, and is not made anew.
    pub fn kill_sync(&mut self) {
        self.syncing = None;
    }

    /// A worker is lost in the middle of everything, with whatever it held, and a new one takes its place. Its clients are told
    /// by Envoy. `flushes`: the door had time to send the usage that waited.
    pub fn kill(&mut self, at: usize, flushes: bool) {
        if flushes {
            self.running[at].worker.flush();
        }
        for client in self.clients.values_mut().filter(|client| client.worker == at && !client.is_over) {
            client.is_over = true;
            client.story.is_broken = client.has_answer;
            if !client.has_answer {
                client.story.status = 503;
            }
        }
        self.running.swap_remove(at);
        self.add_worker();
        let last = self.running.len() - 1;
        self.running.swap(at, last);
    }

    /// A new worker takes a request over whose downstream part is still there: a VM that was replaced in between.
    pub fn replace_worker_of(&mut self, id: usize) {
        let at = self.clients[&id].worker;
        self.running[at] = Running::start(&self.process, &self.configuration);
        self.clients
            .values_mut()
            .filter(|client| client.worker == at)
            .for_each(|client| client.is_orphaned = true);
    }

    /// What a worker holds: exchanges, requests that wait for a time, and for a record.
    pub fn held(&self, worker: usize) -> (usize, usize, usize) {
        let running = &self.running[worker];
        let counts = running.policies.iter().map(|(policy, _)| policy.waiting.counts());
        let (waiting, asking) = counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        (running.worker.exchanges.count(), waiting, asking)
    }

    /// How often a worker's policy is ticked.
    pub fn period(&self, worker: usize) -> Duration {
        let running = &self.running[worker];
        running.worker.host.period(running.policies.len() - 1)
    }

    pub fn refuse_calls(&self, worker: usize, refuses: bool) {
        self.running[worker].worker.host.refuses_calls.set(refuses);
    }

    /// Calls of workers that nobody has answered.
    pub fn pending(&self) -> Vec<Pending> {
        self.running.iter().flat_map(|running| running.worker.host.calls.borrow().clone()).collect()
    }

    // -- clients

    /// One request from its beginning to its end.
    pub fn call(&mut self, ask: Ask) -> Story {
        let id = self.begin(0, ask);
        assert!(self.is_over(id), "it waits");
        self.finish(id)
    }

    pub fn chat(&mut self, body: &Value) -> Story {
        self.call(Ask::chat(body))
    }

    /// Begins a request, and goes as far as it can.
    pub fn begin(&mut self, worker: usize, ask: Ask) -> usize {
        let running = &self.running[worker];
        let stream = running.worker.host.stream(None);
        stream.set_headers(HeaderMap::Request, ask.headers);
        stream.set_attribute(Attribute::ClientAddress, "192.0.2.1:4711");
        let id = usize::try_from(stream.id()).unwrap();
        let role = running.policies.len() - 1;
        let mut client = Client {
            worker,
            role,
            stream: stream.clone(),
            request: running.policies[role].0.stream(),
            coming: ask.parts.into(),
            trailers: ask.trailers,
            is_open: ask.is_open,
            body: Vec::new(),
            is_whole: false,
            goes_on: false,
            retries_left: None,
            per_try_ms: 0,
            is_orphaned: false,
            upstream: None,
            story: Story::default(),
            has_answer: false,
            is_over: false,
        };
        let ended = client.coming.is_empty() && !client.trailers && !client.is_open;
        client.is_whole = ended;
        running.worker.host.role.set(role);
        let turn = client.request.on_request_headers(&stream, ended);
        client.goes_on = turn.goes_on(&stream);
        self.clients.insert(id, client);
        self.step(id);
        self.receive(id);
        self.settle();
        id
    }

    /// The rest of the client's body comes.
    fn receive(&mut self, id: usize) {
        self.enter(id);
        while let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) {
            let Some(part) = client.coming.pop_front() else { break };
            let ended = client.coming.is_empty() && !client.trailers && !client.is_open;
            client.is_whole = ended;
            let mut kept = client.stream.take_body(Side::Request);
            kept.extend(part);
            let size = kept.len();
            client.stream.set_body(Side::Request, Some(kept));
            let turn = client.request.on_request_body(&client.stream, size, ended);
            let goes_on = turn.goes_on(&client.stream);
            self.let_go(id, goes_on);
            self.step(id);
        }
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) else { return };
        if client.trailers && !client.is_open {
            (client.trailers, client.is_whole) = (false, true);
            let goes_on = client.request.on_request_trailers(&client.stream).goes_on(&client.stream);
            self.let_go(id, goes_on);
            self.step(id);
        }
    }

    /// A part of a client's body comes later.
    pub fn send(&mut self, id: usize, part: &[u8], ended: bool) {
        let client = self.clients.get_mut(&id).unwrap();
        client.coming.push_back(part.to_vec());
        client.is_open = !ended;
        self.receive(id);
        self.settle();
    }

    /// The hooks that run now are this request's.
    fn enter(&self, id: usize) {
        let client = &self.clients[&id];
        self.running[client.worker].worker.host.role.set(client.role);
    }

    fn let_go(&mut self, id: usize, goes_on: bool) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) else { return };
        client.goes_on |= goes_on;
        if client.goes_on {
            let kept = client.stream.take_body(Side::Request);
            client.body.extend(kept);
        }
    }

    pub fn is_over(&self, id: usize) -> bool {
        self.clients[&id].is_over
    }

    pub fn finish(&mut self, id: usize) -> Story {
        let client = self.clients.remove(&id).unwrap();
        assert!(client.is_over);
        client.story
    }

    /// The client goes away.
    pub fn drop_client(&mut self, id: usize) {
        if !self.clients[&id].is_over {
            self.end(id, true);
        }
    }

    /// The stream is over, in whichever way.
    fn end(&mut self, id: usize, is_broken: bool) {
        self.enter(id);
        let client = self.clients.get_mut(&id).unwrap();
        assert!(!client.is_over, "a stream ends once");
        client.is_over = true;
        client.story.is_broken |= is_broken;
        let host = &self.running[client.worker].worker.host;
        if let Some((stream, _)) = client.upstream.take() {
            host.end(&stream);
        }
        if !client.is_orphaned {
            client.request.on_log(&client.stream);
        }
        assert!(client.stream.orders().is_empty(), "nothing is sent when all is over");
        client.story.record = client.stream.text("tollgate.record");
        host.end(&client.stream);
    }

    /// A hook has run: what it asked for is done now. The client may lose its patience.
    fn step(&mut self, id: usize) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) else { return };
        let (own, upstream) =
            (client.stream.orders(), client.upstream.as_ref().map(|(stream, _)| stream.orders()));
        for order in own.into_iter().chain(upstream.into_iter().flatten()) {
            match order {
                Order::Reply(headers, body) => self.local_reply(id, headers, &body),
                Order::Resume(Side::Request) => self.let_go(id, true),
                Order::Resume(Side::Response) => panic!("no answer is paused by a call"),
            }
        }
        if let Some(left) = &mut self.patience {
            *left = left.saturating_sub(1);
            if *left == 0 && self.clients.get(&id).is_some_and(|client| !client.is_over) {
                self.end(id, true);
            }
        }
    }

    /// A reply of a filter or of Envoy itself: it passes the response hooks, and is the answer.
    fn local_reply(&mut self, id: usize, headers: Headers, body: &[u8]) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) else { return };
        if client.has_answer {
            return self.end(id, true);
        }
        if let Some((stream, _)) = client.upstream.take() {
            self.running[client.worker].worker.host.end(&stream);
        }
        client.stream.set_headers(HeaderMap::Response, headers);
        let turn = match client.is_orphaned {
            true => Turn::Continue,
            false => client.request.on_response_headers(&client.stream),
        };
        match turn {
            Turn::Continue => {
                self.answer(id);
                self.give(id, body);
                self.end(id, false);
            }
            Turn::Pause => panic!("a reply is not paused"),
            turn @ Turn::Reply(_) => {
                assert!(!turn.goes_on(&client.stream));
                self.step(id);
            }
        }
    }

    /// A reply of Envoy's own.
    fn envoys_reply(&mut self, id: usize, status: u16, details: &str) {
        let client = &self.clients[&id];
        client.stream.set_attribute(Attribute::ResponseCodeDetails, details);
        let line = status.to_string();
        let headers = Headers::from_pairs(&[(":status", line.as_str()), ("content-type", "text/plain")]);
        self.local_reply(id, headers, details.as_bytes());
    }

    /// Envoy refuses a request that is still coming: its body is too large, or too slow.
    pub fn refuse(&mut self, id: usize, status: u16, details: &str) {
        self.envoys_reply(id, status, details);
        self.settle();
    }

    /// The headers in the response map go to the client.
    fn answer(&mut self, id: usize) {
        let client = self.clients.get_mut(&id).unwrap();
        assert!(!client.has_answer, "one request, one answer");
        client.has_answer = true;
        let headers = client.stream.headers(HeaderMap::Response);
        client.story.status = headers.text(":status").unwrap().parse().unwrap();
        client.story.headers = pairs(&headers);
    }

    fn give(&mut self, id: usize, body: &[u8]) {
        let client = self.clients.get_mut(&id).unwrap();
        client.story.body.push_str(&String::from_utf8_lossy(body));
    }

    // -- the router

    /// Does all that can be done now: resumed requests are routed, calls are answered.
    pub fn settle(&mut self) {
        loop {
            let ready = |client: &Client| {
                client.goes_on && client.is_whole && !client.is_over && client.retries_left.is_none()
            };
            let ids: Vec<usize> =
                self.clients.iter().filter(|(_, client)| ready(client)).map(|(id, _)| *id).collect();
            ids.iter().for_each(|id| self.route(*id));
            if !self.answer_calls() && ids.is_empty() {
                return;
            }
        }
    }

    fn route(&mut self, id: usize) {
        let client = self.clients.get_mut(&id).unwrap();
        let headers = client.stream.headers(HeaderMap::Request);
        let number = |name: &str| headers.text(name).map_or(0, |text| text.parse().unwrap());
        client.retries_left = Some(u32::try_from(number("x-envoy-max-retries")).unwrap());
        client.per_try_ms = number("x-envoy-upstream-rq-per-try-timeout-ms");
        self.attempt(id);
    }

    fn attempt(&mut self, id: usize) {
        let client = self.clients.get_mut(&id).unwrap();
        let cluster = client.stream.text("tollgate.next");
        if cluster == protocol::CLUSTER {
            let headers = client.stream.headers(HeaderMap::Request);
            return self.deliver(id, cluster, headers, Vec::new());
        }
        if cluster == NO_CLUSTER || !(self.models.contains_key(&cluster) || cluster == timed::TIMED_CLUSTER) {
            return self.envoys_reply(id, 503, "cluster_not_found");
        }
        let worker = &self.running[client.worker].worker;
        let stream = worker.host.stream(Some(&client.stream));
        stream.set_attribute(Attribute::UpstreamLocalAddress, "");
        let mut attempt = Attempt::new(Rc::clone(worker));
        let turn = attempt.on_request_headers(&stream, client.body.is_empty());
        let mut goes_on = turn.goes_on(&stream);
        // The client's body is replayed, in two parts.
        let (first, second) = client.body.split_at(client.body.len() / 2);
        let parts = [first.to_vec(), second.to_vec()];
        client.upstream = Some((stream.clone(), attempt));
        self.step(id);
        let mut body = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) else { return };
            let Some((_, attempt)) = &mut client.upstream else { return };
            let mut kept = stream.take_body(Side::Request);
            kept.extend(part);
            stream.set_body(Side::Request, Some(kept));
            goes_on = attempt.on_request_body(&stream, at == 1).goes_on(&stream);
            if goes_on {
                body.extend(stream.take_body(Side::Request));
            }
            self.step(id);
        }
        if goes_on && self.clients.get(&id).is_some_and(|client| !client.is_over) {
            self.deliver(id, cluster, stream.headers(HeaderMap::Request), body);
        }
    }

    /// The request comes to the provider.
    fn deliver(&mut self, id: usize, cluster: String, headers: Headers, body: Vec<u8>) {
        let cluster = match cluster == timed::TIMED_CLUSTER {
            true => headers.text(timed::CLUSTER_HEADER).unwrap().to_owned(),
            false => cluster,
        };
        if let Some(length) = headers.text("content-length").filter(|_| cluster != protocol::CLUSTER) {
            assert_eq!(length, body.len().to_string(), "a provider is told how long the body is");
        }
        let sent = Sent {
            model: self.models.get(&cluster).cloned().unwrap_or_default(),
            cluster,
            headers: pairs(&headers),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        let behaviour = (self.play)(self.sent.len(), &sent);
        self.sent.push(sent);
        self.respond(id, behaviour);
    }

    /// What the provider does with it.
    pub fn respond(&mut self, id: usize, behaviour: Behaviour) {
        let Some(client) = self.clients.get(&id).filter(|client| !client.is_over) else { return };
        if !matches!(behaviour, Refuse) {
            client.stream.set_attribute(Attribute::UpstreamLocalAddress, "192.0.2.9:1");
        }
        let json = "application/json";
        let stream = "text/event-stream";
        match behaviour {
            Later => {}
            Refuse => self.reset(id, 503, "upstream_reset_before_response_started{connection_failure}"),
            Hang => {
                let ms = client.per_try_ms;
                self.pass(ms);
                self.reset(id, 504, "upstream_per_try_timeout");
            }
            Answer(status, value) => self.answered(id, status, json, vec![value.to_string()], false),
            Stream(parts) => self.answered(id, 200, stream, parts, false),
            Broken(parts) => self.answered(id, 200, stream, parts, true),
        }
        self.settle();
    }

    /// There is no answer, or no more of it.
    fn reset(&mut self, id: usize, status: u16, details: &str) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) else { return };
        if client.has_answer {
            return self.end(id, true);
        }
        if !self.retry(id) {
            self.envoys_reply(id, status, details);
        }
    }

    /// Tries again, unless that has been done often enough.
    fn retry(&mut self, id: usize) -> bool {
        let client = self.clients.get_mut(&id).unwrap();
        if let Some((stream, _)) = client.upstream.take() {
            self.running[client.worker].worker.host.end(&stream);
        }
        match client.retries_left {
            Some(left @ 1..) => {
                client.retries_left = Some(left - 1);
                self.attempt(id);
                true
            }
            _ => false,
        }
    }

    fn answered(&mut self, id: usize, status: u16, kind: &str, parts: Vec<String>, breaks: bool) {
        let line = status.to_string();
        let mut headers = Headers::from_pairs(&[(":status", line.as_str()), ("content-type", kind)]);
        let client = self.clients.get_mut(&id).unwrap();
        if client.upstream.is_none() {
            // The ledger: none of our filters stands in the chain.
            headers.push(protocol::CHANGED_HEADER, b"*");
            client.stream.set_headers(HeaderMap::Response, headers);
            if self.release(id) {
                self.give(id, parts.concat().as_bytes());
                self.end(id, false);
            }
            return;
        }
        let (stream, attempt) = client.upstream.as_mut().unwrap();
        let stream = stream.clone();
        stream.set_headers(HeaderMap::Response, headers);
        let mut is_held = !attempt.on_response_headers(&stream, parts.is_empty() && !breaks).goes_on(&stream);
        self.step(id);
        let count = parts.len();
        for (at, part) in parts.into_iter().enumerate() {
            let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_over) else { return };
            // A retry has taken its place.
            let Some((_, attempt)) = client.upstream.as_mut().filter(|(own, _)| own.id() == stream.id())
            else {
                return;
            };
            let mut kept = stream.take_body(Side::Response);
            kept.extend(part.into_bytes());
            let size = kept.len();
            stream.set_body(Side::Response, Some(kept));
            let turn = attempt.on_response_body(&stream, size, at + 1 == count && !breaks);
            if turn.goes_on(&stream) {
                let body = stream.take_body(Side::Response);
                if std::mem::replace(&mut is_held, false) && !self.pass_on(id, &stream) {
                    return;
                }
                self.give(id, &body);
            }
            self.step(id);
        }
        let client = self.clients.get(&id).unwrap();
        match () {
            _ if client.is_over => {}
            _ if breaks => {
                self.reset(id, 503, "upstream_reset_before_response_started{connection_termination}")
            }
            _ if is_held => panic!("headers are released at the latest with the last part"),
            _ => self.end(id, false),
        }
    }

    /// The answer's headers come from an attempt to the router: they go to the client, unless they ask for a retry.
    fn pass_on(&mut self, id: usize, upstream: &FakeStream) -> bool {
        let headers = upstream.headers(HeaderMap::Response);
        if headers.get(RETRY_HEADER).is_some() && self.retry(id) {
            return false;
        }
        self.clients[&id].stream.set_headers(HeaderMap::Response, headers);
        self.release(id)
    }

    /// An answer passes the policy's response hook. True when it goes to the client.
    fn release(&mut self, id: usize) -> bool {
        let client = self.clients.get_mut(&id).unwrap();
        client.stream.set_attribute(Attribute::ResponseCodeDetails, "via_upstream");
        let goes_on = client.request.on_response_headers(&client.stream).goes_on(&client.stream);
        if goes_on {
            self.answer(id);
        }
        self.step(id);
        goes_on && self.clients.get(&id).is_some_and(|client| !client.is_over)
    }

    // -- time and calls

    /// Time passes, with all ticks that fall into it.
    pub fn pass(&mut self, ms: u64) {
        let until = self.process.now_ms.get() + ms;
        loop {
            let own = self.running.iter().flat_map(|r| (0..r.policies.len()).map(|role| r.next(role)));
            let next = own.chain(self.syncing.iter().map(|s| s.ticked_ms + period(&s.worker))).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.process.now_ms.set(next.max(self.process.now_ms.get()));
            self.tick(next);
        }
        self.process.now_ms.set(until);
    }

    fn tick(&mut self, now: u64) {
        self.process.is_ticking.set(true);
        for running in &mut self.running {
            for role in 0..running.policies.len() {
                if running.next(role) <= now {
                    running.policies[role].1 = now;
                    running.worker.host.role.set(role);
                    running.policies[role].0.tick();
                }
            }
        }
        if let Some(syncing) = &mut self.syncing
            && syncing.ticked_ms + period(&syncing.worker) <= now
        {
            syncing.ticked_ms = now;
            syncing.role.tick();
        }
        self.process.is_ticking.set(false);
        let ids: Vec<usize> = self.clients.keys().copied().collect();
        ids.into_iter().for_each(|id| self.step(id));
        self.settle();
    }

    /// Gives all calls to the ledger. True when it answered one.
    fn answer_calls(&mut self) -> bool {
        let mut some = false;
        while let Some((call, response)) = self.next_call() {
            some = true;
            self.answer_call(&call, response);
        }
        some
    }

    fn next_call(&mut self) -> Option<(Pending, Option<CallResponse>)> {
        let workers = self.running.iter().map(|r| &r.worker).chain(self.syncing.iter().map(|s| &s.worker));
        for worker in workers {
            let mut calls = worker.host.calls.borrow_mut();
            for at in 0..calls.len() {
                assert_eq!(calls[at].cluster, INTERNAL_CLUSTER);
                if let Some(response) = (self.ledger)(&calls[at]) {
                    return Some((calls.remove(at), response));
                }
            }
        }
        None
    }

    /// The response to a call comes, also after its stream is over: a host that is late.
    pub fn answer_call(&mut self, call: &Pending, response: Option<CallResponse>) {
        for running in &self.running {
            running.worker.host.calls.borrow_mut().retain(|known| known.id != call.id);
        }
        let id = call.stream.and_then(|id| usize::try_from(id).ok());
        match id.and_then(|id| self.clients.get_mut(&id)).filter(|client| !client.is_over) {
            Some(client) if self.hands_to_role && call.in_tick => {
                let running = &self.running[client.worker];
                running.worker.host.role.set(client.role);
                running.policies[client.role].0.on_called(call.id, response);
            }
            Some(client) => {
                self.running[client.worker].worker.host.role.set(client.role);
                let turn = client.request.on_called(&client.stream, call.id, response);
                turn.settle(&client.stream, Side::Request);
                self.step(id.unwrap());
            }
            None if call.stream.is_some() => {
                let policies = self.running.iter().flat_map(|running| &running.policies);
                policies.for_each(|(policy, _)| policy.on_called(call.id, response.clone()));
            }
            None => match &mut self.syncing {
                Some(syncing) => syncing.role.on_called(response),
                None => self.running[0].policies[0].0.on_called(call.id, response),
            },
        }
    }
}

impl Ask {
    pub fn chat(body: &Value) -> Ask {
        Ask::to("/v1/chat/completions", body)
    }

    pub fn to(path: &str, body: &Value) -> Ask {
        let headers = Headers::from_pairs(&[(":method", "POST"), (":path", path), (":authority", "gateway")]);
        Ask { headers, parts: vec![body.to_string().into_bytes()], trailers: false, is_open: false }
    }

    pub fn get(path: &str) -> Ask {
        let headers = Headers::from_pairs(&[(":method", "GET"), (":path", path), (":authority", "gateway")]);
        Ask { headers, parts: Vec::new(), trailers: false, is_open: false }
    }

    pub fn with(mut self, name: &str, value: &str) -> Ask {
        self.headers.push(name, value.as_bytes());
        self
    }

    /// Its body comes in parts of so many bytes.
    pub fn in_parts(mut self, size: usize) -> Ask {
        self.parts = self.parts.concat().chunks(size).map(<[u8]>::to_vec).collect();
        self
    }
}

/// How often the sync role is ticked, in milliseconds.
fn period(worker: &Worker<FakeHost>) -> u64 {
    u64::try_from(worker.host.period(0).as_millis()).unwrap()
}

fn pairs(headers: &Headers) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
}

//! The part of Envoy: listener, router, retries, local replies, calls and ticks, as far as the roles can tell.
//!
//! What it does is taken from a real one: the router buffers the client's body and replays it for every attempt, on a header
//! map that all attempts share; the cluster is the one that the stream's state names when an attempt begins; an answer goes to
//! the client unless it is marked for a retry and one is left; a reply of a filter passes the response hooks of its own stream.

mod clock;
mod router;

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
    exchange::{NO_CLUSTER, RETRY_HEADER, attempt_timeout},
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
    /// The response takes its time: the test says what comes, see [`Envoy::respond`].
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
    /// The request's body, as it comes.
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
    /// The stream's worker was replaced: the old one's hooks are not called any more.
    is_orphaned: bool,
    upstream: Option<(FakeStream, Attempt<FakeHost>)>,
    story: Story,
    /// The response is kept back while a call is under way; true: its headers too.
    kept_back: Option<bool>,
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
    role: sync::SyncRole<FakeHost>,
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
        let role = sync::SyncRole::configure(&worker).expect("there is a secret");
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

    /// Calls of workers that were not answered.
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
            kept_back: None,
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
                Order::Resume(Side::Response) => self.resume_response(id),
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

    /// Sends the body in parts of so many bytes.
    pub fn in_parts(mut self, size: usize) -> Ask {
        self.parts = self.parts.concat().chunks(size).map(<[u8]>::to_vec).collect();
        self
    }
}

fn pairs(headers: &Headers) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
}

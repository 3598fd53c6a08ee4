//! A host that is nothing but memory: what the roles' tests run in. The part of Envoy that moves requests through it is in
//! `tests/envoy.rs`.
//!
//! It is as strict as the strictest real host: what a hook asks for is kept until the hook has returned, a body can be changed
//! only while it comes by or is kept back, and code that asks for a reply, a resumption or a call must not be holding anything of
//! the worker's, because the host may call back at once.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
    time::Duration,
};

use hashbrown::HashMap;

use super::worker::Worker;
use crate::core::{
    exchange::seams::Seams,
    headers::Headers,
    host::{
        Attribute, CallId, Callout, HeaderMap, Host, Level, Metric, MetricId, QueueId, Side, Stream, StreamId,
    },
    store::Memory,
};

/// What all workers share.
pub struct Process {
    pub store: Memory,
    pub now_ms: Cell<u64>,
    /// Environment variables.
    pub environment: HashMap<&'static str, String>,
    pub log: RefCell<Vec<(Level, String)>>,
    queues: RefCell<Vec<(String, VecDeque<Vec<u8>>)>>,
    metrics: RefCell<Vec<(String, u64)>>,
    numbers: Cell<u64>,
    /// What looks at the requests of workers that are made from now on.
    pub seams: Cell<fn() -> Seams>,
    /// A tick is running.
    pub is_ticking: Cell<bool>,
}

impl Process {
    pub fn new(environment: HashMap<&'static str, String>) -> Rc<Process> {
        Rc::new(Process {
            store: Memory::default(),
            now_ms: Cell::new(1_000_000_000),
            environment,
            log: RefCell::default(),
            queues: RefCell::default(),
            metrics: RefCell::default(),
            numbers: Cell::new(0),
            seams: Cell::new(Seams::default),
            is_ticking: Cell::new(false),
        })
    }

    /// A number that was not given before.
    pub fn number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// What a metric stands at.
    pub fn metric(&self, name: &str) -> u64 {
        let own =
            self.metrics.borrow().iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value);
        own + self.store.counted(name)
    }

    /// How many values wait in all queues.
    pub fn queued(&self) -> usize {
        self.queues.borrow().iter().map(|(_, values)| values.len()).sum()
    }
}

/// A call whose response is awaited.
#[derive(Clone, Debug)]
pub struct Pending {
    pub id: CallId,
    /// The stream that asked; none for a role of its own.
    pub stream: Option<StreamId>,
    /// Whether the call was made in a tick, not in a hook of the stream.
    pub in_tick: bool,
    pub cluster: String,
    pub path: String,
    pub authorization: String,
    pub body: Vec<u8>,
}

/// One worker's host.
pub struct FakeHost {
    pub process: Rc<Process>,
    configuration: RefCell<String>,
    /// The configuration of the policy role, counted from zero, whose hook is running.
    pub role: Cell<usize>,
    /// How often each of them is ticked.
    periods: RefCell<HashMap<usize, Duration>>,
    /// The streams under way.
    pub streams: RefCell<HashMap<StreamId, FakeStream>>,
    pub calls: Rc<RefCell<Vec<Pending>>>,
    /// Calls cannot even begin: there is no such cluster.
    pub refuses_calls: Rc<Cell<bool>>,
    /// Whose hooks these are.
    pub worker: RefCell<Weak<Worker<FakeHost>>>,
}

impl FakeHost {
    /// A worker in a host of its own.
    pub fn worker(process: &Rc<Process>, configuration: &str) -> Rc<Worker<FakeHost>> {
        let host = FakeHost {
            process: Rc::clone(process),
            configuration: RefCell::new(configuration.to_owned()),
            role: Cell::default(),
            periods: RefCell::default(),
            streams: RefCell::default(),
            calls: Rc::default(),
            refuses_calls: Rc::default(),
            worker: RefCell::default(),
        };
        let worker = Rc::new(Worker::with_seams(host, process.seams.get()()));
        worker.host.worker.replace(Rc::downgrade(&worker));
        worker
    }

    /// The next role is configured with this.
    pub fn configure(&self, configuration: &str) {
        self.configuration.replace(configuration.to_owned());
    }

    /// How often a role is ticked.
    pub fn period(&self, role: usize) -> Duration {
        self.periods.borrow()[&role]
    }

    /// A new stream of the client's, or one beside `other`: an attempt on it.
    pub fn stream(&self, other: Option<&FakeStream>) -> FakeStream {
        let stream = FakeStream(Rc::new(Inner {
            id: self.process.number(),
            process: Rc::clone(&self.process),
            calls: Rc::clone(&self.calls),
            refuses_calls: Rc::clone(&self.refuses_calls),
            worker: self.worker.borrow().clone(),
            request: other.map_or_else(Rc::default, |other| Rc::clone(&other.0.request)),
            state: other.map_or_else(Rc::default, |other| Rc::clone(&other.0.state)),
            attributes: other.map_or_else(Rc::default, |other| Rc::clone(&other.0.attributes)),
            response: RefCell::default(),
            bodies: RefCell::default(),
            orders: RefCell::default(),
        }));
        self.streams.borrow_mut().insert(stream.id(), stream.clone());
        stream
    }

    /// A stream is over: what it asked for is cancelled.
    pub fn end(&self, stream: &FakeStream) {
        self.streams.borrow_mut().remove(&stream.id());
        self.calls.borrow_mut().retain(|call| call.stream != Some(stream.id()));
    }
}

fn pending(
    process: &Process,
    calls: &RefCell<Vec<Pending>>,
    stream: Option<StreamId>,
    callout: &Callout<'_>,
) -> CallId {
    let id = process.number();
    let header = |name: &str| {
        let found = callout.headers.iter().find(|(known, _)| *known == name);
        found.map_or_else(String::new, |(_, value)| (*value).to_owned())
    };
    assert!(!header(":method").is_empty() && !header(":authority").is_empty() && !callout.limit.is_zero());
    calls.borrow_mut().push(Pending {
        id,
        stream,
        in_tick: process.is_ticking.get(),
        cluster: callout.cluster.to_owned(),
        path: header(":path"),
        authorization: header("authorization"),
        body: callout.body.unwrap_or_default().to_vec(),
    });
    id
}

impl Host for FakeHost {
    type Store = Memory;
    type Stream = FakeStream;

    fn store(&self) -> &Memory {
        &self.process.store
    }

    fn now_ms(&self) -> u64 {
        self.process.now_ms.get()
    }

    // The same in every run.
    fn random(&self) -> u64 {
        crate::core::random::Random::new(self.process.number()).bits()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.process.environment.get(name).cloned()
    }

    fn configuration(&self) -> Vec<u8> {
        self.configuration.borrow().clone().into_bytes()
    }

    fn enter(&self, id: StreamId) -> Option<FakeStream> {
        self.streams.borrow().get(&id).cloned()
    }

    fn tick_every(&self, period: Duration) {
        self.periods.borrow_mut().insert(self.role.get(), period);
    }

    fn call(&self, callout: &Callout<'_>) -> Option<CallId> {
        assert_free(&self.worker.borrow());
        (!self.refuses_calls.get()).then(|| pending(&self.process, &self.calls, None, callout))
    }

    fn make_queue(&self, name: &str) -> Option<QueueId> {
        self.find_queue(name).or_else(|| {
            self.process.queues.borrow_mut().push((name.to_owned(), VecDeque::new()));
            self.find_queue(name)
        })
    }

    fn find_queue(&self, name: &str) -> Option<QueueId> {
        let at = self.process.queues.borrow().iter().position(|(known, _)| known == name)?;
        QueueId::try_from(at).ok()
    }

    fn enqueue(&self, queue: QueueId, value: &[u8]) -> bool {
        let mut queues = self.process.queues.borrow_mut();
        queues.get_mut(queue as usize).map(|(_, values)| values.push_back(value.to_vec())).is_some()
    }

    fn dequeue(&self, queue: QueueId) -> Option<Vec<u8>> {
        self.process.queues.borrow_mut().get_mut(queue as usize)?.1.pop_front()
    }

    fn metric(&self, _kind: Metric, name: &str) -> Option<MetricId> {
        let mut metrics = self.process.metrics.borrow_mut();
        let at = metrics.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            metrics.push((name.to_owned(), 0));
            metrics.len() - 1
        });
        MetricId::try_from(at).ok()
    }

    fn add(&self, counter: MetricId, by: u64) {
        self.process.metrics.borrow_mut()[counter as usize].1 += by;
    }

    fn record(&self, metric: MetricId, value: u64) {
        self.process.metrics.borrow_mut()[metric as usize].1 = value;
    }

    fn value(&self, metric: MetricId) -> Option<u64> {
        self.process.metrics.borrow().get(metric as usize).map(|(_, value)| *value)
    }

    fn is_watched(&self) -> bool {
        true
    }

    fn log(&self, level: Level, message: &str) {
        self.process.log.borrow_mut().push((level, message.to_owned()));
    }
}

/// What a hook has asked for.
pub enum Order {
    Reply(Headers, Vec<u8>),
    Resume(Side),
}

/// A stream. Copies are the same stream.
#[derive(Clone)]
pub struct FakeStream(Rc<Inner>);

struct Inner {
    id: StreamId,
    process: Rc<Process>,
    calls: Rc<RefCell<Vec<Pending>>>,
    refuses_calls: Rc<Cell<bool>>,
    worker: Weak<Worker<FakeHost>>,
    /// One map for the client's stream and for all attempts, as in Envoy: what an attempt leaves the next one finds.
    request: Rc<RefCell<Headers>>,
    response: RefCell<Headers>,
    /// What is kept back and the newest part; none when nothing comes by.
    bodies: RefCell<[Option<Vec<u8>>; 2]>,
    state: Rc<RefCell<HashMap<String, Vec<u8>>>>,
    attributes: Rc<RefCell<HashMap<&'static str, Vec<u8>>>>,
    orders: RefCell<Vec<Order>>,
}

/// Nothing of the worker's may be held when the host is asked for what may come back at once.
fn assert_free(worker: &Weak<Worker<FakeHost>>) {
    if let Some(worker) = worker.upgrade() {
        assert!(worker.is_free(), "a host was called with something of the worker's in hand");
    }
}

impl FakeStream {
    /// What hooks have asked for since.
    pub fn orders(&self) -> Vec<Order> {
        self.0.orders.take()
    }

    pub fn set_headers(&self, map: HeaderMap, headers: Headers) {
        self.map(map).replace(headers);
    }

    pub fn set_body(&self, side: Side, body: Option<Vec<u8>>) {
        self.0.bodies.borrow_mut()[side as usize] = body;
    }

    pub fn take_body(&self, side: Side) -> Vec<u8> {
        self.0.bodies.borrow_mut()[side as usize].take().unwrap_or_default()
    }

    pub fn set_attribute(&self, attribute: Attribute, value: &str) {
        self.0.attributes.borrow_mut().insert(name_of(attribute), value.as_bytes().to_vec());
    }

    /// A value stored with the stream, as text.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.state(name).unwrap_or_default()).unwrap()
    }

    fn map(&self, map: HeaderMap) -> &RefCell<Headers> {
        match map {
            HeaderMap::Request => &self.0.request,
            HeaderMap::Response => &self.0.response,
            HeaderMap::RequestTrailers | HeaderMap::ResponseTrailers => panic!("no role looks at trailers"),
        }
    }
}

fn name_of(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::ClientAddress => "client",
        Attribute::UpstreamLocalAddress => "local",
        Attribute::ResponseCodeDetails => "details",
        Attribute::UpstreamFailure => "failure",
    }
}

impl Stream for FakeStream {
    fn id(&self) -> StreamId {
        self.0.id
    }

    fn headers(&self, map: HeaderMap) -> Headers {
        self.map(map).borrow().clone()
    }

    fn replace_headers(&self, map: HeaderMap, headers: &Headers) {
        self.map(map).replace(headers.clone());
    }

    fn set_header(&self, map: HeaderMap, name: &str, value: Option<&str>) {
        let map = self.map(map);
        let old = map.take();
        let mut new: Headers = old.iter().filter(|(known, _)| *known != name).collect();
        value.inspect(|value| new.push(name, value.as_bytes()));
        map.replace(new);
    }

    fn body(&self, side: Side) -> Vec<u8> {
        self.0.bodies.borrow()[side as usize].clone().unwrap_or_default()
    }

    fn replace_body(&self, side: Side, body: &[u8]) {
        let kept = &mut self.0.bodies.borrow_mut()[side as usize];
        assert!(kept.is_some(), "there is no body to change now");
        *kept = Some(body.to_vec());
    }

    fn state(&self, name: &str) -> Option<Vec<u8>> {
        self.0.state.borrow().get(name).cloned()
    }

    fn set_state(&self, name: &str, value: &[u8]) {
        self.0.state.borrow_mut().insert(name.to_owned(), value.to_vec());
    }

    fn attribute(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.0.attributes.borrow().get(name_of(attribute)).cloned()
    }

    fn call(&self, callout: &Callout<'_>) -> Option<CallId> {
        assert_free(&self.0.worker);
        (!self.0.refuses_calls.get())
            .then(|| pending(&self.0.process, &self.0.calls, Some(self.0.id), callout))
    }

    fn reply(&self, status: u16, headers: &[(String, String)], body: &[u8]) {
        assert_free(&self.0.worker);
        let line = status.to_string();
        let list = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = [(":status", line.as_bytes())].into_iter().chain(list).collect();
        self.0.orders.borrow_mut().push(Order::Reply(headers, body.to_vec()));
    }

    fn resume(&self, side: Side) {
        assert_free(&self.0.worker);
        self.0.orders.borrow_mut().push(Order::Resume(side));
    }
}

//! A pretended Envoy under the door: the callbacks of [`abi`](super::abi) over plain memory, for tests.
//!
//! It is as strict as the real one, and louder: what it lent is overwritten as soon as something of it is changed, replies run
//! through the hooks of the same stream at once, and a filter that was destroyed is not known any more.

#![allow(unsafe_code, reason = "it stands where Envoy's functions stand")]

use std::{cell::RefCell, collections::HashMap};

use super::abi::{Buffer, Header, Opaque};

/// What was sent to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub status: u32,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// A filter's side of a stream.
#[derive(Default)]
pub struct Side {
    pub maps: [Vec<(Vec<u8>, Vec<u8>)>; 4],
    /// `None`: there is no such body now.
    pub bodies: [Option<Vec<u8>>; 4],
    pub sent: Vec<Sent>,
    pub resumed: Vec<&'static str>,
    /// Cluster, path and body of calls.
    pub calls: Vec<(String, String, Vec<u8>)>,
    pub cleared: usize,
    /// Our object, for replies that come back through its hooks.
    pub ours: usize,
    /// The stream's state, by the number of the stream.
    pub stream: usize,
}

/// All of it, on this thread.
#[derive(Default)]
pub struct World {
    pub sides: HashMap<usize, Side>,
    pub states: HashMap<(usize, Vec<u8>), Vec<u8>>,
    pub attributes: HashMap<u32, Vec<u8>>,
    pub log: Vec<(u32, String)>,
    /// Calls cannot be begun.
    pub refuses_calls: bool,
    /// Schedulers that live.
    pub schedulers: Vec<usize>,
    /// Counters by family and values of labels.
    pub counters: HashMap<String, u64>,
    families: Vec<String>,
    pub timers: Vec<u64>,
    /// What was lent, to be overwritten.
    lent: Vec<(*mut u8, usize)>,
    last: usize,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// Looks at it, or changes it.
pub fn world<T>(look: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(look)
}

/// A filter of Envoy's, of this stream.
pub fn make(stream: usize) -> Opaque {
    world(|world| {
        world.last += 1;
        let id = world.last;
        world.sides.insert(id, Side { stream, ..Side::default() });
        id as Opaque
    })
}

/// Looks at a filter.
pub fn side<T>(filter: Opaque, look: impl FnOnce(&mut Side) -> T) -> T {
    world(|world| look(world.sides.get_mut(&(filter as usize)).expect("a filter that is not destroyed")))
}

impl World {
    /// Memory that is lent until something is changed.
    fn lend(&mut self, bytes: &[u8]) -> Buffer {
        let kept: &'static mut [u8] = Box::leak(bytes.to_vec().into_boxed_slice());
        self.lent.push((kept.as_mut_ptr(), kept.len()));
        Buffer::of(kept)
    }

    /// What was lent is not to be read any more.
    fn take_back(&mut self) {
        for (pointer, length) in self.lent.drain(..) {
            // SAFETY: it was leaked by `lend`, and nobody writes it but this.
            unsafe { std::slice::from_raw_parts_mut(pointer, length) }.fill(0xee);
        }
    }
}

unsafe fn read(buffer: Buffer) -> Vec<u8> {
    // SAFETY: what the door lends lives for the time of a call.
    unsafe { buffer.bytes() }.to_vec()
}

unsafe fn text(buffer: Buffer) -> String {
    // SAFETY: as above.
    String::from_utf8(unsafe { read(buffer) }).expect("text")
}

unsafe fn pairs(headers: *const Header, count: usize) -> Vec<(String, String)> {
    // SAFETY: as above.
    unsafe {
        super::abi::list(headers, count)
            .iter()
            .map(|header| (text(header.name), text(header.value)))
            .collect()
    }
}

pub unsafe fn log(level: u32, message: Buffer) {
    let message = unsafe { text(message) };
    world(|world| world.log.push((level, message)));
}

pub unsafe fn log_enabled(_level: u32) -> bool {
    false
}

pub unsafe fn get_headers_size(filter: Opaque, map: u32) -> usize {
    side(filter, |side| side.maps[map as usize].len())
}

pub unsafe fn get_headers(filter: Opaque, map: u32, headers: *mut Header) -> bool {
    let list = side(filter, |side| side.maps[map as usize].clone());
    for (at, (name, value)) in list.iter().enumerate() {
        let header = world(|world| Header { name: world.lend(name), value: world.lend(value) });
        // SAFETY: the door made room for as many as there are.
        unsafe { headers.add(at).write(header) };
    }
    !list.is_empty()
}

pub unsafe fn set_header(filter: Opaque, map: u32, name: Buffer, value: Buffer) -> bool {
    let (name, value) = unsafe { (read(name), (!value.is_none()).then(|| read(value))) };
    world(World::take_back);
    side(filter, |side| {
        let map = &mut side.maps[map as usize];
        let first = map.iter().position(|(known, _)| *known == name);
        map.retain(|(known, _)| *known != name);
        if let Some(value) = value {
            map.insert(first.unwrap_or(map.len()).min(map.len()), (name, value));
        }
    });
    true
}

pub unsafe fn add_header(filter: Opaque, map: u32, name: Buffer, value: Buffer) -> bool {
    let header = unsafe { (read(name), read(value)) };
    world(World::take_back);
    side(filter, |side| side.maps[map as usize].push(header));
    true
}

pub unsafe fn get_body_size(filter: Opaque, body: u32) -> usize {
    side(filter, |side| side.bodies[body as usize].as_ref().map_or(0, Vec::len))
}

// Two chunks where there are enough bytes, as a body on its way has.
pub unsafe fn get_body_chunks_size(filter: Opaque, body: u32) -> usize {
    side(filter, |side| side.bodies[body as usize].as_ref().map_or(0, |body| body.len().min(2)))
}

pub unsafe fn get_body_chunks(filter: Opaque, body: u32, chunks: *mut Buffer) -> bool {
    let Some(bytes) = side(filter, |side| side.bodies[body as usize].clone()) else { return false };
    let (a, b) = bytes.split_at(bytes.len() / 2);
    let parts = if bytes.len() > 1 { vec![a, b] } else { vec![bytes.as_slice()] };
    for (at, part) in parts.into_iter().enumerate() {
        let part = world(|world| world.lend(part));
        // SAFETY: the door made room for as many as there are.
        unsafe { chunks.add(at).write(part) };
    }
    true
}

pub unsafe fn append_body(filter: Opaque, body: u32, bytes: Buffer) -> bool {
    let bytes = unsafe { read(bytes) };
    world(World::take_back);
    side(filter, |side| match &mut side.bodies[body as usize] {
        Some(body) => {
            body.extend_from_slice(&bytes);
            true
        }
        None => false,
    })
}

pub unsafe fn drain_body(filter: Opaque, body: u32, count: usize) -> bool {
    world(World::take_back);
    side(filter, |side| match &mut side.bodies[body as usize] {
        Some(body) => {
            body.drain(..count.min(body.len()));
            true
        }
        None => false,
    })
}

pub unsafe fn set_filter_state(filter: Opaque, key: Buffer, value: Buffer) -> bool {
    let (key, value) = unsafe { (read(key), read(value)) };
    world(World::take_back);
    let stream = side(filter, |side| side.stream);
    world(|world| world.states.insert((stream, key), value));
    true
}

pub unsafe fn get_filter_state(filter: Opaque, key: Buffer, value: *mut Buffer) -> bool {
    let key = unsafe { read(key) };
    let stream = side(filter, |side| side.stream);
    let Some(found) = world(|world| world.states.get(&(stream, key)).cloned()) else { return false };
    // SAFETY: the door's own variable.
    unsafe { value.write(world(|world| world.lend(&found))) };
    true
}

pub unsafe fn get_attribute(_filter: Opaque, attribute: u32, value: *mut Buffer) -> bool {
    let Some(found) = world(|world| world.attributes.get(&attribute).cloned()) else { return false };
    // SAFETY: the door's own variable.
    unsafe { value.write(world(|world| world.lend(&found))) };
    true
}

pub unsafe fn clear_route_cluster_cache(filter: Opaque) {
    side(filter, |side| side.cleared += 1);
}

// The reply runs through the response hooks of the same stream before this returns.
pub unsafe fn send_response(
    filter: Opaque,
    status: u32,
    headers: *const Header,
    count: usize,
    body: Buffer,
    _details: Buffer,
) {
    let sent = unsafe { Sent { status, headers: pairs(headers, count), body: text(body) } };
    let ours = side(filter, |side| {
        side.maps[2] = vec![(b":status".to_vec(), status.to_string().into_bytes())];
        side.sent.push(sent);
        side.ours
    });
    if ours != 0 {
        // SAFETY: the filter has not been destroyed: its side is known.
        unsafe {
            super::hooks::envoy_dynamic_module_on_http_filter_response_headers(filter, ours as Opaque, false)
        };
    }
}

pub unsafe fn continue_decoding(filter: Opaque) {
    side(filter, |side| side.resumed.push("request"));
}

pub unsafe fn continue_encoding(filter: Opaque) {
    side(filter, |side| side.resumed.push("response"));
}

pub unsafe fn http_callout(
    filter: Opaque,
    id: *mut u64,
    cluster: Buffer,
    headers: *const Header,
    count: usize,
    body: Buffer,
    _limit_ms: u64,
) -> u32 {
    if world(|world| world.refuses_calls) {
        return 4;
    }
    let (cluster, headers, body) = unsafe { (text(cluster), pairs(headers, count), read(body)) };
    let path =
        headers.into_iter().find(|(name, _)| name == ":path").map(|(_, path)| path).unwrap_or_default();
    let envoys = side(filter, |side| {
        side.calls.push((cluster, path, body));
        side.calls.len() as u64
    });
    // SAFETY: the door's own variable.
    unsafe { id.write(envoys) };
    0
}

pub unsafe fn scheduler_new(_filter: Opaque) -> Opaque {
    world(|world| {
        world.last += 1;
        let id = world.last;
        world.schedulers.push(id);
        id as Opaque
    })
}

// It comes from a thread of the door's own, which has no world: tests call the hook themselves.
pub unsafe fn scheduler_commit(_scheduler: Opaque, _event: u64) {}

pub unsafe fn scheduler_delete(scheduler: Opaque) {
    world(|world| {
        let at = world.schedulers.iter().position(|known| *known == scheduler as usize);
        world.schedulers.remove(at.expect("a scheduler that lives"));
    });
}

pub unsafe fn define_counter(
    _extension: Opaque,
    name: Buffer,
    labels: *const Buffer,
    count: usize,
    id: *mut usize,
) -> u32 {
    let name = unsafe { text(name) };
    let labels: Vec<String> =
        unsafe { super::abi::list(labels, count).iter().map(|label| text(*label)).collect() };
    let at = world(|world| {
        world.families.push(format!("{name}({})", labels.join(",")));
        world.families.len() - 1
    });
    // SAFETY: the door's own variable.
    unsafe { id.write(at) };
    0
}

pub unsafe fn increment_counter(
    _extension: Opaque,
    id: usize,
    values: *const Buffer,
    count: usize,
    by: u64,
) -> u32 {
    let values: Vec<String> =
        unsafe { super::abi::list(values, count).iter().map(|value| text(*value)).collect() };
    world(|world| {
        let name = format!("{}={}", world.families[id], values.join(","));
        *world.counters.entry(name).or_default() += by;
    });
    0
}

pub unsafe fn timer_new(_extension: Opaque) -> Opaque {
    1 as Opaque
}

pub unsafe fn timer_enable(_timer: Opaque, ms: u64) {
    world(|world| world.timers.push(ms));
}

pub unsafe fn extension_http_callout(
    _extension: Opaque,
    _id: *mut u64,
    _cluster: Buffer,
    _headers: *const Header,
    _count: usize,
    _body: Buffer,
    _limit_ms: u64,
) -> u32 {
    4
}

pub unsafe fn signal_init_complete(_extension: Opaque) {}

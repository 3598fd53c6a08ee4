//! The router: attempts, retries, and answers on their way to the client.

use super::*;

impl Envoy {
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
        if cluster == NO_CLUSTER
            || !(self.models.contains_key(&cluster) || cluster == attempt_timeout::TIMED_CLUSTER)
        {
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
        let cluster = match cluster == attempt_timeout::TIMED_CLUSTER {
            true => headers.text(attempt_timeout::CLUSTER_HEADER).unwrap().to_owned(),
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
            _ if self.is_calling(id) => self.clients.get_mut(&id).unwrap().kept_back = Some(is_held),
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

    /// Whether an attempt waits for the response to a call.
    fn is_calling(&self, id: usize) -> bool {
        let client = &self.clients[&id];
        let stream = client.upstream.as_ref().map(|(stream, _)| stream.id());
        let calls = self.running[client.worker].worker.host.calls.borrow();
        stream.is_some() && calls.iter().any(|call| call.stream == stream)
    }

    /// An attempt lets its response go, which has come to its end by now.
    pub(super) fn resume_response(&mut self, id: usize) {
        let client = self.clients.get_mut(&id).unwrap();
        let Some(is_held) = client.kept_back.take() else { panic!("nothing is kept back") };
        let (stream, _) = client.upstream.as_ref().unwrap();
        let stream = stream.clone();
        let body = stream.take_body(Side::Response);
        if is_held && !self.pass_on(id, &stream) {
            return;
        }
        self.give(id, &body);
        self.end(id, false);
    }
}

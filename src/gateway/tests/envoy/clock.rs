//! Time that passes, with the ticks that fall into it, and calls whose responses come.

use super::*;

impl Envoy {
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
    pub(super) fn answer_calls(&mut self) -> bool {
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
                assert!([INTERNAL_CLUSTER, "guard"].contains(&calls[at].cluster.as_str()));
                if let Some(response) = (self.ledger)(&calls[at]) {
                    return Some((calls.remove(at), response));
                }
            }
        }
        None
    }

    /// Gives the response to the attempt that called. False when none did.
    fn answer_attempt(&mut self, call: &Pending, response: &Option<CallResponse>) -> bool {
        for (id, client) in self.clients.iter_mut().filter(|(_, client)| !client.is_over) {
            let Some((stream, attempt)) = &mut client.upstream else { continue };
            if Some(stream.id()) == call.stream {
                self.running[client.worker].worker.host.role.set(client.role);
                attempt.on_called(stream, response.clone()).settle(stream, Side::Response);
                let id = *id;
                self.step(id);
                return true;
            }
        }
        false
    }

    /// The response to a call comes, also after its stream is over: a host that is late.
    pub fn answer_call(&mut self, call: &Pending, response: Option<CallResponse>) {
        for running in &self.running {
            running.worker.host.calls.borrow_mut().retain(|known| known.id != call.id);
        }
        if self.answer_attempt(call, &response) {
            return;
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

/// How often the sync role is ticked, in milliseconds.
fn period(worker: &Worker<FakeHost>) -> u64 {
    u64::try_from(worker.host.period(0).as_millis()).unwrap()
}

//! Where the two roles of a worker meet: the requests under way, by id.
//!
//! The policy role files an exchange and names its id in filter state; the provider role, in the upstream chain of the same
//! request, finds it there. Nothing is serialised and nothing is parsed twice.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use hashbrown::HashMap;

use crate::core::{exchange::Exchange, host::Stream};

/// A request that both roles hold.
pub type ExchangeRef = Rc<RefCell<Exchange>>;

/// The name in filter state of the exchange's id.
const ID: &str = "tollgate.exchange";

/// The requests under way.
#[derive(Default)]
pub struct Exchanges(RefCell<HashMap<u64, Weak<RefCell<Exchange>>>>);

impl Exchanges {
    /// Files an exchange and names it in the stream's filter state.
    pub fn file(&self, exchange: &ExchangeRef, stream: &impl Stream) {
        let Ok(id) = exchange.try_borrow().map(|exchange| exchange.id) else { return };
        if let Ok(mut table) = self.0.try_borrow_mut() {
            // Each is taken out when its stream is over. Should the host ever fail to say so, the table still stays as large
            // as what is under way.
            if table.len() == table.capacity() {
                table.retain(|_, exchange| exchange.strong_count() > 0);
            }
            table.insert(id, Rc::downgrade(exchange));
        }
        stream.set_state(ID, &id.to_le_bytes());
    }

    /// The exchange of a stream.
    pub fn find(&self, stream: &impl Stream) -> Option<ExchangeRef> {
        let id = u64::from_le_bytes(stream.state(ID)?.try_into().ok()?);
        self.0.try_borrow().ok()?.get(&id)?.upgrade()
    }

    /// Takes an exchange out.
    pub fn forget(&self, id: u64) {
        if let Ok(mut table) = self.0.try_borrow_mut() {
            table.remove(&id);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether no hook has one of them in hand.
    #[cfg(test)]
    pub fn are_free(&self) -> bool {
        let is_free = |exchange: &Weak<RefCell<Exchange>>| {
            exchange.upgrade().is_none_or(|exchange| exchange.try_borrow_mut().is_ok())
        };
        self.0.try_borrow_mut().is_ok_and(|table| table.values().all(is_free))
    }
}

//! The states that a transaction is decided on.

use crate::algorithms::State;

/// Where [`run`](super::run) finds the states of a transaction's counters.
pub trait States {
    /// The state of the counter of check `index`; of an unused one, [`State::new`].
    fn read(&self, index: usize) -> &State;

    /// The same, to be changed.
    fn write(&mut self, index: usize) -> &mut State;

    /// The first check of the transaction that is about the counter of check `index`.
    fn first(&self, index: usize) -> usize;
}

//! Access to the states of a transaction's counters.

use crate::algorithms::State;

/// Gives [`run`](super::run) the states of a transaction's counters.
pub trait States {
    /// The state of the counter of check `index`; of an unused one, [`State::new`].
    fn read(&self, index: usize) -> &State;

    /// The state of the counter of check `index`, to be changed.
    fn write(&mut self, index: usize) -> &mut State;

    /// Index of the transaction's first check with the same counter as check `index`.
    fn first(&self, index: usize) -> usize;
}

//! What the operator's API shows of recent traffic: heavy hitters, samples of denials, reloads.
//!
//! The request path writes here once for each counted descriptor, into a sketch that belongs to its thread; everything
//! else happens when the ticker or a reader collects.

mod events;
mod heaviest;
mod noted;
mod sketch;
mod top;
mod window;

use std::sync::Arc;

use crate::model::Clock;

pub use events::{Event, Events, MAX_EVENTS, MAX_RELOADS, Reload};
pub use heaviest::among_heaviest;
pub use noted::Noted;
pub use top::{By, History, Hitter, Span, Top, TopList};

/// Recent traffic of this process.
#[derive(Debug)]
pub struct Activity {
    /// Heavy hitters; `None` when they are off.
    pub top: Option<Top>,
    /// The same for the counters of candidate limits; without any of them it takes no memory.
    pub candidates: Option<Top>,
    /// What happens, as it happens.
    pub events: Events,
}

impl Activity {
    /// Nothing seen yet. With `top` false no heavy hitters are kept.
    #[must_use]
    pub fn new(top: bool, clock: Arc<dyn Clock>) -> Self {
        Self {
            top: top.then(Top::default),
            candidates: top.then(Top::default),
            events: Events::new(clock),
        }
    }
}

//! Limits from outside of the rules: which plan a value has, from a table that is replaced as a whole.
//!
//! A rule names a [`PlanSource`] and the plan of values that it does not know. The source's reader builds a [`PlanTable`]
//! on a thread of its own and puts it in force by one swap; a request looks into the one that is there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use super::amount::{Amount, LimitPlan};
use super::defaults::Defaults;
pub use super::plan_rows::{PlanRow, PlanRowError, PlanRows, PlanWord};
use crate::model::Limit;

/// Where the plans of a rule's values come from.
#[derive(Debug, Clone)]
pub struct PlanFrom {
    /// The source.
    pub source: Arc<PlanSource>,
    /// The plan of values without an entry.
    pub default: Arc<LimitPlan>,
}

/// What a source is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanOrigin {
    /// A file.
    File {
        /// Its path as it can be opened.
        path: Arc<str>,
        /// The same as the rules have it, relative to their file.
        written: Arc<str>,
    },
    /// A hash in the store's Redis, by its key.
    Redis(Arc<str>),
    /// A URL.
    Http {
        /// It.
        url: Arc<str>,
        /// Between two questions.
        every: Duration,
    },
}

impl fmt::Display for PlanOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "file {path}"),
            Self::Redis(hash) => write!(f, "Redis hash {hash}"),
            Self::Http { url, every } => write!(f, "{url} every {}s", every.as_secs()),
        }
    }
}

/// A source of plans, with the table that is in force.
#[derive(Debug)]
pub struct PlanSource {
    /// The domain of the rules file that names it.
    pub domain: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
    /// Where its entries are.
    pub from: PlanOrigin,
    /// The plans that entries may name: those of the rules file, by name.
    pub plans: Box<[Arc<LimitPlan>]>,
    /// What limits count by that an entry has for itself.
    pub defaults: Defaults,
    table: ArcSwapOption<PlanTable>,
}

impl PlanSource {
    /// A source that has not been read: every value has the default.
    #[must_use]
    pub fn new(
        (domain, name): (Arc<str>, Arc<str>),
        from: PlanOrigin,
        plans: Box<[Arc<LimitPlan>]>,
        defaults: Defaults,
    ) -> Self {
        Self {
            domain,
            name,
            from,
            plans,
            defaults,
            table: ArcSwapOption::empty(),
        }
    }

    /// The plan of this name.
    #[must_use]
    pub fn plan(&self, name: &str) -> Option<&Arc<LimitPlan>> {
        self.plans.iter().find(|plan| &*plan.name == name)
    }

    /// Puts a table in force. The one before is given back: it is to be let go where nobody waits for that.
    pub fn replace(&self, rows: Arc<PlanRows>) -> Option<Arc<PlanTable>> {
        let word = |word: &PlanWord| match word {
            PlanWord::Plan(name) => self.plan(name).cloned(),
            PlanWord::Own(plan) => Some(Arc::clone(plan)),
        };
        let words = rows.words().iter().map(word).collect();
        self.table.swap(Some(Arc::new(PlanTable { rows, words })))
    }

    /// The rows in force; `None` while nothing has been read.
    #[must_use]
    pub fn rows(&self) -> Option<Arc<PlanRows>> {
        self.table.load().as_ref().map(|table| Arc::clone(&table.rows))
    }

    /// The limits of its plans, and of entries that have one of their own.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        let table = self.table.load();
        let given = table.iter().flat_map(|table| table.words.iter().flatten());
        let all = self.plans.iter().chain(given);
        all.filter_map(|plan| plan.amount.limit).collect()
    }

    /// Whether both are read from the same place for the same rules.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.domain, &self.name, &self.from) == (&other.domain, &other.name, &other.from)
    }
}

impl PlanFrom {
    /// Whether the source has an entry for a value that has expired at a time.
    #[must_use]
    pub fn has_expired(&self, value: &str, now_us: u64) -> bool {
        let table = self.source.table.load();
        table
            .as_ref()
            .is_some_and(|table| table.rows.has_expired(value.as_bytes(), now_us))
    }

    /// The plan that the source gives a value at a time; `None` = it gives none, so the default holds.
    #[must_use]
    pub fn given(&self, value: &str, now_us: u64) -> Option<Arc<LimitPlan>> {
        let table = self.source.table.load();
        let table = table.as_ref()?;
        table.words.get(table.rows.word_of(value.as_bytes(), now_us)?)?.clone()
    }
}

/// Compares what is configured; not what was read.
impl PartialEq for PlanFrom {
    fn eq(&self, other: &Self) -> bool {
        self.source.is_same_place(&other.source)
            && self.source.plans == other.source.plans
            && self.default == other.default
    }
}

/// A table in force: rows, and what their words mean by the rules in force.
#[derive(Debug)]
pub struct PlanTable {
    rows: Arc<PlanRows>,
    /// `None` = a plan that the rules have no more.
    words: Box<[Option<Arc<LimitPlan>>]>,
}

impl PlanTable {
    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.rows.len()
    }
}

//! The texts of the scripts that decide in Redis, and which of them a call needs.

use std::sync::OnceLock;

use crate::model::{AlgorithmKind, Limit};

/// Reads what a call asks for.
const CALL: &str = include_str!("call.lua");
const PRELUDE: &str = include_str!("prelude.lua");
/// Decides a check that is alone.
const CHECK: &str = include_str!("check.lua");
/// Decides all others.
const TRANSACTION: &str = include_str!("transaction.lua");

/// Texts by position in [`AlgorithmKind::ALL`].
const ALGORITHMS: [&str; AlgorithmKind::ALL.len()] = [
    include_str!("../../algorithms/sliding_window/script.lua"),
    include_str!("../../algorithms/sliding_log/script.lua"),
    include_str!("../../algorithms/token_bucket/script.lua"),
    include_str!("../../algorithms/leaky_bucket/script.lua"),
    include_str!("../../algorithms/fixed_window/script.lua"),
    include_str!("../../algorithms/concurrency/script.lua"),
];

/// Holds beside any algorithm: the functions for a single check with holds, and those for transactions.
const HELD: &str = include_str!("../../algorithms/held/script.lua");
const HELD_MORE: &str = include_str!("../../algorithms/held/more.lua");
/// Decides holds and settlements that are alone in their transactions, as nearly all are, at half the cost of the general
/// functions.
const HELD_QUICK: &str = include_str!("../../algorithms/held/quick.lua");

/// The script of a call: it has the call's algorithms and no others, since Redis runs all of a script on each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScriptId(u8);

impl ScriptId {
    /// The number of scripts.
    pub const COUNT: usize = Self::HOLDS << 1;
    /// The script without algorithms.
    pub(super) const NONE: Self = Self(0);
    /// The bit that says that limits have holds.
    const HOLDS: usize = 1 << AlgorithmKind::ALL.len();

    /// Its index in tables, below [`Self::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The script of one algorithm.
    #[must_use]
    pub const fn of(kind: AlgorithmKind) -> Self {
        Self(1 << kind as u8)
    }

    /// The script of one algorithm with its holds.
    #[must_use]
    pub const fn held(kind: AlgorithmKind) -> Self {
        Self(Self::of(kind).0 | Self::HOLDS as u8)
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The script that a limit needs.
    pub(super) const fn of_limit(limit: &Limit) -> Self {
        let kind = limit.algorithm.kind();
        if limit.hold_us > 0 {
            Self::held(kind)
        } else {
            Self::of(kind)
        }
    }

    /// The script's text; made once.
    #[must_use]
    pub fn source(self) -> &'static str {
        static SOURCES: [OnceLock<String>; ScriptId::COUNT] = [const { OnceLock::new() }; ScriptId::COUNT];
        SOURCES
            .get(self.index())
            .map_or("", |source| source.get_or_init(|| self.assemble()))
    }

    fn assemble(self) -> String {
        let mut needed = self;
        for (kind, base) in [
            (AlgorithmKind::LeakyBucket, AlgorithmKind::TokenBucket),
            (AlgorithmKind::Concurrency, AlgorithmKind::SlidingWindow),
        ] {
            if self.has(kind) {
                needed = needed.with(Self::of(base));
            }
        }
        let holds = self.index() & Self::HOLDS != 0;
        let kinds = AlgorithmKind::ALL.into_iter().zip(ALGORITHMS);
        let algorithms = kinds.filter_map(|(kind, text)| needed.has(kind).then_some(text));
        let parts = [CALL]
            .into_iter()
            .chain(holds.then_some(HELD_QUICK))
            .chain([PRELUDE])
            .chain(algorithms)
            .chain(holds.then_some(HELD))
            .chain([CHECK])
            .chain(holds.then_some(HELD_MORE))
            .chain([TRANSACTION]);
        parts.collect::<Vec<_>>().join("\n")
    }

    const fn has(self, kind: AlgorithmKind) -> bool {
        self.0 & Self::of(kind).0 != 0
    }
}

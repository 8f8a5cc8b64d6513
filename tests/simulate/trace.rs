//! What happened in a run: always as a number that two runs can be compared by, on demand as text.

use std::hash::{DefaultHasher, Hash, Hasher};

#[derive(Default)]
pub struct Trace {
    hash: DefaultHasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub fn new(is_shown: bool) -> Self {
        Self {
            lines: is_shown.then(Vec::new),
            ..Self::default()
        }
    }

    /// Something happened; `numbers` tell it from other things of its kind.
    pub fn note(&mut self, at_ms: u64, kind: &str, numbers: &[u64], text: impl FnOnce() -> String) {
        (at_ms, kind, numbers).hash(&mut self.hash);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{at_ms:>6} ms  {kind} {}", text()));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub fn lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

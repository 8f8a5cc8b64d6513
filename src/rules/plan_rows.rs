//! The entries of a source of plans. Values lie one behind the other in one buffer, so that a million of them are a few large
//! allocations: tens of bytes each, and freed in no time.

use std::fmt;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use super::amount::LimitPlan;
use crate::model::time::SECOND_US;

/// Most entries of a table.
pub const MAX_ENTRIES: usize = 10_000_000;
/// Most different words (plans and limits) of a table.
pub const MAX_WORDS: usize = 65_536;
/// Bytes of all values of a table.
pub const MAX_VALUE_BYTES: usize = 1 << 30;

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanWord {
    /// A plan, by its name.
    Plan(Arc<str>),
    /// A limit of its own.
    Own(Arc<LimitPlan>),
}

/// No end.
const NEVER: u32 = u32::MAX;

/// One entry. Its value reaches up to where the next one's begins.
#[derive(Debug, Clone, Copy)]
struct PlanRow {
    start: u32,
    word: u32,
    /// Seconds since the Unix epoch.
    expires_s: u32,
}

/// The entries of a source, as they were read.
pub struct PlanRows {
    values: Vec<u8>,
    rows: Vec<PlanRow>,
    index: HashTable<u32>,
    hash: RandomState,
    words: Vec<PlanWord>,
}

impl fmt::Debug for PlanRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanRows({})", self.rows.len())
    }
}

/// Why an entry cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanRowError {
    /// Its value stands in the table already.
    #[error("this value has an entry already")]
    Twice,
    /// [`MAX_ENTRIES`], or [`MAX_VALUE_BYTES`].
    #[error("the table is full: {MAX_ENTRIES} entries, {MAX_VALUE_BYTES} bytes of values")]
    Full,
    /// [`MAX_WORDS`].
    #[error("there are more than {MAX_WORDS} different limits: give those that are alike a plan")]
    TooManyWords,
}

impl Default for PlanRows {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            rows: Vec::new(),
            index: HashTable::new(),
            hash: RandomState::new(),
            words: Vec::new(),
        }
    }
}

impl PlanRows {
    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let index = self.index.allocation_size();
        self.values.capacity() + self.rows.capacity() * std::mem::size_of::<PlanRow>() + index
    }

    /// The number of a word, which is added where it is new.
    ///
    /// # Errors
    /// [`PlanRowError::TooManyWords`].
    pub fn word(&mut self, word: PlanWord) -> Result<u32, PlanRowError> {
        if self.words.len() >= MAX_WORDS {
            return Err(PlanRowError::TooManyWords);
        }
        let number = u32::try_from(self.words.len()).map_err(|_| PlanRowError::TooManyWords)?;
        self.words.push(word);
        Ok(number)
    }

    /// Adds an entry; `expires_s` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`PlanRowError`]; with [`PlanRowError::Twice`] the entry that is there stays, unless `last_wins`.
    pub fn add(
        &mut self,
        value: &[u8],
        word: u32,
        expires_s: Option<u64>,
        last_wins: bool,
    ) -> Result<(), PlanRowError> {
        let start = u32::try_from(self.values.len()).map_err(|_| PlanRowError::Full)?;
        if self.rows.len() >= MAX_ENTRIES || self.values.len() + value.len() > MAX_VALUE_BYTES {
            return Err(PlanRowError::Full);
        }
        let number = u32::try_from(self.rows.len()).map_err(|_| PlanRowError::Full)?;
        let expires_s = expires_s.map_or(NEVER, |at| u32::try_from(at).unwrap_or(NEVER));
        let row = PlanRow { start, word, expires_s };
        let (values, rows, hash) = (&self.values, &mut self.rows, &self.hash);
        let known = self
            .index
            .find(hash.hash_one(value), |at| text(values, rows, *at) == value)
            .copied();
        if let Some(at) = known {
            let known = rows
                .get_mut(at as usize)
                .filter(|_| last_wins)
                .ok_or(PlanRowError::Twice)?;
            (known.word, known.expires_s) = (word, expires_s);
            return Ok(());
        }
        self.values.extend_from_slice(value);
        rows.push(row);
        let (values, rows) = (&self.values, &self.rows);
        self.index.insert_unique(hash.hash_one(value), number, |at| {
            hash.hash_one(text(values, rows, *at))
        });
        Ok(())
    }

    /// Gives back what was allocated ahead.
    pub fn finish(&mut self) {
        self.values.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    /// The words, each at its number.
    #[must_use]
    pub fn words(&self) -> &[PlanWord] {
        &self.words
    }

    /// The number of the word of a value's entry, unless that has expired.
    #[must_use]
    pub fn word_of(&self, value: &[u8], now_us: u64) -> Option<usize> {
        let row = self.find(value)?;
        let is_over = row.expires_s != NEVER && u64::from(row.expires_s) * SECOND_US <= now_us;
        usize::try_from(row.word).ok().filter(|_| !is_over)
    }

    fn find(&self, value: &[u8]) -> Option<&PlanRow> {
        let is_it = |at: &u32| text(&self.values, &self.rows, *at) == value;
        let at = self.index.find(self.hash.hash_one(value), is_it)?;
        self.rows.get(*at as usize)
    }
}

/// The value of the entry of a number.
fn text<'v>(values: &'v [u8], rows: &[PlanRow], number: u32) -> &'v [u8] {
    let at = number as usize;
    let Some(row) = rows.get(at) else { return &[] };
    let end = rows.get(at + 1).map_or(values.len(), |next| next.start as usize);
    values.get(row.start as usize..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_whole_and_a_second_one_is_refused() {
        let mut rows = PlanRows::default();
        let word = rows.word(PlanWord::Plan("free".into())).unwrap();
        let values = ["", "a", "ab", "b", "a\0", "ä"];
        for (at, value) in (0_u64..).zip(values) {
            rows.add(value.as_bytes(), word, Some(at), false).unwrap();
        }
        for (at, value) in (0_u32..).zip(values) {
            assert_eq!(rows.find(value.as_bytes()).unwrap().expires_s, at, "{value}");
            assert_eq!(rows.add(value.as_bytes(), word, None, false), Err(PlanRowError::Twice));
        }
        assert!(rows.find(b"abc").is_none() && rows.find(b"\0").is_none());
        rows.add(b"ab", word, None, true).unwrap();
        assert_eq!((rows.find(b"ab").unwrap().expires_s, rows.len()), (NEVER, values.len()));
    }
}

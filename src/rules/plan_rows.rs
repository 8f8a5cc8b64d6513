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

/// An entry without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanRow<'r> {
    /// The plan or limit.
    pub word: &'r PlanWord,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_s: Option<u32>,
}

impl fmt::Display for PlanRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word {
            PlanWord::Plan(name) => write!(f, "plan {name}")?,
            PlanWord::Own(plan) => f.write_str(&plan.name)?,
        }
        match self.expires_s.map(|at| jiff::Timestamp::from_second(at.into())) {
            Some(Ok(at)) => write!(f, " until {at}"),
            _ => Ok(()),
        }
    }
}

/// No end.
const NEVER: u32 = u32::MAX;

/// The entries of a source, as they were read. Each has a number, in the order of the source.
pub struct PlanRows {
    /// All values, one behind the other.
    values: Vec<u8>,
    /// Where each begins; it reaches up to where the next one does.
    starts: Vec<u32>,
    /// The number of each one's word.
    word_numbers: Vec<u16>,
    /// In seconds since the Unix epoch; none at all while no entry has one.
    expiries_s: Vec<u32>,
    /// Numbers of entries by their value.
    index: HashTable<u32>,
    hash: RandomState,
    words: Vec<PlanWord>,
}

impl fmt::Debug for PlanRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanRows({})", self.len())
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
            starts: Vec::new(),
            word_numbers: Vec::new(),
            expiries_s: Vec::new(),
            index: HashTable::new(),
            hash: RandomState::new(),
            words: Vec::new(),
        }
    }
}

impl PlanRows {
    /// An empty table with room for what the one before had, and an eighth more: it does not grow by copies while the one
    /// before is in memory, too.
    #[must_use]
    pub fn after(before: Option<&Self>) -> Self {
        let mut rows = Self::default();
        if let Some(before) = before {
            let room = |len: usize| len + len / 8;
            rows.values.reserve_exact(room(before.values.len()));
            rows.starts.reserve_exact(room(before.len()));
            rows.word_numbers.reserve_exact(room(before.len()));
            rows.expiries_s.reserve_exact(room(before.expiries_s.len()));
            // Its sizes are powers of two: more room could be twice as much.
            rows.index.reserve(before.len(), |_| 0);
        }
        rows
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let numbers = size_of::<u32>() * (self.starts.capacity() + self.expiries_s.capacity())
            + size_of::<u16>() * self.word_numbers.capacity();
        self.values.capacity() + numbers + self.index.allocation_size()
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
        if self.len() >= MAX_ENTRIES || self.values.len() + value.len() > MAX_VALUE_BYTES {
            return Err(PlanRowError::Full);
        }
        let word = u16::try_from(word).map_err(|_| PlanRowError::TooManyWords)?;
        let expires_s = expires_s.map_or(NEVER, |at| u32::try_from(at).unwrap_or(NEVER));
        if let Some(known) = self.find(value) {
            let known_word = self.word_numbers.get_mut(known).filter(|_| last_wins);
            *known_word.ok_or(PlanRowError::Twice)? = word;
            self.set_expiry(known, expires_s);
            return Ok(());
        }
        let number = u32::try_from(self.len()).map_err(|_| PlanRowError::Full)?;
        self.values.extend_from_slice(value);
        self.starts.push(start);
        self.word_numbers.push(word);
        self.set_expiry(number as usize, expires_s);
        let (values, starts, hash) = (&self.values, &self.starts, &self.hash);
        self.index.insert_unique(hash.hash_one(value), number, |at| {
            hash.hash_one(text(values, starts, *at))
        });
        Ok(())
    }

    fn set_expiry(&mut self, number: usize, expires_s: u32) {
        if expires_s == NEVER && self.expiries_s.is_empty() {
            return;
        }
        self.expiries_s.resize(self.starts.len(), NEVER);
        if let Some(known) = self.expiries_s.get_mut(number) {
            *known = expires_s;
        }
    }

    /// Gives back what was allocated ahead, where that is much: it takes a copy.
    pub fn finish(&mut self) {
        let is_roomy = self.values.capacity() > self.values.len() / 4 * 5;
        if is_roomy || self.starts.capacity() > self.len() / 4 * 5 {
            self.values.shrink_to_fit();
            self.starts.shrink_to_fit();
            self.word_numbers.shrink_to_fit();
            self.expiries_s.shrink_to_fit();
        }
    }

    /// The words, each at its number.
    #[must_use]
    pub fn words(&self) -> &[PlanWord] {
        &self.words
    }

    /// The number of the word of a value's entry, unless that has expired.
    #[must_use]
    pub fn word_of(&self, value: &[u8], now_us: u64) -> Option<usize> {
        let number = self.find(value)?;
        let expires_s = self.expires_s(number);
        let is_over = expires_s != NEVER && u64::from(expires_s) * SECOND_US <= now_us;
        let word = self.word_numbers.get(number).filter(|_| !is_over)?;
        Some(usize::from(*word))
    }

    /// All entries in their order: the value, and what the entry says.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], PlanRow<'_>)> {
        let numbers = 0..self.starts.len();
        numbers.filter_map(|number| {
            let value = text(&self.values, &self.starts, u32::try_from(number).ok()?);
            Some((value, self.row(number)?))
        })
    }

    /// What a value's entry says, also if it has expired.
    #[must_use]
    pub fn entry(&self, value: &[u8]) -> Option<PlanRow<'_>> {
        self.row(self.find(value)?)
    }

    fn row(&self, number: usize) -> Option<PlanRow<'_>> {
        let word = self.words.get(usize::from(*self.word_numbers.get(number)?))?;
        let expires_s = Some(self.expires_s(number)).filter(|at| *at != NEVER);
        Some(PlanRow { word, expires_s })
    }

    /// Whether a value has an entry that has expired.
    #[must_use]
    pub fn has_expired(&self, value: &[u8], now_us: u64) -> bool {
        self.find(value).is_some() && self.word_of(value, now_us).is_none()
    }

    fn expires_s(&self, number: usize) -> u32 {
        self.expiries_s.get(number).copied().unwrap_or(NEVER)
    }

    /// The number of a value's entry.
    fn find(&self, value: &[u8]) -> Option<usize> {
        let is_it = |at: &u32| text(&self.values, &self.starts, *at) == value;
        let at = self.index.find(self.hash.hash_one(value), is_it)?;
        Some(*at as usize)
    }
}

/// The value of the entry of a number.
fn text<'v>(values: &'v [u8], starts: &[u32], number: u32) -> &'v [u8] {
    let at = number as usize;
    let Some(start) = starts.get(at) else { return &[] };
    let end = starts.get(at + 1).map_or(values.len(), |next| *next as usize);
    values.get(*start as usize..end).unwrap_or_default()
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
            assert_eq!(rows.expires_s(rows.find(value.as_bytes()).unwrap()), at, "{value}");
            assert_eq!(rows.add(value.as_bytes(), word, None, false), Err(PlanRowError::Twice));
        }
        assert!(rows.find(b"abc").is_none() && rows.find(b"\0").is_none());
        rows.add(b"ab", word, None, true).unwrap();
        let expires_s = rows.expires_s(rows.find(b"ab").unwrap());
        assert_eq!((expires_s, rows.len()), (NEVER, values.len()));
    }

    #[test]
    fn an_expiry_costs_those_tables_that_have_one() {
        let mut rows = PlanRows::default();
        let words = ["free", "pro"].map(|name| rows.word(PlanWord::Plan(name.into())).unwrap());
        for number in 0..1000_u32 {
            let (word, value) = (words[number as usize % 2], number.to_string());
            rows.add(value.as_bytes(), word, None, false).unwrap();
        }
        assert!(rows.expiries_s.is_empty());
        let mut next = PlanRows::after(Some(&rows));
        for name in ["free", "pro"] {
            next.word(PlanWord::Plan(name.into())).unwrap();
        }
        let room = (next.values.capacity(), next.starts.capacity(), next.index.capacity());
        for number in 0..1000_u32 {
            let expires_s = (number == 900).then_some(5);
            next.add(number.to_string().as_bytes(), number % 2, expires_s, false)
                .unwrap();
        }
        next.finish();
        let now = (next.values.capacity(), next.starts.capacity(), next.index.capacity());
        assert_eq!(now, room, "it has grown by a copy, or given little back by one");
        let word_of = |rows: &PlanRows, number: u32| rows.word_of(number.to_string().as_bytes(), 5 * SECOND_US);
        for number in (0..1000).filter(|number| *number != 900) {
            assert_eq!(word_of(&rows, number), Some(number as usize % 2));
            assert_eq!(word_of(&next, number), Some(number as usize % 2));
        }
        assert_eq!((word_of(&rows, 900), word_of(&next, 900)), (Some(0), None));
    }
}

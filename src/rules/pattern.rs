//! Wildcards in values: `*` stands for zero or more characters, anywhere, several allowed.
//!
//! Among the patterns of one level the one with the longest fixed text wins, ties by declaration. [`Patterns`] finds it
//! without trying each: fixed parts are looked up in hash maps, by prefix, then by suffix, then by what stands between,
//! so that a lookup costs the value's length times the number of *distinct lengths* of parts, however many patterns
//! there are.

use hashbrown::HashMap;
use smallvec::SmallVec;

/// The wildcard.
pub const WILDCARD: char = '*';

/// Most `*` in one value; bounds the recursion of a lookup.
pub const MAX_WILDCARDS: usize = 32;

/// A node's number within its level.
pub(super) type NodeId = u32;

/// Whether a value is a pattern.
#[must_use]
pub fn is_pattern(value: &str) -> bool {
    value.contains(WILDCARD)
}

/// One pattern by itself, or a plain text.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    patterns: Option<Patterns>,
}

impl Pattern {
    /// `None` if it has more than [`MAX_WILDCARDS`] wildcards.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if text.chars().filter(|c| *c == WILDCARD).count() > MAX_WILDCARDS {
            return None;
        }
        let patterns = is_pattern(text).then(|| {
            let mut patterns = Patterns::default();
            patterns.insert(text, 0);
            patterns
        });
        Some(Self {
            text: text.to_owned(),
            patterns,
        })
    }

    /// Whether a text fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.patterns {
            Some(patterns) => patterns.find(text, &mut || {}).is_some(),
            None => self.text == text,
        }
    }
}

/// The patterns of one key at one level.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    by_prefix: Table<Table<Between>>,
    declared: u32,
}

/// The best pattern so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Best {
    /// Characters of fixed text.
    fixed: usize,
    /// Order of declaration.
    order: u32,
    node: NodeId,
}

impl Best {
    fn beats(self, other: Option<Self>) -> bool {
        other.is_none_or(|other| {
            (self.fixed, std::cmp::Reverse(self.order)) > (other.fixed, std::cmp::Reverse(other.order))
        })
    }
}

/// Fixed parts that may stand at one place, and what follows each.
#[derive(Debug)]
struct Table<T> {
    /// Distinct lengths of the parts in bytes, longest first.
    lengths: Vec<usize>,
    /// By text; bytes, because a window into a value need not fall on character boundaries. Request text is only looked
    /// up here, never stored, so the randomly seeded fast hasher is enough against chosen collisions.
    parts: HashMap<Box<[u8]>, T>,
    /// Longest fixed text of any pattern in here, in characters: what cannot beat the best so far is not searched.
    longest: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            lengths: Vec::new(),
            parts: HashMap::new(),
            longest: 0,
        }
    }
}

impl<T: Default> Table<T> {
    fn slot(&mut self, part: &str, fixed: usize) -> &mut T {
        self.longest = self.longest.max(fixed);
        if let Err(at) = self.lengths.binary_search_by(|length| part.len().cmp(length)) {
            self.lengths.insert(at, part.len());
        }
        self.parts.entry(part.as_bytes().into()).or_default()
    }
}

impl<T> Table<T> {
    fn hopeless(&self, best: Option<Best>) -> bool {
        best.is_some_and(|best| self.longest < best.fixed)
    }
}

/// What may stand between prefix and suffix: nothing more, or further parts in order.
#[derive(Debug, Default)]
struct Between {
    end: Option<Best>,
    next: Table<Numbered>,
}

/// A step further, with a number that is its own among its siblings.
#[derive(Debug, Default)]
struct Numbered {
    number: usize,
    between: Between,
}

impl Patterns {
    /// Adds a pattern; the caller has seen to it that it contains `*` and stands here once.
    pub(super) fn insert(&mut self, pattern: &str, node: NodeId) {
        let fixed = pattern.chars().filter(|c| *c != WILDCARD).count();
        let (prefix, rest) = pattern.split_once(WILDCARD).unwrap_or((pattern, ""));
        let (middle, suffix) = rest.rsplit_once(WILDCARD).unwrap_or(("", rest));
        let mut place = self.by_prefix.slot(prefix, fixed).slot(suffix, fixed);
        for part in middle.split(WILDCARD).filter(|part| !part.is_empty()) {
            let number = place.next.parts.len();
            let step = place.next.slot(part, fixed);
            if step.between.is_unused() {
                step.number = number;
            }
            place = &mut step.between;
        }
        let found = Best {
            fixed,
            order: self.declared,
            node,
        };
        // `a*b` and `a**b` are one pattern in two spellings: the first one declared stays.
        place.end.get_or_insert(found);
        self.declared = self.declared.saturating_add(1);
    }

    /// The most specific pattern that matches; `probe` is called once for each look into a hash map.
    pub(super) fn find(&self, value: &str, probe: &mut impl FnMut()) -> Option<NodeId> {
        let value = value.as_bytes();
        let mut best = None;
        for &length in &self.by_prefix.lengths {
            let Some((prefix, rest)) = value.split_at_checked(length) else {
                continue;
            };
            probe();
            if let Some(suffixes) = self.by_prefix.parts.get(prefix) {
                suffixes.find(rest, &mut best, probe);
            }
        }
        best.map(|best| best.node)
    }
}

impl Table<Between> {
    fn find(&self, rest: &[u8], best: &mut Option<Best>, probe: &mut impl FnMut()) {
        if self.hopeless(*best) {
            return;
        }
        for &length in &self.lengths {
            let Some(at) = rest.len().checked_sub(length) else {
                continue;
            };
            let (middle, suffix) = rest.split_at(at);
            probe();
            if let Some(between) = self.parts.get(suffix) {
                between.find(middle, best, probe);
            }
        }
    }
}

impl Between {
    fn is_unused(&self) -> bool {
        self.end.is_none() && self.next.parts.is_empty()
    }

    /// Every part is taken where it first occurs: what comes after it then has the most room, so no later occurrence
    /// can match where the first does not. Each step is therefore taken at most once in a lookup.
    fn find(&self, rest: &[u8], best: &mut Option<Best>, probe: &mut impl FnMut()) {
        if let Some(end) = self.end
            && end.beats(*best)
        {
            *best = Some(end);
        }
        if self.next.hopeless(*best) {
            return;
        }
        for &length in &self.next.lengths {
            let mut seen: SmallVec<[usize; 8]> = SmallVec::new();
            for (at, part) in rest.windows(length).enumerate() {
                probe();
                if let Some(step) = self.next.parts.get(part)
                    && !seen.contains(&step.number)
                {
                    seen.push(step.number);
                    step.between.find(&rest[at + length..], best, probe);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(patterns: &[&str], value: &str) -> Option<usize> {
        let mut all = Patterns::default();
        for (node, pattern) in (0..).zip(patterns) {
            all.insert(pattern, node);
        }
        all.find(value, &mut || {}).map(|node| node as usize)
    }

    #[test]
    fn a_star_stands_for_any_text_anywhere() {
        for (pattern, value, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("a*", "b", false),
            ("*z", "xyz", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "acb", false),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "aba", false),
            ("a**b", "axb", true),
            ("ü*ß", "üß", true),
        ] {
            assert_eq!(find(&[pattern], value).is_some(), expected, "{pattern} on {value}");
        }
    }

    #[test]
    fn the_longest_fixed_text_wins_then_the_first_declared() {
        assert_eq!(find(&["*", "a*", "ab*"], "abc"), Some(2));
        assert_eq!(find(&["a*", "*c"], "abc"), Some(0));
        assert_eq!(find(&["*c", "a*"], "abc"), Some(0));
        assert_eq!(find(&["*b*", "a*c", "*"], "abc"), Some(1));
        assert_eq!(find(&["a**", "a*"], "abc"), Some(0));
        // Characters count, not bytes.
        assert_eq!(find(&["*ab", "ü*"], "üab"), Some(0));
        assert_eq!(find(&["*b", "ü*"], "üab"), Some(0));
    }
}

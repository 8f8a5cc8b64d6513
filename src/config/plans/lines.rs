//! The entries of a source: `value,plan` or `value,100/hour`, then optionally `,expiry` (RFC 3339).
//!
//! It takes the text in pieces as they come, and keeps none of it but the values. Everything that is wrong is said with its
//! line, and one bad line refuses the whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::super::duration;
use super::super::error::{ConfigError, ConfigErrors, Origin, Place};
use super::super::fields::MAX_TEXT;
use super::super::problem::{Clipped, Problem, nearest};
use crate::algorithms::limit::{LimitSpec, build};
use crate::model::{Unit, Window};
use crate::rules::plans::{Amount, LimitPlan, PlanRowError, PlanRows, PlanSource, PlanWord};

/// After so many errors nothing more is read.
const ENOUGH_ERRORS: usize = 20;
/// Most bytes of a value that errors may show.
const MAX_ENTRY_NAME: usize = 512;
/// Longest line in bytes: a value, each of its bytes doubled in quotes, and the rest.
const MAX_LINE: usize = 2 * MAX_TEXT + 512;

/// A source while it is read.
pub struct SourceLines<'s> {
    source: &'s PlanSource,
    origin: Origin,
    rows: PlanRows,
    /// Numbers of words by their text.
    words: HashMap<Vec<u8>, u32>,
    /// What came of a line that has not ended.
    rest: Vec<u8>,
    line: usize,
    /// The value that came by itself last: what errors call its entry, which is on no line.
    entry: Vec<u8>,
    /// A comment has been seen: an empty table is meant.
    commented: bool,
    errors: ConfigErrors,
}

impl<'s> SourceLines<'s> {
    /// Reads for a source; `name` is what errors call it.
    #[must_use]
    pub fn new(source: &'s PlanSource, name: Arc<str>) -> Self {
        Self {
            source,
            origin: Origin { name, text: None },
            rows: PlanRows::after(source.rows().as_deref()),
            words: HashMap::new(),
            rest: Vec::new(),
            line: 0,
            entry: Vec::new(),
            commented: false,
            errors: ConfigErrors::default(),
        }
    }

    /// Takes the next piece of the text; false = so much is wrong that nothing more need be given.
    pub fn feed(&mut self, mut piece: &[u8]) -> bool {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, more) = piece.split_at(end);
            piece = more.get(1..).unwrap_or_default();
            if self.rest.is_empty() {
                self.take(line);
            } else {
                self.rest.extend_from_slice(line);
                let line = std::mem::take(&mut self.rest);
                self.take(&line);
                self.rest = line;
                self.rest.clear();
            }
            if self.is_hopeless() {
                return false;
            }
        }
        if self.rest.len() + piece.len() > MAX_LINE {
            self.line += 1;
            self.report(Problem::TooLong {
                field: "line",
                max: MAX_LINE,
            });
            return false;
        }
        self.rest.extend_from_slice(piece);
        true
    }

    /// The table, when all of the text was given.
    ///
    /// # Errors
    /// Everything that is wrong with it; nothing of it is to be used then.
    pub fn finish(mut self) -> Result<PlanRows, ConfigErrors> {
        if self.errors.count() == 0 && !self.rest.is_empty() {
            self.line += 1;
            let word = String::from_utf8_lossy(&self.rest).into_owned();
            let reason = "the text ends within it, so it may have been cut off: end the last line with a line break";
            self.unusable("line", word, reason);
        } else if self.errors.count() == 0 && self.rows.is_empty() && !self.commented {
            self.line = 0;
            let reason = "there is not one: if that is meant, say so by a comment (`# none`)";
            self.unusable("entries", String::new(), reason);
        }
        self.done()
    }

    /// Takes an entry that comes by itself: a value, and what would stand behind it in a line. Of two the later one holds.
    pub fn entry(&mut self, value: &[u8], text: &[u8]) {
        self.entry.clear();
        self.entry.extend(value.iter().take(MAX_ENTRY_NAME));
        if let Ok(value) = self.text("value", value) {
            self.add(value.as_bytes(), text, true);
        }
    }

    /// Whether so much is wrong that nothing more need be given.
    #[must_use]
    pub const fn is_hopeless(&self) -> bool {
        self.errors.count() >= ENOUGH_ERRORS
    }

    /// The table of entries that came by themselves.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn done(self) -> Result<PlanRows, ConfigErrors> {
        let mut rows = self.rows;
        rows.finish();
        self.errors.into_result(rows)
    }

    fn take(&mut self, line: &[u8]) {
        self.line += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = match self.line {
            1 => line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line),
            _ => line,
        };
        if line.is_empty() || line.starts_with(b"#") {
            self.commented |= !line.is_empty();
            return;
        }
        let Some((value, Some(rest))) = column(line) else {
            let word = String::from_utf8_lossy(line).into_owned();
            return self.unusable("line", word, "write `value,plan`, or `value,100/hour`");
        };
        let is_quoted = line.starts_with(b"\"");
        let Ok(value) = self.text("value", &value).map(ToOwned::to_owned) else {
            return;
        };
        if !is_quoted && value.trim() != value {
            let reason = "it begins or ends with a blank, which no request's value does: leave it out, or put the value in quotes";
            return self.unusable("value", value, reason);
        }
        self.add(value.as_bytes(), rest, false);
    }

    fn text<'v>(&mut self, field: &'static str, text: &'v [u8]) -> Result<&'v str, ()> {
        let problem = match std::str::from_utf8(text) {
            Ok(text) if text.len() <= MAX_TEXT => return Ok(text),
            Ok(_) => Problem::TooLong { field, max: MAX_TEXT },
            Err(_) => Problem::NotUtf8,
        };
        self.report(problem);
        Err(())
    }

    /// `text` is what stands behind the value: its plan or limit, and when that ends.
    fn add(&mut self, value: &[u8], text: &[u8], last_wins: bool) {
        let columns = column(text.trim_ascii_start()).and_then(|(word, rest)| {
            let (expiry, rest) = column(rest.unwrap_or_default().trim_ascii_start())?;
            rest.is_none().then_some((word, expiry))
        });
        let Some((word, expiry)) = columns else {
            let line = String::from_utf8_lossy(text).into_owned();
            return self.unusable(
                "line",
                line,
                "behind the value stand a plan or limit, and perhaps when that ends",
            );
        };
        let word = match self.words.get(word.trim_ascii()) {
            Some(number) => *number,
            None => match self.new_word(word.trim_ascii()) {
                Some(number) => number,
                None => return,
            },
        };
        let mut expires_s = None;
        if !expiry.trim_ascii().is_empty() {
            let Ok(expiry) = self.text("expiry", expiry.trim_ascii()) else {
                return;
            };
            match expiry.parse::<jiff::Timestamp>() {
                // Before 1970 is long past, too.
                Ok(at) => expires_s = Some(u64::try_from(at.as_second()).unwrap_or_default()),
                Err(_) => {
                    let reason = "it is no time by RFC 3339: write it as in `2027-01-31T00:00:00Z`";
                    return self.unusable("expiry", expiry.to_owned(), reason);
                }
            }
        }
        if let Err(error) = self.rows.add(value, word, expires_s, last_wins) {
            let cure = match error {
                PlanRowError::Twice => "keep one of them",
                PlanRowError::Full | PlanRowError::TooManyWords => "leave out what nobody asks for",
            };
            let value = String::from_utf8_lossy(value).into_owned();
            self.unusable("value", value, format!("{error}: {cure}"));
        }
    }

    /// A plan's name, or a limit.
    fn new_word(&mut self, bytes: &[u8]) -> Option<u32> {
        let text = self.text("plan", bytes).ok()?;
        let word = match self.source.plan(text) {
            Some(plan) => Ok(PlanWord::Plan(Arc::clone(&plan.name))),
            None => self.own(text).map(|amount| {
                let name = text.into();
                PlanWord::Own(Arc::new(LimitPlan { name, amount }))
            }),
        };
        let number = word.and_then(|word| self.rows.word(word).map_err(|error| error.to_string()));
        match number {
            Ok(number) => {
                self.words.insert(bytes.to_vec(), number);
                Some(number)
            }
            Err(reason) => {
                self.unusable("plan", text.to_owned(), reason);
                None
            }
        }
    }

    /// `100/hour` or `100/30s`.
    fn own(&self, text: &str) -> Result<Amount, String> {
        let Some((hits, window)) = text.split_once('/') else {
            let plans: Vec<&str> = self.source.plans.iter().map(|plan| &*plan.name).collect();
            return Err(match plans.as_slice() {
                [] => "the rules file has no `plans`: write a limit, as in `100/hour`".to_owned(),
                plans => format!(
                    "no plan has this name; there are: {}, or a limit, as in `100/hour`",
                    plans.join(", ")
                ),
            });
        };
        let is_number = !hits.is_empty() && hits.bytes().all(|byte| byte.is_ascii_digit());
        let requests_per_unit: u32 = hits
            .parse()
            .ok()
            .filter(|_| is_number)
            .ok_or("a limit begins with a whole number, 0 to 4294967295, as in `100/hour`")?;
        let window = match Unit::parse(window) {
            Some(unit) => Window::of(unit),
            None => duration::window(window).map_err(|problem| {
                let near = nearest(window, &Unit::NAMES).map(|unit| format!(" (did you mean `{unit}`?)"));
                format!(
                    "{problem}{}: write it as in `100/hour` or `100/30s`",
                    near.unwrap_or_default()
                )
            })?,
        };
        let defaults = &self.source.defaults;
        let spec = LimitSpec::new(defaults.algorithm, requests_per_unit.into(), window);
        let limit = build(&spec).map_err(|error| error.to_string())?;
        Ok(Amount {
            limit: Some(limit),
            requests_per_unit,
            window,
            count_denied: defaults.count_denied && defaults.algorithm.can_count_denied(),
            hold_first: None,
        })
    }

    fn unusable(&mut self, field: &'static str, word: String, reason: impl Into<Cow<'static, str>>) {
        let reason = reason.into();
        self.report(Problem::Unusable { field, word, reason });
    }

    fn report(&mut self, problem: Problem) {
        let place = (self.line > 0).then_some(Place {
            line: self.line,
            column: 1,
            offset: 0,
            length: 0,
        });
        let path = Clipped(&String::from_utf8_lossy(&self.entry)).to_string();
        self.errors.push(ConfigError::new(&self.origin, place, path, problem));
    }
}

/// The first column of a line, and what follows its comma, if there is one; `None` when quotes do not end. They are as in
/// CSV: a quote in them is doubled.
fn column(text: &[u8]) -> Option<(Cow<'_, [u8]>, Option<&[u8]>)> {
    let [b'"', quoted @ ..] = text else {
        return Some(match memchr::memchr(b',', text) {
            Some(at) => (Cow::Borrowed(&text[..at]), Some(&text[at + 1..])),
            None => (Cow::Borrowed(text), None),
        });
    };
    let mut value = Vec::new();
    let mut rest = quoted;
    loop {
        let at = memchr::memchr(b'"', rest)?;
        value.extend_from_slice(&rest[..at]);
        match &rest[at + 1..] {
            [b'"', more @ ..] => {
                value.push(b'"');
                rest = more;
            }
            more => {
                return match more.trim_ascii_start() {
                    [] => Some((Cow::Owned(value), None)),
                    [b',', more @ ..] => Some((Cow::Owned(value), Some(more))),
                    _ => None,
                };
            }
        }
    }
}

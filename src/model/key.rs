//! Counter keys: readable, made in this one place, and never the same for two different counters.
//!
//! Layout: `<prefix><algorithm>:{<domain>|<key>=<value>|…}`; `:o:` or `:c:` before the brace says whose counter it is, if
//! not a rule's, and some have a window before that; `#` and a tag, which of several limits of a descriptor it is of. `~` in place of `=`
//! says that values share the counter, `==` that the value is an address in its usual form. Everything that comes from a request or a rule is escaped, so that separators are only ever ours; the braces are Redis Cluster's hash tag. An identity over
//! [`MAX_READABLE`] bytes keeps its first bytes and ends in `#` and 160 bits of BLAKE3 over the whole, so hostile
//! values cannot be made to collide.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::time::SECOND_US;
use super::{Algorithm, Limit};

/// Longest identity (what is inside the braces) that is kept as it is, in bytes.
pub const MAX_READABLE: usize = 160;
/// What stays readable of a longer one, in bytes.
const KEPT: usize = 64;
/// Bytes of BLAKE3 in a shortened identity.
const HASH_BYTES: usize = 20;

/// The name of a counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterKey(Box<str>);

impl CounterKey {
    /// The whole key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only the beginning of its identity can be read.
    #[must_use]
    pub fn is_shortened(&self) -> bool {
        // `#`, the hash and the closing brace; every `#` of a domain, key or value is escaped.
        let sign = self.0.len().checked_sub(2 * HASH_BYTES + 2);
        let of_identity = |sign: &usize| self.0.rfind('{').is_some_and(|open| open < *sign);
        sign.filter(of_identity)
            .is_some_and(|sign| self.0.as_bytes().get(sign) == Some(&b'#'))
    }

    /// Takes a key that [`counter_key`] has made elsewhere (another process, a test).
    #[must_use]
    pub fn from_raw(key: &str) -> Self {
        Self(key.into())
    }
}

impl fmt::Display for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One level of a counter's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The request's own key and value.
    Own(&'a str, &'a str),
    /// All values that match a wildcard, or are in a set, share the counter (`share_threshold`): the key and their name.
    Shared(&'a str, &'a str),
    /// The request's own key, and its value as an address in its usual form.
    Address(&'a str, IpAddr),
}

/// Whose counter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A rule of the tree.
    Rule,
    /// A rule that stands on its descriptor beside others.
    Several(Tag),
    /// A limit that the request brought itself.
    Override,
    /// The `candidate` of a rule of the tree.
    Candidate,
}

impl Owner {
    /// What stands between a key's state and its identity.
    const fn mark(self) -> &'static str {
        match self {
            Self::Rule | Self::Several(_) => ":",
            Self::Override => ":o:",
            Self::Candidate => ":c:",
        }
    }
}

/// Which of the limits of one descriptor a limit is: by its window, so that it does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// The window in seconds; at least 1, or [`Self::PLANS`].
    pub seconds: u64,
    /// 1, or how many limits of the same window stand before this one and it.
    pub number: u8,
}

impl Tag {
    /// In place of a window: a limit with plans has one for each.
    pub const PLANS: u64 = 0;

    /// Reads what [`fmt::Display`] writes; `None` if it is anything else.
    fn parse(text: &str) -> Option<Self> {
        let (seconds, number) = text.split_once("s.").or_else(|| Some((text.strip_suffix('s')?, "1")))?;
        let tag = Self {
            seconds: match seconds {
                "plan" => Self::PLANS,
                seconds => seconds.parse().ok()?,
            },
            number: number.parse().ok()?,
        };
        (tag.to_string() == text).then_some(tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            Self::PLANS => f.write_str("plans")?,
            seconds => write!(f, "{seconds}s")?,
        }
        match self.number {
            1 => Ok(()),
            number => write!(f, ".{number}"),
        }
    }
}

/// Builds the key of a counter.
///
/// The algorithm is part of it, so that a rule that changes it starts clean. Numbers are not: a rule whose numbers change
/// keeps its counters, and their states say under which numbers they were written. With three exceptions: the window of a
/// limit that a request brings, since it can bring two for the same entries, one for a second and one for a day; the window
/// of a log, since nothing in its state says how long entries are kept; and the time to live of holds. A calendar is part of
/// it, too: its windows are others than those of any other calendar.
#[must_use]
pub fn counter_key<'a>(
    prefix: &str,
    owner: Owner,
    limit: &Limit,
    domain: &str,
    parts: impl IntoIterator<Item = Part<'a>, IntoIter: Clone>,
) -> CounterKey {
    let parts = parts.into_iter();
    // Exact unless something is escaped: the key then stays where it is written.
    let sizes = parts.clone().map(|part| match part {
        Part::Own(name, value) | Part::Shared(name, value) => name.len() + value.len() + 2,
        Part::Address(name, _) => name.len() + "255.255.255.255".len() + 3,
    });
    let mut state = KeyLength(0);
    push_state(&mut state, owner, limit);
    let frame = prefix.len() + state.0 + owner.mark().len() + domain.len() + 2;
    let mut key = String::with_capacity(frame + sizes.sum::<usize>());
    key.push_str(prefix);
    push_state(&mut key, owner, limit);
    key.push_str(owner.mark());
    key.push('{');
    let start = key.len();
    push_escaped(&mut key, domain);
    for part in parts {
        key.push('|');
        let (Part::Own(name, _) | Part::Shared(name, _) | Part::Address(name, _)) = part;
        push_escaped(&mut key, name);
        key.push_str(match part {
            Part::Own(..) => "=",
            Part::Shared(..) => "~",
            // Another rule may count the same text for itself.
            Part::Address(..) => "==",
        });
        match part {
            Part::Own(_, value) | Part::Shared(_, value) => push_escaped(&mut key, value),
            // Writing to a String cannot fail, and nothing in an address needs escaping.
            Part::Address(_, address) => drop(write!(key, "{address}")),
        }
    }
    shorten(&mut key, start);
    key.push('}');
    CounterKey(key.into_boxed_str())
}

/// What the keys of a rule's counters begin with, in one domain: what follows is the descriptor, and a closing brace.
#[must_use]
pub fn rule_prefix(prefix: &str, owner: Owner, limit: &Limit, domain: &str) -> String {
    let mut key = prefix.to_owned();
    push_state(&mut key, owner, limit);
    key.push_str(owner.mark());
    key.push('{');
    push_escaped(&mut key, domain);
    key.push('|');
    key
}

/// What the value of a [`Part`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// The request's own.
    Own,
    /// The name of those that share the counter.
    Shared,
    /// An address.
    Address,
}

/// What a counter's key says of its identity, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose counter it is.
    pub owner: Owner,
    /// The domain.
    pub domain: String,
    /// Key, value (or the pattern whose values share the counter) and what it is, level by level.
    pub levels: Vec<(String, String, PartKind)>,
    /// Only the beginning is known: the last level ends in a hash.
    pub shortened: bool,
}

impl Identity {
    /// Reads a key that [`counter_key`] made; `None` if it did not.
    #[must_use]
    pub fn of(key: &str) -> Option<Self> {
        let (state, identity) = key.strip_suffix('}')?.rsplit_once('{')?;
        let is_marked = |owner: &Owner| state.ends_with(owner.mark());
        let owner = [Owner::Override, Owner::Candidate].into_iter().find(is_marked);
        let tag = || Tag::parse(state.strip_suffix(':')?.rsplit_once('#')?.1);
        let owner = owner.or_else(|| tag().map(Owner::Several)).unwrap_or(Owner::Rule);
        // Every `#` of a domain, key or value is escaped.
        let shortened = identity.contains('#');
        let mut parts = identity.split('|');
        let domain = unescape(parts.next()?);
        let level = |part: &str| {
            let (name, rest) = part.split_at(part.find(['=', '~']).unwrap_or(part.len()));
            let signs = [("==", PartKind::Address), ("~", PartKind::Shared), ("=", PartKind::Own)];
            let read = signs
                .into_iter()
                .find_map(|(sign, kind)| Some((rest.strip_prefix(sign)?, kind)));
            let (value, kind) = read.unwrap_or(("", PartKind::Own));
            (unescape(name), unescape(value), kind)
        };
        Some(Self {
            owner,
            domain,
            levels: parts.map(level).collect(),
            shortened,
        })
    }
}

fn unescape(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// Counts the bytes that are written.
struct KeyLength(usize);

impl Write for KeyLength {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// What of a limit is part of its counters' keys.
fn push_state(key: &mut impl Write, owner: Owner, limit: &Limit) {
    // Neither a String nor a size fails.
    let _ = key.write_str(state_name(limit.algorithm));
    if owner == Owner::Override || limit.algorithm == Algorithm::SlidingLog {
        let _ = write!(key, ":{}", Length(limit.window_us));
    }
    if let Algorithm::CalendarWindow(calendar) = limit.algorithm {
        let _ = write!(key, ":{}:{}", calendar.unit().name(), calendar.zone());
    }
    if limit.hold_us > 0 {
        // What is kept of the two kinds of holds is read differently.
        let kind = if limit.holds_mean { 'm' } else { 'h' };
        let _ = write!(key, "+{kind}{}", Length(limit.hold_us));
    }
    if let Owner::Several(tag) = owner {
        let _ = write!(key, "#{tag}");
    }
}

/// The algorithm, as short as it can be: keys are most of what a counter costs.
const fn state_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::SlidingWindow { .. } => "sw",
        Algorithm::SlidingLog => "sl",
        Algorithm::TokenBucket { .. } => "tb",
        Algorithm::LeakyBucket { .. } => "lb",
        Algorithm::FixedWindow | Algorithm::CalendarWindow(_) => "fw",
        Algorithm::Concurrency => "cc",
    }
}

/// A window in seconds, or in microseconds with `us` where it is not whole seconds.
struct Length(u64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(SECOND_US) {
            write!(f, "{}", self.0 / SECOND_US)
        } else {
            write!(f, "{}us", self.0)
        }
    }
}

/// Percent-encodes our separators, Redis' braces, controls and the escape itself. Injective.
fn push_escaped(out: &mut String, text: &str) {
    // Mostly nothing is: all bytes are looked at side by side.
    if !text.bytes().fold(false, |found, byte| found | must_escape(byte)) {
        return out.push_str(text);
    }
    let mut rest = text;
    while let Some((at, byte)) = rest.bytes().enumerate().find(|(_, byte)| must_escape(*byte)) {
        // All of these are ASCII: what is before and behind them is text, and two hex digits hold them.
        out.push_str(rest.get(..at).unwrap_or_default());
        let _ = write!(out, "%{byte:02X}");
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    out.push_str(rest);
}

const fn must_escape(byte: u8) -> bool {
    // No shortcuts, so that it takes no branches.
    (byte < b' ')
        | (byte == 0x7f)
        | (byte == b'%')
        | (byte == b'#')
        | (byte == b'=')
        | (byte == b'{')
        | (byte == b'|')
        | (byte == b'}')
        | (byte == b'~')
}

fn shorten(key: &mut String, start: usize) {
    if key.len() - start <= MAX_READABLE {
        return;
    }
    let hash = blake3::hash(&key.as_bytes()[start..]);
    key.truncate(key.floor_char_boundary(start + KEPT));
    key.push('#');
    for byte in &hash.as_bytes()[..HASH_BYTES] {
        let _ = write!(key, "{byte:02x}");
    }
}

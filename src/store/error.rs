//! Why a store could not decide. A denial is not an error.

use std::fmt;
use std::time::Duration;

/// Why a store could not decide.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection: the call was not sent.
    #[error("not connected: {0}")]
    Unavailable(String),
    /// The connection broke while the call was in flight.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// More calls wait than the bound on them allows.
    #[error("too many calls wait for an answer")]
    Overloaded,
    /// The server answered with an error.
    #[error("the server refused ({kind}): {text}")]
    Refused {
        /// The kind of refusal.
        kind: Refusal,
        /// The server's own words, bounded and without control characters.
        text: String,
    },
    /// The call was not sent, because of what happened to another one, or because its time was over.
    #[error("{0} (the call was not sent)")]
    NotSent(Box<Self>),
    /// The server's answer does not fit the call.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

/// Why a Redis server refused a call: the first word of its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `READONLY`: it is a replica now (after a failover). The link reconnects, to find the master.
    ReadOnly,
    /// `LOADING`: it is loading its data.
    Loading,
    /// `MASTERDOWN`: a replica without its master.
    MasterDown,
    /// `CLUSTERDOWN`: some slots are not served.
    ClusterDown,
    /// `MOVED` or `ASK` more often than a call follows them.
    Moved,
    /// `TRYAGAIN`: keys are being moved to another node.
    TryAgain,
    /// `CROSSSLOT`, or a script that uses a key of another node: the keys of one call are not in one place.
    CrossSlot,
    /// `OOM`: `maxmemory` is reached and nothing may be evicted.
    OutOfMemory,
    /// `MISCONF`: it cannot persist and therefore takes no writes.
    Misconf,
    /// `NOREPLICAS`: `min-replicas-to-write` is not met.
    NoReplicas,
    /// `BUSY`: another script runs for too long.
    Busy,
    /// `NOPERM`: the ACL user may not do this.
    NoPermission,
    /// `NOAUTH`, `WRONGPASS`: the user or password is wrong or missing.
    Auth,
    /// `NOSCRIPT`, even after loading the script.
    NoScript,
    /// `WRONGTYPE`: another application uses the key.
    WrongType,
    /// Anything else.
    Other,
}

/// Longest server text that is kept, in characters.
const MAX_TEXT: usize = 200;

impl StoreError {
    /// This error for a call that is not sent because of it.
    #[must_use]
    pub(super) fn not_sent(self) -> Self {
        if self.is_indeterminate() {
            Self::NotSent(Box::new(self))
        } else {
            self
        }
    }

    /// This error for a call that had been sent.
    #[must_use]
    pub(super) fn in_flight(self) -> Self {
        match self {
            Self::Unavailable(text) => Self::Broken(text),
            other => other,
        }
    }

    /// Whether the server failed, not one key or one call.
    #[must_use]
    pub const fn is_about_the_server(&self) -> bool {
        match self {
            Self::Refused { kind, .. } => !matches!(kind, Refusal::WrongType | Refusal::CrossSlot | Refusal::TryAgain),
            Self::Overloaded => false,
            Self::NotSent(why) => why.is_about_the_server(),
            Self::Timeout(_) | Self::Unavailable(_) | Self::Broken(_) | Self::Protocol(_) => true,
        }
    }

    /// Whether another application uses one of the keys; nothing was counted then.
    #[must_use]
    pub const fn is_about_one_key(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                kind: Refusal::WrongType,
                ..
            }
        )
    }

    /// Whether the server has refused the user or the password.
    #[must_use]
    pub const fn is_login(&self) -> bool {
        match self {
            Self::Refused { kind, .. } => matches!(kind, Refusal::Auth),
            Self::NotSent(why) => why.is_login(),
            _ => false,
        }
    }

    /// Whether there is no connection to the server, so that other calls would fail, too.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Broken(_) => true,
            Self::NotSent(why) => why.is_away(),
            _ => false,
        }
    }

    /// Whether only a node of a Redis Cluster gives this error: the keys are on another node, or on several.
    #[must_use]
    pub const fn is_of_a_cluster(&self) -> bool {
        match self {
            Self::Refused { kind, .. } => matches!(kind, Refusal::Moved | Refusal::CrossSlot),
            Self::NotSent(why) => why.is_of_a_cluster(),
            _ => false,
        }
    }

    /// Whether the keys of one call are not in one place; nothing was counted then.
    #[must_use]
    pub const fn is_cross_slot(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                kind: Refusal::CrossSlot,
                ..
            }
        )
    }

    /// Whether the call may have been carried out: its fate is unknown.
    #[must_use]
    pub const fn is_indeterminate(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Broken(_) | Self::Protocol(_))
    }

    /// A short fixed word for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Unavailable(_) => "unavailable",
            Self::Broken(_) => "broken",
            Self::NotSent(why) => why.kind(),
            Self::Overloaded => "overloaded",
            Self::Refused { kind, .. } => kind.name(),
            Self::Protocol(_) => "protocol",
        }
    }

    /// The error of a server's error line.
    #[must_use]
    pub fn refused(text: &str) -> Self {
        Self::Refused {
            kind: Refusal::of(text),
            text: printable(text),
        }
    }
}

/// A text for log lines: bounded, and without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl Refusal {
    /// Reads the first word of a server's error, or what a node of a cluster says of a script.
    #[must_use]
    pub fn of(text: &str) -> Self {
        // "ERR Script attempted to …" (Redis 7, Valkey), "ERR Error running script …: Lua script attempted to …" (Redis 6.2).
        if text.starts_with("ERR") && text.contains("attempted to access a non local key") {
            return Self::CrossSlot;
        }
        // Redis 6.2 and before say `ERR Error running script (call to f_…): @user_script:13: WRONGTYPE …` of what a command in a
        // script was refused for, or `…: @user_script:13: @user_script: 13: -OOM …`; later ones say `WRONGTYPE …`.
        if let Some((_, place)) = text.rsplit_once("@user_script:") {
            let inner = place.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
            if let (true, Some(inner)) = (text.starts_with("ERR Error running script"), inner.strip_prefix(':')) {
                return Self::of(inner.trim_start().trim_start_matches('-'));
            }
        }
        if text.starts_with("ERR") && text.contains("while the cluster is down") {
            return Self::ClusterDown;
        }
        match text.split_whitespace().next().unwrap_or_default() {
            "READONLY" => Self::ReadOnly,
            "LOADING" => Self::Loading,
            "MASTERDOWN" => Self::MasterDown,
            "CLUSTERDOWN" => Self::ClusterDown,
            "MOVED" | "ASK" => Self::Moved,
            "TRYAGAIN" => Self::TryAgain,
            "CROSSSLOT" => Self::CrossSlot,
            "OOM" => Self::OutOfMemory,
            "MISCONF" => Self::Misconf,
            "NOREPLICAS" => Self::NoReplicas,
            "BUSY" => Self::Busy,
            "NOPERM" => Self::NoPermission,
            "NOAUTH" | "WRONGPASS" => Self::Auth,
            "NOSCRIPT" => Self::NoScript,
            "WRONGTYPE" => Self::WrongType,
            _ => Self::Other,
        }
    }

    /// A short fixed word for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "readonly",
            Self::Loading => "loading",
            Self::MasterDown => "masterdown",
            Self::ClusterDown => "clusterdown",
            Self::Moved => "moved",
            Self::TryAgain => "tryagain",
            Self::CrossSlot => "crossslot",
            Self::OutOfMemory => "oom",
            Self::Misconf => "misconf",
            Self::NoReplicas => "noreplicas",
            Self::Busy => "busy",
            Self::NoPermission => "noperm",
            Self::Auth => "auth",
            Self::NoScript => "noscript",
            Self::WrongType => "wrongtype",
            Self::Other => "refused",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_bounded_and_printable() {
        let error = StoreError::refused(&format!("OOM \n\u{7}{}", "x".repeat(10_000)));
        assert_eq!(error.kind(), "oom");
        let shown = error.to_string();
        assert!(shown.len() < 300 && !shown.contains('\n') && !shown.contains('\u{7}'));
        assert_eq!(StoreError::refused("").kind(), "refused");
        assert_eq!(StoreError::refused("OOMPH").kind(), "refused");
    }

    /// As Redis 6.2 words them.
    #[test]
    fn what_a_command_in_a_script_was_refused_for_is_read_from_old_servers_too() {
        let call = "ERR Error running script (call to f_4ca238f611c9d0ae4e9a75a5dbac22aedc1e44df): @user_script";
        for (text, kind) in [
            (
                ":13: WRONGTYPE Operation against a key holding the wrong kind of value",
                Refusal::WrongType,
            ),
            (
                ":13: @user_script: 13: -OOM command not allowed when used memory > 'maxmemory'.",
                Refusal::OutOfMemory,
            ),
            (
                ":13: @user_script: 13: -READONLY You can't write against a read only replica.",
                Refusal::ReadOnly,
            ),
            (
                ": 13: Lua script attempted to access a non local key in a cluster node",
                Refusal::CrossSlot,
            ),
            (":13: attempt to index a nil value", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(&format!("{call}{text}")), kind, "{text}");
        }
        assert_eq!(Refusal::of("ERR no @user_script:1: WRONGTYPE"), Refusal::Other);
    }
}

//! Tells the log what becomes of the connections to Redis: each server's loss and return, not every attempt, and not
//! every turn of one that lets us in and refuses us again and again (a demoted master, a cluster that is down).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::redis::{RedisChange, RedisEvent, RedisObserver};

/// A connection that is lost and made anew at once is in the log this often at most.
const QUIET: Duration = Duration::from_secs(10);
/// Servers that are kept in mind; those of a cluster come and go.
const MAX_SERVERS: usize = 4096;

/// What the log knows of a server.
#[derive(Debug, Default)]
struct Reported {
    connected: bool,
    /// There was a line that it is away.
    warned: bool,
    lost: Option<Instant>,
    /// Losses that were left out since.
    suppressed: u64,
    /// The last attempt failed by the login.
    login_refused: bool,
}

/// What to log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Connected,
    /// After a line that said that it was away.
    Back,
    Lost {
        suppressed: u64,
    },
    CannotConnect,
}

impl Reported {
    /// What is news: the log always ends with what is the case.
    fn record(&mut self, change: &RedisChange, now: Instant) -> Option<Line> {
        let was_connected = self.connected;
        match change {
            RedisChange::Connected { .. } => {
                (self.connected, self.login_refused) = (true, false);
                let line = if self.warned { Line::Back } else { Line::Connected };
                (!was_connected).then_some(line)
            }
            RedisChange::Disconnected(_) if self.lost.is_some_and(|lost| now - lost < QUIET) => {
                self.suppressed += 1;
                None
            }
            RedisChange::Disconnected(_) => {
                (self.connected, self.warned, self.lost) = (false, true, Some(now));
                let suppressed = std::mem::take(&mut self.suppressed);
                Some(Line::Lost { suppressed })
            }
            RedisChange::ConnectFailed { failed_attempts, error } => {
                (self.connected, self.warned) = (false, true);
                let is_login = error.is_login();
                // A server that was restarted with another password is away first.
                let is_news = is_login && !std::mem::replace(&mut self.login_refused, is_login);
                (was_connected || *failed_attempts == 1 || is_news).then_some(Line::CannotConnect)
            }
        }
    }
}

/// Writes to the log.
pub(super) fn observer() -> RedisObserver {
    let servers = Mutex::new(HashMap::<Arc<str>, Reported>::new());
    Arc::new(move |event| {
        let mut servers = servers.lock();
        if servers.len() >= MAX_SERVERS && !servers.contains_key(&event.server) {
            servers.clear();
        }
        let reported = servers.entry(event.server.clone()).or_default();
        let line = reported.record(&event.change, Instant::now());
        drop(servers);
        write(event, line.as_ref());
    })
}

fn write(event: &RedisEvent, line: Option<&Line>) {
    let server = &*event.server;
    match (&event.change, line) {
        // As loud as its beginning: whoever hears of that must hear of this.
        (RedisChange::Connected { failed_attempts }, Some(Line::Back)) => {
            tracing::warn!(server, failed_attempts, "connected to Redis");
        }
        (RedisChange::Connected { failed_attempts }, Some(_)) => {
            tracing::info!(server, failed_attempts, "connected to Redis");
        }
        (RedisChange::Disconnected(error), Some(Line::Lost { suppressed })) => {
            tracing::warn!(server, %error, suppressed, "connection to Redis lost");
        }
        (RedisChange::ConnectFailed { error, .. }, Some(_)) if error.is_login() => {
            tracing::warn!(
                server,
                %error,
                "Redis refuses the login, and the failure mode decides: put the password in force into the file of \
                 REDIS_AUTH_FILE (--redis-auth-file), which is read again when it changes; a password in \
                 the URL, or in REDIS_AUTH (which is read only where the server is started as envoyproxy/ratelimit), needs a \
                 restart"
            );
        }
        (RedisChange::ConnectFailed { error, .. }, Some(_)) => {
            tracing::warn!(server, %error, "cannot connect to Redis");
        }
        (change, _) => tracing::debug!(server, ?change, "connection to Redis"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn a_server_that_refuses_each_connection_is_told_of_now_and_then() {
        let error = || StoreError::refused("READONLY You can't write against a read only replica.");
        let connected = RedisChange::Connected { failed_attempts: 0 };
        let lost = RedisChange::Disconnected(error());
        let failed = |failed_attempts| RedisChange::ConnectFailed {
            error: error(),
            failed_attempts,
        };
        let (mut reported, start) = (Reported::default(), Instant::now());
        assert_eq!(reported.record(&connected, start), Some(Line::Connected));
        assert_eq!(reported.record(&lost, start), Some(Line::Lost { suppressed: 0 }));
        assert_eq!(reported.record(&connected, start), Some(Line::Back));
        for turn in 0..50 {
            let now = start + QUIET / 100 * turn;
            assert_eq!(reported.record(&lost, now), None);
            assert_eq!(reported.record(&connected, now), None);
        }
        let later = start + QUIET;
        assert_eq!(reported.record(&lost, later), Some(Line::Lost { suppressed: 50 }));
        assert_eq!(reported.record(&connected, later), Some(Line::Back));
        // A loss that was left out is reported of when it lasts.
        assert_eq!(reported.record(&lost, later), None);
        assert_eq!(reported.record(&failed(1), later), Some(Line::CannotConnect));
        assert_eq!(reported.record(&failed(2), later), None);
        assert_eq!(reported.record(&connected, later), Some(Line::Back));
    }
}

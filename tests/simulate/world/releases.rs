//! Permits that are given back, and requests that must be said until somebody hears them.

use rand::Rng;

use super::callers::Asking;
use super::{Happens, World};
use crate::oracle::{How, Permits};
use crate::rules::{FIRST_RULES, versions};
use crate::script::VALUES;

/// A release that is to be made.
pub(in crate::world) struct Release {
    pub replica: usize,
    pub part: (usize, usize, i64),
    pub version: usize,
    pub how: How,
}

impl World<'_> {
    pub(super) fn releases(&mut self, release: Release) {
        let mut parts = vec![release.part];
        parts.extend(self.beside_release(release.part));
        self.ask(Asking {
            deadline_ms: Some(20),
            how: release.how,
            ..Asking::new(release.replica, release.version, parts)
        });
    }

    /// What else the request of a release asks for, if anything.
    fn beside_release(&mut self, release: (usize, usize, i64)) -> Option<(usize, usize, i64)> {
        let is_over = self.now_ms >= self.setup.active_ms;
        if !self.setup.mixed_releases || is_over || self.random.random_bool(0.5) {
            return None;
        }
        if let Some(rule) = self.setup.denied_beside {
            let hits = [1, 100][self.random.random_range(0..2)];
            return Some((rule, self.random.random_range(0..2), hits));
        }
        let (rule, value) = (self.random.random_range(0..FIRST_RULES), self.random.random_range(0..2));
        ((rule, value) != (release.0, release.1)).then_some((rule, value, 1))
    }

    /// A caller gives back the permits that it holds; where callers release whether they passed or not, also those that it
    /// did not get.
    pub(super) fn will_release(&mut self, number: usize, permits: &[Permits]) {
        let asked = &self.asked[number];
        let (own, version) = ((asked.replica, asked.process), asked.version);
        let releases_all = self.setup.releases_all;
        for permits in permits.iter().filter(|permits| permits.granted || releases_all) {
            let (rule, value, hits) = permits.part;
            let part = (rule, value, -i64::try_from(hits).unwrap_or(0));
            let (after_ms, replica) = (
                self.random.random_range(0..300),
                self.random.random_range(0..self.processes.len()),
            );
            // What was denied, and a number that no answer told, are known to the process that decided only.
            let (replica, how) = match (releases_all, permits.granted) {
                (false, _) => (replica, How::Exact),
                (true, true) if self.random.random_bool(0.5) => (replica, How::Told),
                (true, granted) => (own.0, How::ToProcess { number: own.1, granted }),
            };
            let release = Release {
                replica,
                part,
                version,
                how,
            };
            self.at(self.now_ms + after_ms, Happens::Releases(release));
        }
    }

    /// There is no process: releases and settlements are said again until somebody hears them.
    pub(super) fn nobody_hears(&mut self, asking: Asking) {
        let next = (asking.replica + 1) % self.processes.len();
        let replica = if asking.how.is_for_one() { asking.replica } else { next };
        let at_ms = self.now_ms + 20;
        if asking.settles.is_some() {
            self.at(at_ms, Happens::Asks(Box::new(Asking { replica, ..asking })));
        } else if asking.parts.iter().any(|part| part.2 < 0)
            && let Some(&part) = asking.parts.first()
        {
            let release = Release {
                replica,
                part,
                version: asking.version,
                how: asking.how,
            };
            self.at(at_ms, Happens::Releases(release));
        }
    }

    /// The process that knew which of its callers' releases are due has died.
    pub(super) fn filter_is_gone(&mut self, asking: &Asking) {
        for &part in asking.parts.iter().filter(|part| part.2 < 0) {
            if asking.how.is_due() {
                let release = Release {
                    replica: asking.replica,
                    part,
                    version: asking.version,
                    how: How::Told,
                };
                self.at(self.now_ms, Happens::Releases(release));
            } else {
                // Its note may have struck out another caller's release.
                let key = versions()[asking.version].known[part.0].key(VALUES[part.1]);
                self.oracle.doubt(&key, part.2.abs());
            }
        }
    }

    /// The engine had too many requests. A release, a settlement and a last call come again, since they must be heard.
    pub(super) fn overloaded(&mut self, number: usize) {
        self.reached.add("requests under way", 1);
        let asked = &self.asked[number];
        let (replica, version, is_last, how) = (asked.replica, asked.version, asked.is_last, asked.how);
        let at_ms = self.now_ms + 5;
        self.oracle.unasked(asked);
        if let Some(id) = asked.settles {
            let asking = Asking {
                deadline_ms: asked.deadline_ms,
                settles: Some(id),
                ..Asking::new(replica, version, asked.parts.clone())
            };
            self.at(at_ms, Happens::Asks(Box::new(asking)));
            return;
        }
        for part in asked.parts.clone() {
            if part.2 < 0 {
                let release = Release {
                    replica,
                    part,
                    version,
                    how,
                };
                self.at(at_ms, Happens::Releases(release));
            } else if is_last {
                self.at(at_ms, Happens::Last { replica, part });
            }
        }
    }
}

//! What the script does to servers, replicas and the network.

use std::sync::atomic::Ordering;

use super::{Happens, World};
use crate::rules::versions;
use crate::script::{VALUES, What};

impl World<'_> {
    pub(super) fn set_away(&self, server: usize, away: bool) {
        for replica in self.processes.iter().filter_map(|process| process.replica.as_ref()) {
            replica.away[server].store(away, Ordering::Relaxed);
        }
    }

    pub(super) fn script_event(&mut self, number: usize) {
        let what = &self.script.events[number].what;
        let now_ms = self.now_ms;
        if !matches!(what, What::Call(_)) {
            self.trace
                .note(now_ms, "fault", &[number as u64], || format!("{what:?}"));
        }
        match *what {
            What::Call(ref call) => self.call(call),
            What::Slow { .. } | What::Lose { .. } => self.link_event(what),
            What::Down { .. }
            | What::Refuse { .. }
            | What::Moves { .. }
            | What::Failover { .. }
            | What::StepServer { .. } => {
                self.server_event(what);
            }
            What::Crash { replica, for_ms } => self.crash(replica, for_ms),
            What::Pause {
                replica,
                for_ms,
                messages_first,
            } => self.pause(replica, for_ms, messages_first),
            What::StepReplica { replica, by_ms } => {
                let clock_us = &mut self.processes[replica].clock_us;
                *clock_us = clock_us.saturating_add_signed(by_ms * 1000);
            }
            What::Rules { version } => {
                self.version = version;
                for replica in self.processes.iter().filter_map(|process| process.replica.as_ref()) {
                    replica.activate(version);
                }
            }
            What::Reset { replica, ref counters } => {
                let process = &self.processes[replica];
                let known = &versions()[self.version].known;
                let named = |&(rule, value): &(usize, usize)| (known[rule].key(VALUES[value]), known[rule].limit);
                if let Some(replica) = process.replica.as_ref().filter(|replica| !replica.is_paused) {
                    replica.reset(counters.iter().map(named).collect());
                }
            }
        }
    }

    fn link_event(&mut self, what: &What) {
        let now_ms = self.now_ms;
        match *what {
            What::Slow {
                replica,
                server,
                for_ms,
                by_ms,
            } => {
                let link = self.link(replica, server);
                (link.slow_until_ms, link.slow_by_ms) = (now_ms + for_ms, by_ms);
            }
            What::Lose {
                replica,
                server,
                for_ms,
                requests,
                percent,
                tell_ms,
            } => {
                let link = self.link(replica, server);
                (link.lossy_until_ms, link.loses_requests) = (now_ms + for_ms, requests);
                (link.percent, link.tell_ms) = (percent, tell_ms);
            }
            _ => {}
        }
    }

    fn server_event(&mut self, what: &What) {
        let now_ms = self.now_ms;
        match *what {
            What::Down {
                server: at,
                for_ms,
                keeps,
                silent,
            } => {
                let server = &mut self.servers[at];
                if server.is_down {
                    return;
                }
                (server.is_down, server.is_silent) = (true, silent);
                server.life += 1;
                if !keeps {
                    server.lose_all(now_ms);
                }
                self.set_away(at, !silent);
                self.at(now_ms + for_ms, Happens::Up(at));
            }
            What::Refuse { server, for_ms } => {
                self.servers[server].refuses = true;
                self.at(now_ms + for_ms, Happens::Obeys(server));
            }
            What::Moves { server, for_ms } => {
                self.servers[server].moves = true;
                self.at(now_ms + for_ms, Happens::Settles(server));
            }
            What::Failover { server, misses } => {
                self.servers[server].life += 1;
                self.servers[server].lose_last(now_ms, misses);
            }
            What::StepServer { server, by_ms } => self.servers[server].step(by_ms),
            _ => {}
        }
    }

    fn pause(&mut self, at: usize, for_ms: u64, messages_first: bool) {
        let process = &mut self.processes[at];
        let Some(replica) = process.replica.as_mut().filter(|replica| !replica.is_paused) else {
            return;
        };
        replica.is_paused = true;
        (process.resumes_ms, process.messages_first) = (self.now_ms + for_ms, messages_first);
        self.at(self.now_ms + for_ms, Happens::Resumes(at));
    }

    pub(super) fn crash(&mut self, at: usize, for_ms: u64) {
        let process = &mut self.processes[at];
        let Some(replica) = process.replica.take() else { return };
        let number = process.number;
        (process.number, process.resumes_ms) = (number + 1, 0);
        process.opened.clear();
        self.note_end(&replica);
        drop(replica);
        self.oracle.crashed(at, number, &self.sent);
        for asked in &mut self.asked {
            if (asked.replica, asked.process, asked.answered) == (at, number, false) {
                asked.answered = true;
                self.oracle.unanswered(asked);
            }
        }
        self.at(self.now_ms + for_ms.max(1), Happens::Restarts(at));
    }

    pub(super) fn resumes(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let process = &mut self.processes[at];
        if process.resumes_ms > now_ms {
            return;
        }
        if let Some(replica) = process.replica.as_mut().filter(|replica| replica.is_paused) {
            replica.is_paused = false;
            replica.jump_to(now_ms);
        }
    }
}

//! Messages between replicas and servers: how long each travels, whether it is lost, and who hears of its fate.

use rand::Rng;
use sluicegate::algorithms::op::Op;
use sluicegate::model::{Check, CounterKey, Transaction};
use sluicegate::store::StoreError;
use sluicegate::store::remote::transport::Delivery;
use tokio::sync::oneshot;

use super::{Happens, World};
use crate::network::{Errand, Message, Parcel};
use crate::oracle::Sent;

/// Checks of one request, with a lease for each.
const LARGEST_REQUEST: usize = 6;
/// What a message takes once the faults have ended.
const CALM_DELAY_MS: (u64, u64) = (1, 2);

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    pub slow_until_ms: u64,
    pub slow_by_ms: u64,
    pub lossy_until_ms: u64,
    pub loses_requests: bool,
    pub percent: u32,
    pub tell_ms: Option<u64>,
    /// When the last message of each connection arrives, there and back.
    pub last: [[u64; 2]; 3],
}

pub(super) struct Flight {
    pub replica: usize,
    pub server: usize,
    pub life: u64,
    pub connection: usize,
    pub reply: Option<oneshot::Sender<Parcel>>,
    is_mixed: bool,
    /// What it asks beside its calls.
    errand: Errand,
}

impl World<'_> {
    pub(super) fn link(&mut self, replica: usize, server: usize) -> &mut Link {
        &mut self.links[replica * self.setup.servers + server]
    }

    /// How long a message travels, and whether it is lost.
    pub(super) fn travels(&mut self, flight: usize, at_ms: u64, back: bool) -> Result<u64, Option<u64>> {
        let Flight {
            replica,
            server,
            connection,
            ..
        } = self.flights[flight];
        let (low, high) = match at_ms < self.setup.active_ms {
            true => self.setup.delay_ms,
            false => CALM_DELAY_MS,
        };
        let delay_ms = self.random.random_range(low..=high);
        let percent = self.random.random_range(0..100);
        let link = self.link(replica, server);
        if at_ms < link.lossy_until_ms && link.loses_requests != back && percent < link.percent {
            return Err(link.tell_ms);
        }
        let slow_ms = if at_ms < link.slow_until_ms { link.slow_by_ms } else { 0 };
        let last = &mut link.last[connection][usize::from(back)];
        *last = (*last).max(at_ms + delay_ms + slow_ms);
        Ok(*last)
    }

    pub(super) fn send(&mut self, replica: usize, at_ms: u64, message: Message) -> Result<(), String> {
        let number = self.flights.len();
        let server = message.server;
        let (calls, errand) = match message.errand {
            Errand::Decide(calls) => (calls, Errand::Decide(Vec::new())),
            other => (Vec::new(), other),
        };
        self.check_size(&calls)?;
        self.flights.push(Flight {
            replica,
            server,
            life: self.servers[server].life,
            connection: self.random.random_range(0..self.setup.connections),
            reply: Some(message.reply),
            is_mixed: message.is_mixed,
            errand,
        });
        let checks: usize = calls.iter().map(|call| call.checks.len()).sum();
        self.trace
            .note(at_ms, "sends", &[replica as u64, server as u64, checks as u64], || {
                let checks = calls.iter().flat_map(|call| &call.checks);
                let all: Vec<_> = checks
                    .map(|check| format!("{} {}", check.key, shown(check.hits)))
                    .collect();
                format!("#{number} {replica} to {server}: {}", all.join(", "))
            });
        self.sent.push(Sent {
            replica,
            process: self.processes[replica].number,
            calls,
            answers: None,
            heard: message.heard,
            failed: false,
            refused: false,
        });
        match self.travels(number, at_ms, false) {
            Ok(arrives_ms) => self.at(arrives_ms, Happens::Arrives(number)),
            Err(tell_ms) => self.lost(number, at_ms, tell_ms),
        }
        Ok(())
    }

    /// A call has its bound of checks, unless one request has more; in front of them go as many corrections at most.
    fn check_size(&self, calls: &[Transaction<Op>]) -> Result<(), String> {
        let corrects = |check: &Check<Op>| {
            matches!(
                check.hits,
                Op::Refund(_)
                    | Op::Return { .. }
                    | Op::Debit(_)
                    | Op::Release(_)
                    | Op::Settle { .. }
                    | Op::ForceHold { .. }
            )
        };
        let (corrections, requests) = match calls.split_first() {
            Some((first, rest)) if first.checks.iter().all(corrects) => (first.checks.len(), rest),
            _ => (0, calls),
        };
        let checks = corrections.max(requests.iter().map(|call| call.checks.len()).sum());
        let most = self.setup.small.pipeline.checks.max(LARGEST_REQUEST);
        if checks > most {
            return Err(format!("a call of {checks} checks, {most} at most may be"));
        }
        Ok(())
    }

    /// A message is lost; whether and when its sender finds the connection broken.
    pub(super) fn lost(&mut self, number: usize, at_ms: u64, tell_ms: Option<u64>) {
        self.oracle.is_unheard(&self.sent[number]);
        if let Some(tell_ms) = tell_ms {
            let broken = StoreError::Broken("reset".into());
            let parcel = Parcel::Delivery(Delivery::Indeterminate(broken));
            self.at(at_ms + tell_ms, Happens::Delivers(number, Box::new(parcel)));
        }
    }

    pub(super) fn arrives(&mut self, number: usize) {
        let Flight {
            server: at,
            life,
            is_mixed,
            ..
        } = self.flights[number];
        let (now_ms, server) = (self.now_ms, &mut self.servers[at]);
        if server.is_down || server.life != life {
            let tell_ms = (!server.is_silent).then_some(1);
            self.lost(number, now_ms, tell_ms);
            return;
        }
        let refusal = if server.refuses {
            Some("OOM command not allowed")
        } else if server.moves && is_mixed {
            Some("ERR Script attempted to access a non local key in a cluster node")
        } else {
            None
        };
        let parcel = if let Some(refusal) = refusal {
            self.sent[number].refused = true;
            Parcel::Delivery(Delivery::Answered(Err(StoreError::refused(refusal))))
        } else {
            match &self.flights[number].errand {
                Errand::Decide(_) => self.carry_out(number, at),
                Errand::Announce(counters) => {
                    server.announce(now_ms, counters);
                    Parcel::Delivery(Delivery::Answered(Ok(Vec::new())))
                }
                Errand::ReadLog { since, most } => Parcel::Log(server.read_log(*since, *most)),
            }
        };
        let sent = &self.sent[number];
        let allowed = sent
            .answers
            .iter()
            .flatten()
            .flatten()
            .map(|answer| u64::from(answer.outcome.allowed));
        let allowed: Vec<u64> = [number as u64].into_iter().chain(allowed).collect();
        self.trace.note(now_ms, "decides", &allowed, || {
            format!("#{number}: {:?}", &allowed[1..])
        });
        match self.travels(number, now_ms, true) {
            Ok(at_ms) => self.at(at_ms, Happens::Delivers(number, Box::new(parcel))),
            Err(tell_ms) => self.lost(number, now_ms, tell_ms),
        }
    }

    /// A server decides the calls of a message.
    fn carry_out(&mut self, number: usize, server: usize) -> Parcel {
        let sent = &mut self.sent[number];
        let answers = self.servers[server].run(self.now_ms, &sent.calls);
        sent.answers = Some(answers.clone());
        let resets = |check: &&Check<Op>| check.hits == Op::Reset;
        let checks = sent.calls.iter().flat_map(|call| &call.checks);
        let keys: Vec<_> = checks.filter(resets).map(|check| check.key.clone()).collect();
        let at_us = self.servers[server].time_us(self.now_ms);
        for key in keys {
            let processes = self.processes.iter().map(|process| process.number).collect();
            self.oracle.reset(&key, self.now_ms, at_us, processes, &self.sent);
        }
        Parcel::Delivery(Delivery::Answered(Ok(answers)))
    }

    pub(super) fn delivers(&mut self, number: usize, parcel: Parcel) {
        let flight = &mut self.flights[number];
        let replica = flight.replica;
        let process = &self.processes[replica];
        if process.resumes_ms > self.now_ms && !process.messages_first {
            let later_ms = process.resumes_ms + 1;
            self.at(later_ms, Happens::Delivers(number, Box::new(parcel)));
            return;
        }
        let server = &self.servers[flight.server];
        let answers = |parcel: &Parcel| matches!(parcel, Parcel::Log(_) | Parcel::Delivery(Delivery::Answered(_)));
        let broken = server.life != flight.life && !server.is_silent && answers(&parcel);
        let parcel = if broken {
            self.oracle.is_unheard(&self.sent[number]);
            Parcel::Delivery(Delivery::Indeterminate(StoreError::Broken("reset".into())))
        } else {
            parcel
        };
        let is_answer = answers(&parcel);
        self.trace
            .note(self.now_ms, "delivers", &[number as u64, u64::from(is_answer)], || {
                format!("#{number}: {}", if is_answer { "answered" } else { "failed" })
            });
        let entries = match &parcel {
            Parcel::Log(entries) => entries.clone(),
            _ => Vec::new(),
        };
        // The times in the log say when only by a clock that was never set.
        let is_steady = server.is_steady();
        if let Some(reply) = flight.reply.take() {
            let taken = reply.send(parcel).is_ok();
            if is_answer && taken {
                self.forgets(number, &entries);
            }
            for entry in entries.iter().filter(|_| taken && is_steady) {
                let numbers: Vec<u64> = self.processes.iter().map(|process| process.number).collect();
                let now = (self.now_ms, self.sent.as_slice(), self.asked.as_slice());
                self.oracle.hears_of_reset(entry, replica, &numbers, now);
            }
            if !is_answer || !taken {
                // What was heard of it says nothing of what was counted.
                self.sent[number].failed = true;
                self.oracle.is_unheard(&self.sent[number]);
            }
        }
    }
}

impl World<'_> {
    /// What a process forgets when it hears this answer: counters that it has reset, or finds in the log of resets.
    fn forgets(&mut self, number: usize, entries: &[(CounterKey, u64)]) {
        let Sent {
            replica,
            process,
            calls,
            ..
        } = &self.sent[number];
        let checks = calls.iter().flat_map(|call| &call.checks);
        let own = checks.filter(|check| check.hits == Op::Reset).map(|check| &check.key);
        for key in own.chain(entries.iter().map(|(key, _)| key)) {
            self.oracle.forgets(key, *replica, *process);
        }
    }
}

/// An operation without the names of holds, which are other ones in each run.
fn shown(op: Op) -> String {
    match op {
        Op::Hold { hits, .. } => format!("Hold({hits})"),
        Op::Settle { hits, .. } => format!("Settle({hits})"),
        Op::Release(_) => "Release".to_owned(),
        Op::ForceHold { hits, .. } => format!("ForceHold({hits})"),
        other => format!("{other:?}"),
    }
}

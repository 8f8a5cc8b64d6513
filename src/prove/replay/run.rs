//! Records → descriptors → decisions, in order of time, by one or two sets of rules.

use crate::mapping::Attributes;

use super::change::Change;
use super::error::ReplayError;
use super::format::Format;
use super::input::{LogFiles, Merged};
use super::options::Options;
use super::order::Reorder;
use super::record::{Record, Target};
use super::report::{Moment, ReplaySpan, Report};
use super::side::Side;
use super::unreadable::Unreadable;

/// Lines between two looks at the progress.
const PROGRESS_LINES: u64 = 1 << 15;
/// Requests whose counters are brought near together.
const BATCH: usize = 32;

/// How far a replay is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Lines read.
    pub lines: u64,
    /// Bytes read of the files.
    pub bytes: u64,
    /// All bytes, where they are known.
    pub total_bytes: Option<u64>,
}

/// Replays the logs. `progress` is called now and then.
///
/// # Errors
/// [`ReplayError`] when there is nothing to replay by, or a log cannot be read to its end.
pub async fn run(options: &Options, mut progress: impl FnMut(Progress)) -> Result<Report, ReplayError> {
    let mut logs = LogFiles::open(&options.logs)?;
    let format = Format::new(options.format.as_deref(), &options.fields, &logs.first_line()?);
    let format = format.map_err(ReplayError::Format)?;
    let mut logs = Merged::open(logs, &format)?;
    let mut record = Box::new(Record::default());
    let mut order = Reorder::new(options.window_us);
    let mut replay: Option<Replay> = None;
    let mut ended = false;
    while !ended {
        ended = !logs.next(&mut record)?;
        if !ended {
            let at_us = record.at_us;
            if replay.is_none() {
                replay = Some(Replay::new(
                    options,
                    format.client_is_final(),
                    at_us.saturating_sub(options.window_us),
                )?);
            }
            if !order.push(&mut record) {
                logs.unreadable.add(order.refusal(), || format!("at {}", Moment(at_us)));
            }
            if logs.lines.is_multiple_of(PROGRESS_LINES) {
                progress(Progress {
                    lines: logs.lines,
                    bytes: logs.read_bytes(),
                    total_bytes: logs.total_bytes,
                });
            }
        }
        while let Some(replay) = replay.as_mut().filter(|_| order.pop(ended, &mut record)) {
            replay.take(&mut record, &mut logs.unreadable).await;
        }
    }
    let mut replay = match replay {
        Some(replay) => replay,
        None => Replay::new(options, true, 0)?,
    };
    replay.decide(&mut logs.unreadable).await;
    let (lines, unreadable) = (logs.lines, std::mem::take(&mut logs.unreadable));
    Ok(replay.finish(options, lines, unreadable))
}

/// A request that could not be decided.
fn example(record: &Record) -> String {
    format!("{} {}", record.method(), record.path())
}

/// The sides, and how they differ.
struct Replay {
    new: Side,
    old: Option<Side>,
    change: Change,
    client_is_final: bool,
    host: Option<String>,
    /// Records that are planned together; those beyond `waiting` are there to be used again.
    #[allow(clippy::vec_box, reason = "records are handed on by their pointers")]
    batch: Vec<Box<Record>>,
    waiting: usize,
    span: Option<ReplaySpan>,
    has_durations: bool,
    seen: FieldsSeen,
}

/// What requests become descriptors by, as far as any line had it.
#[derive(Default)]
struct FieldsSeen {
    client: bool,
    path: bool,
    header: bool,
}

impl FieldsSeen {
    fn add(&mut self, record: &Record) {
        self.client |= record.source_address().is_some();
        self.path |= !record.path().is_empty();
        self.header |= record.has_headers();
    }

    /// Why rules may have got no request: what no line had.
    fn missing(&self) -> Option<String> {
        let fields = [
            (self.client, "a client's address (client)"),
            (self.path, "a path (path)"),
            (self.header, "a request header that is read (header.NAME)"),
        ];
        let missing: Vec<&str> = fields.iter().filter(|(seen, _)| !seen).map(|(_, name)| *name).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "some rules got no request, and no line has {}: no descriptor was made of these. --field says where they \
                 stand in JSON lines, --format in others",
                missing.join(", nor ")
            )
        })
    }
}

impl Replay {
    fn new(options: &Options, client_is_final: bool, start_us: u64) -> Result<Self, ReplayError> {
        let old = (!options.against.is_empty())
            .then(|| Side::new(options, &options.against, start_us))
            .transpose()?;
        let new = Side::new(options, &options.rules, start_us)?;
        let plans_ahead = [Some(&new), old.as_ref()]
            .into_iter()
            .flatten()
            .all(|side| side.limiter.plans_ahead());
        Ok(Self {
            new,
            old,
            batch: (0..if plans_ahead { BATCH } else { 1 })
                .map(|_| Box::default())
                .collect(),
            waiting: 0,
            change: Change::default(),
            client_is_final,
            host: options.host.clone(),
            span: None,
            has_durations: false,
            seen: FieldsSeen::default(),
        })
    }

    /// Takes a record (and leaves an old one in its place); decides when there are enough.
    async fn take(&mut self, record: &mut Box<Record>, unreadable: &mut Unreadable) {
        if let Some(host) = self.host.as_deref().filter(|_| record.host().is_empty()) {
            let _ = record.set(Target::Host, host);
        }
        self.span = Some(ReplaySpan::extended(self.span, record.at_us));
        self.seen.add(record);
        self.has_durations |= record.duration_us.is_some();
        if let Some(slot) = self.batch.get_mut(self.waiting) {
            std::mem::swap(slot, record);
            self.waiting += 1;
        }
        if self.waiting >= self.batch.len() {
            self.decide(unreadable).await;
        }
    }

    /// Decides what waits.
    async fn decide(&mut self, unreadable: &mut Unreadable) {
        let waiting = std::mem::take(&mut self.waiting);
        let records = self.batch.get(..waiting).unwrap_or_default();
        self.new.plan(records, self.client_is_final);
        if let Some(old) = &mut self.old {
            old.plan(records, self.client_is_final);
        }
        for (number, record) in records.iter().enumerate() {
            let new = self.new.decide(number, record).await;
            let old = match &mut self.old {
                Some(old) => Some(old.decide(number, record).await),
                None => None,
            };
            match (new, old) {
                (Err(reason), _) => unreadable.add(&reason, || example(record)),
                (Ok(_), Some(Err(reason))) => {
                    unreadable.add(&format!("by the other rules: {reason}"), || example(record));
                }
                (Ok(new), Some(Ok(old))) => self.change.add(&new, &old),
                (Ok(_), None) => {}
            }
        }
    }

    fn finish(mut self, options: &Options, lines: u64, unreadable: Unreadable) -> Report {
        self.new.tally.finish();
        let mut notes = self.new.notes(self.has_durations);
        if let Some(old) = &self.old {
            let of_old = old.notes(self.has_durations).into_iter();
            notes.extend(
                of_old
                    .filter(|note| !notes.contains(note))
                    .map(|note| format!("the other rules: {note}"))
                    .collect::<Vec<_>>(),
            );
        }
        if self.change.overflowed {
            notes.push(
                "more keys are decided otherwise than are followed: those that differ most may be missing".to_owned(),
            );
        }
        if self.span.is_some() && self.new.tally.rules.iter().any(|rule| rule.requests == 0) {
            notes.extend(self.seen.missing());
        }
        let old = self.old.as_mut().map(|old| {
            old.tally.finish();
            &*old
        });
        Report::new(
            options,
            lines,
            unreadable,
            self.span,
            &self.new,
            old.map(|old| (old, &self.change)),
            notes,
        )
    }
}

//! An Envoy as 1.40 was seen to behave: one token bucket for all workers, reports every five seconds, a lease that lives on
//! without its stream, requests that wait in a stopped process.

use std::collections::{BTreeMap, VecDeque};

use prost::Message;
use sluicegate::proto::envoy::service::rate_limit_quota::v3 as wire;
use sluicegate::proto::envoy::r#type::v3::rate_limit_strategy::Strategy;
use tokio::sync::mpsc::UnboundedSender;
use tonic::Status;
use wire::rate_limit_quota_response::bucket_action::BucketAction as Kind;
use wire::rate_limit_quota_usage_reports::BucketQuotaUsage;

/// Microseconds between two reports.
const REPORT_US: u64 = 5_000_000;

/// The server's end of a stream, as Envoy has it.
pub struct Stream {
    pub reports: UnboundedSender<Result<wire::RateLimitQuotaUsageReports, Status>>,
    pub assignments: sluicegate::service::rlqs::Assignments,
}

/// What decides about a bucket's requests.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    NoAssignment,
    Deny,
    Allow,
    /// Tokens left, tokens it holds, tokens a second, and when it was filled last.
    Tokens(f64, f64, f64, u64),
}

#[derive(Debug)]
struct Bucket {
    rule: Rule,
    until_us: u64,
    reported_us: u64,
    allowed: u64,
    denied: u64,
}

/// One Envoy.
pub struct Envoy {
    buckets: BTreeMap<Vec<u8>, Bucket>,
    stream: Option<Stream>,
    next_report_us: u64,
    /// Assignments on their way: when they arrive.
    inbox: VecDeque<(u64, wire::RateLimitQuotaResponse)>,
    /// Reports on their way.
    outbox: VecDeque<(u64, wire::RateLimitQuotaUsageReports)>,
    pub delay_us: u64,
    pub allowed: u64,
    pub denied: u64,
    /// Most bytes of a message, and most actions.
    pub largest: (usize, usize),
}

/// The id of a bucket of one entry.
pub fn bucket(key: &str, value: &str) -> Vec<u8> {
    let bucket = std::iter::once((key.to_owned(), value.to_owned())).collect();
    wire::BucketId { bucket }.encode_to_vec()
}

impl Envoy {
    /// An Envoy whose first report is due at this time.
    pub const fn new(first_report_us: u64, delay_us: u64) -> Self {
        Self {
            buckets: BTreeMap::new(),
            stream: None,
            next_report_us: first_report_us,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            delay_us,
            allowed: 0,
            denied: 0,
            largest: (0, 0),
        }
    }

    /// The server or the network closes the stream; what is on its way is lost.
    pub fn disconnect(&mut self) {
        self.stream = None;
        self.inbox.clear();
        self.outbox.clear();
    }

    /// Requests that come now; how many are admitted.
    pub fn requests(&mut self, id: &[u8], count: u32, now_us: u64) -> u32 {
        if count == 0 {
            return 0;
        }
        if !self.buckets.contains_key(id) {
            let bucket = Bucket {
                rule: Rule::NoAssignment,
                until_us: u64::MAX,
                reported_us: now_us,
                allowed: 0,
                denied: 0,
            };
            self.buckets.insert(id.to_vec(), bucket);
            self.post(vec![usage(id, 0, 0, 0)], now_us);
        }
        let bucket = self.buckets.get_mut(id).expect("just made");
        let is_over = now_us >= bucket.until_us;
        let admitted = match &mut bucket.rule {
            _ if is_over => 0,
            Rule::NoAssignment | Rule::Deny => 0,
            Rule::Allow => count,
            Rule::Tokens(left, most, per_second, at_us) => {
                #[allow(clippy::cast_precision_loss, reason = "a few seconds")]
                let passed = (now_us - *at_us) as f64 / 1e6;
                (*left, *at_us) = ((*left + passed * *per_second).min(*most), now_us);
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "not negative, and small"
                )]
                let admitted = count.min(*left as u32);
                *left -= f64::from(admitted);
                admitted
            }
        };
        bucket.allowed += u64::from(admitted);
        bucket.denied += u64::from(count - admitted);
        self.allowed += u64::from(admitted);
        self.denied += u64::from(count - admitted);
        admitted
    }

    /// Requests that waited in a stopped process and are admitted before its main thread notices the time.
    pub fn thawed(&mut self, id: &[u8], count: u32, now_us: u64) -> u32 {
        let Some(bucket) = self.buckets.get_mut(id) else {
            return 0;
        };
        let Rule::Tokens(left, most, per_second, at_us) = &mut bucket.rule else {
            return 0;
        };
        if count > 0 {
            #[allow(clippy::cast_precision_loss, reason = "a few seconds")]
            let passed = (now_us - *at_us) as f64 / 1e6;
            (*left, *at_us) = ((*left + passed * *per_second).min(*most), now_us);
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and small"
        )]
        let admitted = count.min(*left as u32);
        *left -= f64::from(admitted);
        bucket.allowed += u64::from(admitted);
        self.allowed += u64::from(admitted);
        admitted
    }

    /// Requests that it can still admit without another assignment, in whole tokens.
    pub fn left(&self) -> u64 {
        let left = |bucket: &Bucket| match bucket.rule {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            Rule::Tokens(left, ..) => left as u64,
            _ => 0,
        };
        self.buckets.values().map(left).sum()
    }

    /// What the main thread does: takes in assignments, reports, connects at its ticks.
    pub fn turn(&mut self, now_us: u64, connect: impl FnOnce() -> Option<Stream>) {
        if let Some(stream) = &mut self.stream {
            loop {
                match futures::FutureExt::now_or_never(futures::StreamExt::next(&mut stream.assignments)) {
                    Some(Some(Ok(message))) => self.inbox.push_back((now_us + self.delay_us, message)),
                    Some(_) => {
                        self.stream = None;
                        break;
                    }
                    None => break,
                }
            }
        }
        while self.inbox.front().is_some_and(|(at_us, _)| *at_us <= now_us) {
            let (_, message) = self.inbox.pop_front().expect("just seen");
            self.take_in(message, now_us);
        }
        if now_us >= self.next_report_us {
            self.next_report_us = now_us - (now_us - self.next_report_us) % REPORT_US + REPORT_US;
            if self.stream.is_none() {
                self.stream = connect();
            }
            let usages: Vec<_> = self
                .buckets
                .iter_mut()
                .map(|(id, bucket)| {
                    let (allowed, denied) = (std::mem::take(&mut bucket.allowed), std::mem::take(&mut bucket.denied));
                    let elapsed_us = now_us - std::mem::replace(&mut bucket.reported_us, now_us);
                    usage(id, elapsed_us / 1_000_000, allowed, denied)
                })
                .collect();
            if !usages.is_empty() {
                self.post(usages, now_us);
            }
        } else if self.stream.is_none() && self.buckets.is_empty() {
            self.stream = connect();
        }
        while self.outbox.front().is_some_and(|(at_us, _)| *at_us <= now_us) {
            let (_, message) = self.outbox.pop_front().expect("just seen");
            if let Some(stream) = &self.stream {
                let _ = stream.reports.send(Ok(message));
            }
        }
    }

    /// Without a stream the counts of this report are lost.
    fn post(&mut self, usages: Vec<BucketQuotaUsage>, now_us: u64) {
        if self.stream.is_some() {
            let message = wire::RateLimitQuotaUsageReports {
                domain: "edge".into(),
                bucket_quota_usages: usages,
            };
            self.outbox.push_back((now_us + self.delay_us, message));
        }
    }

    fn take_in(&mut self, message: wire::RateLimitQuotaResponse, now_us: u64) {
        let actions = message.bucket_action.len();
        self.largest = (self.largest.0.max(message.encoded_len()), self.largest.1.max(actions));
        for action in message.bucket_action {
            let id = action.bucket_id.to_vec();
            assert!(
                self.buckets.contains_key(&id),
                "an action for a bucket that was never reported"
            );
            match action.bucket_action.expect("an action") {
                Kind::AbandonAction(_) => {
                    self.buckets.remove(&id);
                }
                Kind::QuotaAssignmentAction(assigned) => {
                    let bucket = self.buckets.get_mut(&id).expect("known");
                    let ttl_s = assigned.assignment_time_to_live.expect("a ttl").seconds;
                    assert!(ttl_s >= 1, "it would expire at once");
                    let is_over = now_us >= bucket.until_us;
                    bucket.until_us = now_us + u64::try_from(ttl_s).expect("positive") * 1_000_000;
                    bucket.rule = match assigned
                        .rate_limit_strategy
                        .and_then(|of| of.strategy)
                        .expect("a strategy")
                    {
                        Strategy::BlanketRule(0) => Rule::Allow,
                        Strategy::BlanketRule(_) => Rule::Deny,
                        Strategy::TokenBucket(tokens) => {
                            assert_eq!(tokens.fill_interval.expect("an interval").seconds, 1);
                            let most = f64::from(tokens.max_tokens);
                            let per_second = f64::from(tokens.tokens_per_fill.expect("given"));
                            match bucket.rule {
                                // The identical strategy again is an extension while in time.
                                Rule::Tokens(_, had, rate, _)
                                    if !is_over && (had - most).abs() < 0.5 && (rate - per_second).abs() < 0.5 =>
                                {
                                    bucket.rule
                                }
                                _ => Rule::Tokens(most, most, per_second, now_us),
                            }
                        }
                        Strategy::RequestsPerTimeUnit(_) => panic!("Envoy does not enforce it"),
                    };
                }
            }
        }
    }
}

/// Envoy counts whole seconds.
fn usage(id: &[u8], elapsed_s: u64, allowed: u64, denied: u64) -> BucketQuotaUsage {
    BucketQuotaUsage {
        bucket_id: bytes::Bytes::copy_from_slice(id),
        time_elapsed: Some(prost_types::Duration {
            seconds: elapsed_s.try_into().expect("short"),
            nanos: 0,
        }),
        num_requests_allowed: allowed,
        num_requests_denied: denied,
    }
}

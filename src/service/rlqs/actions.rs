//! What Envoy is told, on the wire.

use bytes::{Bytes, BytesMut};
use prost_types::Duration;

use crate::proto::envoy::service::rate_limit_quota::v3::RateLimitQuotaResponse;
use crate::proto::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::BucketAction;
use crate::proto::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::{
    AbandonAction, BucketAction as Kind, QuotaAssignmentAction,
};
use crate::proto::envoy::r#type::v3::rate_limit_strategy::{BlanketRule, Strategy};
use crate::proto::envoy::r#type::v3::{RateLimitStrategy, TokenBucket};
use crate::quota::account::Assignment;
use crate::quota::size::LeaseSize;

/// Buckets of one message: Envoy's main thread takes in a few hundred actions without a delay that anybody notices.
const BUCKETS_A_MESSAGE: usize = 100;
/// Bytes of bucket ids in one message: Envoy takes messages of up to 4 MiB.
const BYTES_A_MESSAGE: usize = 1 << 20;

/// Ids share blocks of memory of this size, in bytes: some 100 ids.
const BLOCK: usize = 2 << 10;

/// Actions that are collected into messages.
#[derive(Debug, Default)]
pub struct Actions {
    done: Vec<RateLimitQuotaResponse>,
    open: Vec<BucketAction>,
    buckets: usize,
    bytes: usize,
    /// What is free of the last block of ids.
    block: BytesMut,
}

impl Actions {
    /// Adds what a bucket is assigned.
    pub fn assign(&mut self, id: &[u8], assignment: &Assignment) {
        let kind = match *assignment {
            Assignment::Nothing => return,
            Assignment::Deny { ttl_s } => blanket(BlanketRule::DenyAll, ttl_s),
            Assignment::Allow { ttl_s } => blanket(BlanketRule::AllowAll, ttl_s),
            // What it has left stays with `Extend`.
            Assignment::Lease(size) | Assignment::Extend(size) => {
                assigned(Strategy::TokenBucket(tokens(&size)), size.ttl_s)
            }
        };
        let own = self.copy(id);
        if let Assignment::Lease(size) = assignment {
            // In one message and in this order: it drops what the lease before had left, and opens a full bucket.
            self.push(own.clone(), blanket(BlanketRule::DenyAll, size.ttl_s));
        }
        self.push(own, kind);
        self.end_bucket(id);
    }

    /// Tells Envoy to forget a bucket.
    pub fn abandon(&mut self, id: &[u8]) {
        let own = self.copy(id);
        self.push(own, Kind::AbandonAction(AbandonAction {}));
        self.end_bucket(id);
    }

    fn copy(&mut self, id: &[u8]) -> Bytes {
        if self.block.capacity() < id.len() {
            self.block = BytesMut::with_capacity(BLOCK.max(id.len()));
        }
        self.block.extend_from_slice(id);
        self.block.split().freeze()
    }

    fn push(&mut self, id: Bytes, kind: Kind) {
        self.bytes += id.len();
        self.open.push(BucketAction {
            bucket_id: id,
            bucket_action: Some(kind),
        });
    }

    fn end_bucket(&mut self, id: &[u8]) {
        self.buckets += 1;
        if self.buckets >= BUCKETS_A_MESSAGE || self.bytes + 2 * id.len() >= BYTES_A_MESSAGE {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(RateLimitQuotaResponse {
                bucket_action: std::mem::take(&mut self.open),
            });
        }
        (self.buckets, self.bytes) = (0, 0);
    }

    /// The messages.
    pub fn take(&mut self) -> Vec<RateLimitQuotaResponse> {
        self.close();
        self.block = BytesMut::new();
        std::mem::take(&mut self.done)
    }
}

fn assigned(strategy: Strategy, ttl_s: u64) -> Kind {
    Kind::QuotaAssignmentAction(QuotaAssignmentAction {
        assignment_time_to_live: Some(seconds(ttl_s)),
        rate_limit_strategy: Some(RateLimitStrategy {
            strategy: Some(strategy),
        }),
    })
}

fn blanket(rule: BlanketRule, ttl_s: u64) -> Kind {
    assigned(Strategy::BlanketRule(rule.into()), ttl_s)
}

/// Without a refill it is a number of requests; an interval under a second, or none, would be no limit at all.
fn tokens(size: &LeaseSize) -> TokenBucket {
    let at_once = if size.per_second > 0 {
        size.per_second
    } else {
        size.hits
    };
    TokenBucket {
        max_tokens: u32::try_from(at_once).unwrap_or(u32::MAX),
        tokens_per_fill: Some(u32::try_from(size.per_second).unwrap_or(u32::MAX)),
        fill_interval: Some(seconds(1)),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

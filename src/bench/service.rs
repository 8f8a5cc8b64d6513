//! The two gRPC services that can be put under load: what is called, and what its answers mean.

use clap::ValueEnum;
use prost::Message;
use prost_types::{Struct, value::Kind};

use super::answer::Answer;
use crate::proto::envoy::service::ratelimit::v3::RateLimitResponse;

/// Which service is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`
    Ratelimit,
    /// `envoy.service.auth.v3.Authorization/Check`
    #[value(name = "ext_authz")]
    ExtAuthz,
}

/// The one field of a `RateLimitResponse` that is read.
#[derive(Clone, PartialEq, Message)]
struct OverallCode {
    #[prost(int32, tag = "1")]
    code: i32,
}

/// The one field of a `CheckResponse` that is read.
#[derive(Clone, PartialEq, Message)]
struct CheckStatus {
    #[prost(message, optional, tag = "1")]
    status: Option<OverallCode>,
}

impl Service {
    /// The method that is called.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Ratelimit => "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
            Self::ExtAuthz => "/envoy.service.auth.v3.Authorization/Check",
        }
    }

    /// The id of a hold that the metadata of a message frame names.
    pub(super) fn hold_id(frame: &[u8]) -> Option<String> {
        let response = RateLimitResponse::decode(frame.get(5..)?).ok()?;
        let metadata = Struct::decode(response.dynamic_metadata.as_slice()).ok()?;
        let Kind::StructValue(own) = metadata.fields.get("sluicegate")?.kind.as_ref()? else {
            return None;
        };
        match own.fields.get("hold_id")?.kind.as_ref()? {
            Kind::StringValue(id) => Some(id.clone()),
            _ => None,
        }
    }

    /// What a message frame says.
    pub(super) fn read(self, frame: &[u8]) -> Answer {
        let message = frame.get(5..).filter(|_| frame[0] == 0);
        let answer =
            message.and_then(|message| match self {
                Self::Ratelimit => OverallCode::decode(message).ok().map(|answer| match answer.code {
                    1 => Answer::Ok,
                    2 => Answer::OverLimit,
                    _ => Answer::Unknown,
                }),
                // google.rpc.Code: OK, or no status at all; RESOURCE_EXHAUSTED.
                Self::ExtAuthz => CheckStatus::decode(message).ok().map(|answer| {
                    match answer.status.map_or(0, |status| status.code) {
                        0 => Answer::Ok,
                        8 => Answer::OverLimit,
                        _ => Answer::Unknown,
                    }
                }),
            });
        answer.unwrap_or_else(|| Answer::Failed("bad answer".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envoy::service::auth::v3::CheckResponse;
    use crate::proto::google::rpc::Status;

    fn frame(code: i32) -> Vec<u8> {
        let status = Some(Status {
            code,
            ..Status::default()
        });
        let response = CheckResponse {
            status,
            ..CheckResponse::default()
        };
        [&[0; 5][..], &response.encode_to_vec()].concat()
    }

    #[test]
    fn a_check_is_answered_by_its_status() {
        let read = |frame: &[u8]| Service::ExtAuthz.read(frame);
        assert_eq!(read(&frame(0)), Answer::Ok);
        assert_eq!(read(&[0; 5]), Answer::Ok);
        assert_eq!(read(&frame(8)), Answer::OverLimit);
        assert_eq!(read(&frame(14)), Answer::Unknown);
        assert_eq!(read(&[0; 4]), Answer::Failed("bad answer".to_owned()));
        assert_eq!(read(&[1; 9]), Answer::Failed("bad answer".to_owned()));
    }
}

//! Decision → CheckResponse. What Envoy 1.40 makes of each part is written down in `docs/ext_authz.md` and tested.

use crate::config::settings::LimitHeaders;
use crate::engine::Decision;
use crate::mapping::{FailureMode, Mapping};
use crate::model::Request;
use crate::proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};
use crate::proto::envoy::service::auth::v3 as wire;
use crate::proto::envoy::r#type::v3::HttpStatus;
use crate::proto::google::rpc::Status as RpcStatus;
use crate::service::headers::{self, Families, Header};
use crate::service::{body, metadata};
use wire::check_response::HttpResponse;

use super::view::View;

/// `google.rpc.Code`
const RESOURCE_EXHAUSTED: i32 = 8;
/// `google.rpc.Code`
const UNAVAILABLE: i32 = 14;
/// Tells gRPC clients that retry by themselves when to, in milliseconds; -1 = never (gRPC retry design, A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Request headers that are ours to say; whatever a client sends under these names does not reach the upstream.
const FORGEABLE: [&str; 2] = ["ratelimit", "ratelimit-policy"];
/// The same, for all names that begin so.
const FORGEABLE_PREFIX: &str = "x-ratelimit-";

/// What answers have in common.
pub(super) struct Answering<'a> {
    pub(super) names: &'a LimitHeaders,
    pub(super) always_metadata: bool,
}

impl Answering<'_> {
    /// The answer to a request that was decided.
    pub(super) fn decided(
        &self,
        view: &View<'_>,
        mapping: &Mapping,
        asked: &Request,
        decision: &Decision,
    ) -> wire::CheckResponse {
        let families = Families {
            limit: mapping.answers.x_ratelimit.then_some(self.names),
            ietf: mapping.answers.ietf,
            retry_after: mapping.answers.retry_after,
        };
        let headers = headers::all(&families, decision);
        let always = self.always_metadata || mapping.answers.dynamic_metadata;
        let mut response = if decision.over_limit {
            denied(view, mapping, decision, headers)
        } else {
            let upstream = mapping.answers.upstream_header.as_deref();
            let state = upstream.and_then(|name| Some((name.to_owned(), headers::ietf_state(decision)?)));
            let state = state.into_iter().chain(headers::over(decision)).collect();
            self.passed(view, upstream, state, headers)
        };
        response.dynamic_metadata = metadata::dynamic(decision, asked, always);
        response
    }

    /// The answer to a request that no list applies to: nothing is counted, nothing is said.
    pub(super) fn uncounted(&self, view: &View<'_>, mapping: &Mapping) -> wire::CheckResponse {
        self.passed(view, mapping.answers.upstream_header.as_deref(), Vec::new(), Vec::new())
    }

    fn passed(
        &self,
        view: &View<'_>,
        upstream_name: Option<&str>,
        upstream: Vec<Header>,
        headers: Vec<Header>,
    ) -> wire::CheckResponse {
        let mut remove = self.forgeable(view);
        // Envoy removes after it has set: a name that is set must not be removed.
        remove.extend(upstream_name.map(str::to_owned));
        remove.retain(|removed| !upstream.iter().any(|(name, _)| name == removed));
        let ok = wire::OkHttpResponse {
            headers: upstream.into_iter().map(option).collect(),
            headers_to_remove: remove,
            response_headers_to_add: headers.into_iter().map(option).collect(),
            ..Default::default()
        };
        wire::CheckResponse {
            status: Some(RpcStatus::default()),
            http_response: Some(HttpResponse::OkResponse(ok)),
            dynamic_metadata: Vec::new(),
        }
    }

    /// Always the names that we use (Envoy may have been told to withhold headers from us), and whatever else is there.
    fn forgeable(&self, view: &View<'_>) -> Vec<String> {
        let names = self.names;
        let fixed = [&names.limit, &names.remaining, &names.reset].map(|name| name.to_ascii_lowercase());
        let mut remove: Vec<String> = fixed.into_iter().chain(FORGEABLE.map(str::to_owned)).collect();
        for name in view.header_names() {
            let ours = name
                .get(..FORGEABLE_PREFIX.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(FORGEABLE_PREFIX));
            if ours && !remove.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                remove.push(name.to_owned());
            }
        }
        remove
    }

    /// The answer to a request that nothing can be decided about.
    pub(super) fn failed(&self, view: Option<&View<'_>>, mode: FailureMode, reason: &str) -> wire::CheckResponse {
        let mut response = match mode {
            FailureMode::Allow => {
                let remove = view.map(|view| self.forgeable(view)).unwrap_or_default();
                let ok = wire::OkHttpResponse {
                    headers_to_remove: remove,
                    ..Default::default()
                };
                wire::CheckResponse {
                    status: Some(RpcStatus::default()),
                    http_response: Some(HttpResponse::OkResponse(ok)),
                    dynamic_metadata: Vec::new(),
                }
            }
            FailureMode::Deny => unavailable(view.is_some_and(View::is_grpc)),
        };
        response.dynamic_metadata = metadata::undecided(reason);
        response
    }
}

fn denied(view: &View<'_>, mapping: &Mapping, decision: &Decision, mut headers: Vec<Header>) -> wire::CheckResponse {
    let status = mapping.answers.denied_status;
    let detail = body::detail(decision);
    let body = if view.is_grpc() {
        // Envoy turns the HTTP status into UNAVAILABLE for them, unless the status is there already; the body becomes
        // grpc-message.
        headers.push(("grpc-status".into(), RESOURCE_EXHAUSTED.to_string()));
        let pushback = decision
            .retry_after_of(|rule| rule.headers)
            .map(|us| us.div_ceil(1_000));
        // Of a limit that is not told, nothing is said.
        if decision.violated().any(|(status, _)| decision.is_in_headers(status)) {
            headers.push((PUSHBACK.into(), pushback.map_or("-1".into(), |ms| ms.to_string())));
        }
        detail.clone()
    } else if mapping.answers.body {
        headers.push(("content-type".into(), body::CONTENT_TYPE.into()));
        let problem = body::problem(decision, status).unwrap_or_default();
        // JSON is UTF-8.
        String::from_utf8(problem).unwrap_or_default()
    } else {
        String::new()
    };
    refusal(RESOURCE_EXHAUSTED, detail, status, headers, body)
}

fn unavailable(grpc: bool) -> wire::CheckResponse {
    const STATUS: u16 = 503;
    const DETAIL: &str = "The rate limit of this request cannot be decided.";
    let (headers, body) = if grpc {
        (vec![("grpc-status".into(), UNAVAILABLE.to_string())], DETAIL.to_owned())
    } else {
        (
            vec![("content-type".into(), body::CONTENT_TYPE.into())],
            body::unavailable(STATUS, DETAIL),
        )
    };
    refusal(UNAVAILABLE, DETAIL.to_owned(), STATUS, headers, body)
}

fn refusal(code: i32, message: String, status: u16, headers: Vec<Header>, body: String) -> wire::CheckResponse {
    let denied = wire::DeniedHttpResponse {
        status: Some(HttpStatus { code: status.into() }),
        headers: headers.into_iter().map(option).collect(),
        body,
    };
    wire::CheckResponse {
        status: Some(RpcStatus {
            code,
            message,
            ..Default::default()
        }),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
        dynamic_metadata: Vec::new(),
    }
}

/// A header that replaces one of its name, so that ours are there once.
fn option((key, value): Header) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key,
            value,
            raw_value: Vec::new(),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    }
}

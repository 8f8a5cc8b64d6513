//! One stream, from connecting to its end: ask once, then ACK or NACK each response.

use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::{Code, Request};

use super::super::settings::XdsSettings;
use super::connect::Connector;
use super::update::{TYPE_URL, Update};
use crate::proto::envoy::config::core::v3::Node;
use crate::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use crate::proto::google::rpc::Status;
use crate::proto::ratelimit::config::ratelimit::v3::RateLimitConfig;
use crate::tls::dial::with_causes;

/// Answers that wait to be sent; the server reads them or the stream is broken.
const OUTGOING: usize = 16;
/// How long the same answer waits when what was refused comes again: go-control-plane sends it again at once, for ever.
const REPEAT: Duration = Duration::from_secs(1);
/// Longest text of a NACK, in bytes.
const MAX_NACK: usize = 16 << 10;

/// How a stream ended.
pub(super) struct End {
    /// Why.
    pub(super) reason: String,
    /// Whether an update was accepted before.
    pub(super) accepted: bool,
}

/// Connects and stays on the stream until it ends.
pub(super) async fn run(
    settings: &XdsSettings,
    connector: &Connector,
    apply: &mut impl FnMut(Update) -> Result<(), String>,
) -> End {
    let mut accepted = false;
    let reason = match serve(settings, connector, apply, &mut accepted).await {
        Ok(()) => "the server ended the stream".into(),
        Err(reason) => reason,
    };
    End { reason, accepted }
}

async fn serve(
    settings: &XdsSettings,
    connector: &Connector,
    apply: &mut impl FnMut(Update) -> Result<(), String>,
    accepted: &mut bool,
) -> Result<(), String> {
    let channel = connector.connect().await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(settings.max_message_bytes);
    let (outgoing, requests) = mpsc::channel(OUTGOING);
    let mut request = Request::new(ReceiverStream::new(requests));
    *request.metadata_mut() = headers(settings)?;
    // No version, even when there was an earlier stream: a control plane that counts its versions and has started
    // anew might otherwise take ours for its own and send nothing.
    let first = DiscoveryRequest {
        node: Some(node(settings)),
        type_url: TYPE_URL.into(),
        ..Default::default()
    };
    send(&outgoing, first).await?;
    let opened = client
        .stream_aggregated_resources(request)
        .await
        .map_err(|status| grpc_error(&status))?;
    tracing::info!(server = settings.server, "connected to the control plane");
    let mut responses = opened.into_inner();
    let mut version = String::new();
    let mut refused: Option<(blake3::Hash, Status)> = None;
    while let Some(response) = responses.message().await.map_err(|status| grpc_error(&status))? {
        if response.type_url != TYPE_URL {
            tracing::warn!(type_url = ?response.type_url, "the control plane sent what was not asked for: ignored");
            continue;
        }
        let nonce = response.nonce.clone();
        let content = fingerprint(&response);
        let error_detail = match &refused {
            Some((known, nack)) if *known == content => {
                tokio::time::sleep(REPEAT).await;
                Some(nack.clone())
            }
            _ => match update(response).and_then(|update| accept(update, &mut version, apply)) {
                Ok(()) => {
                    (*accepted, refused) = (true, None);
                    None
                }
                Err(problem) => {
                    let nack = nack(&problem);
                    refused = Some((content, nack.clone()));
                    Some(nack)
                }
            },
        };
        let answer = DiscoveryRequest {
            version_info: version.clone(),
            type_url: TYPE_URL.into(),
            response_nonce: nonce,
            error_detail,
            ..Default::default()
        };
        send(&outgoing, answer).await?;
    }
    Ok(())
}

/// What a response says, whatever its nonce.
fn fingerprint(response: &DiscoveryResponse) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    add(response.version_info.as_bytes());
    for resource in &response.resources {
        add(resource.type_url.as_bytes());
        add(&resource.value);
    }
    hasher.finalize()
}

fn accept(
    update: Update,
    version: &mut String,
    apply: &mut impl FnMut(Update) -> Result<(), String>,
) -> Result<(), String> {
    let new = update.version.clone();
    apply(update)?;
    *version = new;
    Ok(())
}

/// Unpacks a response, whole or not at all.
fn update(response: DiscoveryResponse) -> Result<Update, String> {
    let decode = |(at, any): (usize, prost_types::Any)| {
        if any.type_url != TYPE_URL {
            return Err(format!("resource {at} is a {:?}, not a {TYPE_URL}", any.type_url));
        }
        RateLimitConfig::decode(any.value.as_slice())
            .map_err(|error| format!("resource {at} is no valid RateLimitConfig: {error}"))
    };
    let configs = response
        .resources
        .into_iter()
        .enumerate()
        .map(decode)
        .collect::<Result<_, _>>()?;
    Ok(Update {
        version: response.version_info,
        configs,
    })
}

fn nack(problem: &str) -> Status {
    let mut message = problem.to_owned();
    if message.len() > MAX_NACK {
        message.truncate(message.floor_char_boundary(MAX_NACK));
        message.push_str(" …");
    }
    Status {
        code: Code::InvalidArgument.into(),
        message,
        ..Default::default()
    }
}

async fn send(outgoing: &mpsc::Sender<DiscoveryRequest>, request: DiscoveryRequest) -> Result<(), String> {
    outgoing
        .send(request)
        .await
        .map_err(|_| "the stream broke while answering".into())
}

fn node(settings: &XdsSettings) -> Node {
    let metadata = settings.node_metadata.iter().map(|(key, value)| {
        let kind = prost_types::value::Kind::StringValue(value.clone());
        (key.clone(), prost_types::Value { kind: Some(kind) })
    });
    Node {
        id: settings.node_id.clone(),
        metadata: Some(prost_types::Struct {
            fields: metadata.collect(),
        }),
        user_agent_name: "sluicegate".into(),
        user_agent_version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    }
}

fn headers(settings: &XdsSettings) -> Result<MetadataMap, String> {
    let mut headers = MetadataMap::new();
    for (name, value) in &settings.headers {
        let key = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
        let mut value = MetadataValue::try_from(value.expose()).map_err(|_| format!("header {name}: not ASCII"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

fn grpc_error(status: &tonic::Status) -> String {
    let (code, message) = (status.code(), status.message());
    match std::error::Error::source(status) {
        Some(cause) => format!("{code:?}: {message}: {}", with_causes(cause)),
        None => format!("{code:?}: {message}"),
    }
}

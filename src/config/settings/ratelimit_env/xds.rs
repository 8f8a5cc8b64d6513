//! `CONFIG_GRPC_XDS_…`, `XDS_CLIENT_…`.

use std::time::Duration;

use super::super::reader::Reader;
use super::super::xds::XdsSettings;
use super::super::{redis, values};
use crate::tls::ClientTls;

/// The port of a control plane whose URL names none.
const PORT: u16 = 18_000;

/// What they say.
pub(super) fn settings(reader: &mut Reader<'_>) -> XdsSettings {
    let usual = XdsSettings::default();
    let server = reader.parse("CONFIG_GRPC_XDS_SERVER_URL", server);
    let backoff = Backoff::read(reader, &usual);
    let tls = tls(reader);
    let node_metadata = reader.parse("CONFIG_GRPC_XDS_NODE_METADATA", |text| values::pairs(text, &['=', ':']));
    let headers = reader.parse("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", |text| {
        values::headers(values::pairs(text, &[':'])?)
    });
    let max_message = reader.parse("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", values::at_least_one);
    XdsSettings {
        server: server.unwrap_or(usual.server),
        node_id: reader.text("CONFIG_GRPC_XDS_NODE_ID").unwrap_or(usual.node_id),
        node_metadata: node_metadata.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        tls,
        backoff_initial: backoff.initial,
        backoff_max: backoff.max,
        backoff_jitter: backoff.jitter,
        max_message_bytes: max_message.unwrap_or(usual.max_message_bytes),
        ..usual
    }
}

struct Backoff {
    initial: Duration,
    max: Duration,
    jitter: bool,
}

impl Backoff {
    fn read(reader: &mut Reader<'_>, usual: &XdsSettings) -> Self {
        let initial = reader.parse("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", values::positive_duration);
        let max = reader.parse("XDS_CLIENT_BACKOFF_MAX_INTERVAL", values::positive_duration);
        let jitter = reader.parse("XDS_CLIENT_BACKOFF_JITTER", values::boolean);
        Self {
            initial: initial.unwrap_or(usual.backoff_initial),
            max: max.unwrap_or(usual.backoff_max),
            jitter: jitter.unwrap_or(usual.backoff_jitter),
        }
    }
}

fn tls(reader: &mut Reader<'_>) -> Option<ClientTls> {
    const CERT: &str = "CONFIG_GRPC_XDS_CLIENT_TLS_CERT";
    const KEY: &str = "CONFIG_GRPC_XDS_CLIENT_TLS_KEY";
    const CA: &str = "CONFIG_GRPC_XDS_SERVER_TLS_CACERT";
    const NAME: &str = "CONFIG_GRPC_XDS_SERVER_TLS_SAN";
    let ca = reader.path(CA);
    let server_name = reader.parse(NAME, |text| {
        rustls_pki_types::ServerName::try_from(text)
            .map(|_| text.to_owned())
            .map_err(|_| "allowed is the host name or IP address that the server's certificate carries".into())
    });
    if !reader.truth("CONFIG_GRPC_XDS_SERVER_USE_TLS") {
        reader.idle(&[CERT, KEY, CA, NAME], "CONFIG_GRPC_XDS_SERVER_USE_TLS is not true");
        return None;
    }
    Some(ClientTls {
        ca,
        identity: reader.identity(CERT, KEY),
        server_name,
    })
}

/// `host:port`, also with gRPC's `dns:///` in front.
fn server(text: &str) -> Result<String, String> {
    let bare = ["dns:///", "passthrough:///"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .unwrap_or(text);
    redis::host_port(bare, PORT)
        .map(|server| server.to_string())
        .map_err(|_| "allowed is host:port, such as envoy-gateway:18001".into())
}

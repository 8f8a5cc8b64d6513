//! Counts streams that the HTTP/2 layer refuses before a service sees them: it resets them with PROTOCOL_ERROR, and Envoy then
//! lets their requests pass by default, which no other metric or log line would show.

use prometheus::IntCounter;

use crate::telemetry::PortMetrics;

/// Length of a frame's header (RFC 9113, 4.1), in bytes.
const HEADER: usize = 9;
/// Length of an RST_STREAM frame.
const RESET: usize = HEADER + 4;
/// Type of an RST_STREAM frame.
const RST_STREAM: u8 = 3;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
/// The first bytes of an HTTP/2 client (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS client: the type of a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Parses the frames that a connection writes, in pieces of any size.
#[derive(Debug)]
pub(super) struct ResetWatch {
    counter: Option<IntCounter>,
    /// Counts connections of another protocol.
    others: Option<IntCounter>,
    /// The beginning of the present frame.
    head: [u8; RESET],
    filled: usize,
    /// Bytes of its payload to skip.
    skip: usize,
}

impl ResetWatch {
    pub fn new(metrics: Option<&PortMetrics>) -> Self {
        Self {
            counter: metrics.map(|metrics| metrics.protocol_errors.clone()),
            others: metrics.map(|metrics| metrics.protocol.clone()),
            head: [0; RESET],
            filled: 0,
            skip: 0,
        }
    }

    /// Counts and logs a connection whose first bytes are of another protocol: it is closed, and Envoy lets its requests pass by
    /// default.
    pub fn check_protocol(&self, bytes: &[u8]) {
        let Some(others) = &self.others else { return };
        if bytes.iter().zip(PREFACE).all(|(one, other)| one == other) {
            return;
        }
        others.inc();
        if others.get() == 1 {
            let speaks = if bytes.first() == Some(&TLS_HANDSHAKE) {
                "TLS"
            } else {
                "no HTTP/2"
            };
            tracing::warn!(
                speaks,
                "a connection to the gRPC port speaks another protocol and is closed, and Envoy lets its requests pass unless \
                 failure_mode_deny is set. Envoy's cluster of this server needs http2_protocol_options, and a TLS \
                 transport_socket only where --tls-cert is set. Further ones are only counted, in \
                 sluicegate_connections_closed_total{{reason=\"protocol\"}}"
            );
        }
    }

    /// Parses written bytes.
    pub fn record_written(&mut self, mut bytes: &[u8]) {
        if self.counter.is_none() {
            return;
        }
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.filled < HEADER { HEADER } else { RESET };
            let taken = (wanted - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                let length = self.head[..3]
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                if self.head[3] != RST_STREAM || length != RESET - HEADER {
                    (self.filled, self.skip) = (0, length);
                }
            } else if self.filled == RESET {
                self.filled = 0;
                if self.head[HEADER..] == PROTOCOL_ERROR {
                    self.count();
                }
            }
        }
    }

    fn count(&self) {
        let Some(counter) = &self.counter else { return };
        counter.inc();
        if counter.get() == 1 {
            tracing::warn!(
                "a gRPC stream was refused as malformed HTTP/2 before its request was read, and Envoy lets such requests \
                 pass unless failure_mode_deny is set. The usual cause is an :authority that is no host name: Envoy takes \
                 the cluster's name unless grpc_service's envoy_grpc has `authority: ratelimit` (names of Istio's clusters \
                 are served). Further ones are only counted, in \
                 sluicegate_http2_protocol_errors_total"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn resets_are_found_in_any_pieces_and_nothing_else_is() {
        // A payload that looks like a reset is none.
        let written = [
            frame(4, &[]),
            frame(0, &frame(RST_STREAM, &PROTOCOL_ERROR)),
            frame(RST_STREAM, &PROTOCOL_ERROR),
            frame(RST_STREAM, &[0, 0, 0, 8]),
            frame(1, &[7; 200]),
            frame(RST_STREAM, &PROTOCOL_ERROR),
            frame(7, &[0, 0, 0, 1, 0, 0, 0, 1]),
        ]
        .concat();
        for piece in 1..written.len() {
            let counter = IntCounter::new("n", "n").unwrap();
            let mut watch = ResetWatch::new(None);
            watch.counter = Some(counter.clone());
            written.chunks(piece).for_each(|bytes| watch.record_written(bytes));
            assert_eq!(counter.get(), 2, "{piece}");
        }
    }
    #[test]
    fn what_begins_otherwise_than_http2_is_counted() {
        let others = IntCounter::new("n", "n").unwrap();
        let mut watch = ResetWatch::new(None);
        watch.others = Some(others.clone());
        for bytes in [PREFACE, &PREFACE[..3], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"] {
            watch.check_protocol(bytes);
        }
        assert_eq!(others.get(), 0);
        watch.check_protocol(b"POST /envoy HTTP/1.1\r\n");
        watch.check_protocol(&[TLS_HANDSHAKE, 3, 1]);
        assert_eq!(others.get(), 2);
    }
}

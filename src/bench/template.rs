//! The encoded request: built once, with holes for the digits of key numbers, so that a call costs one copy.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::BenchError;
use crate::proto::envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry};
use crate::proto::envoy::service::ratelimit::v3::RateLimitRequest;

/// What `{key}` in an entry's value is replaced by: a number of this many decimal digits.
pub const KEY_DIGITS: usize = 10;

/// Key numbers stay below this.
pub const KEY_LIMIT: u64 = 10_000_000_000;

/// What `{hold}` in an entry's value is replaced by: the id of a hold has so many bytes.
pub const HOLD_BYTES: usize = 32;

/// As many of these stand in the place of the id of a hold, like [`PLACEHOLDER`].
const HOLD_PLACE: &str = "\u{1c}";

/// The place of a key number while the message is encoded; control characters that no descriptor needs.
const PLACEHOLDER: &str = "\u{1a}\u{1b}\u{1a}\u{1b}\u{1a}\u{1b}\u{1a}\u{1b}\u{1a}\u{1b}";

/// A gRPC message frame (compression flag, length, message) with holes for key numbers.
#[derive(Debug, Clone)]
pub struct Template {
    frame: Vec<u8>,
    holes: Vec<usize>,
    hold_holes: Vec<usize>,
}

impl Template {
    /// A rate limit request of `count` descriptors, taken in turn from `descriptors`, each a list of
    /// `key=value` entries separated by commas. `{key}` in a value becomes a key number; each descriptor draws its
    /// own; `{hold}` becomes the id of a hold. `hits` 0 leaves the field unset.
    ///
    /// # Errors
    /// When a descriptor cannot be read.
    pub fn rate_limit(domain: &str, descriptors: &[String], count: usize, hits: u32) -> Result<Self, BenchError> {
        let parsed = descriptors
            .iter()
            .map(|text| parse_descriptor(text))
            .collect::<Result<Vec<_>, _>>()?;
        let request = RateLimitRequest {
            domain: domain.to_owned(),
            descriptors: parsed.into_iter().cycle().take(count).collect(),
            hits_addend: hits,
        };
        Self::of(&request)
    }

    /// An ext_authz request whose headers hold the entries of all descriptors.
    ///
    /// # Errors
    /// When a descriptor cannot be read.
    pub fn check(domain: &str, descriptors: &[String]) -> Result<Self, BenchError> {
        let parsed = descriptors
            .iter()
            .map(|text| parse_descriptor(text))
            .collect::<Result<Vec<_>, _>>()?;
        // They came as text.
        let text = |bytes| String::from_utf8(bytes).unwrap_or_default();
        let entries = parsed.into_iter().flat_map(|descriptor| descriptor.entries);
        let headers = entries.map(|entry| (text(entry.key), text(entry.value)));
        Self::of(&super::check::request(domain, headers))
    }

    /// The frame of any message; every placeholder in its strings becomes a hole.
    fn of(message: &impl Message) -> Result<Self, BenchError> {
        let body = message.encode_to_vec();
        let length = u32::try_from(body.len())
            .map_err(|_| BenchError::Argument("the request is larger than 4 GiB".to_owned()))?;
        let mut frame = Vec::with_capacity(body.len() + 5);
        frame.put_u8(0);
        frame.put_u32(length);
        frame.extend_from_slice(&body);
        let (holes, hold_holes) = (find(&frame, PLACEHOLDER), find(&frame, &HOLD_PLACE.repeat(HOLD_BYTES)));
        Ok(Self {
            frame,
            holes,
            hold_holes,
        })
    }

    /// Length of the encoded request in bytes, with its 5 bytes of gRPC framing.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// True for a request without a byte; cannot happen, and is there because `len` is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// The frame with key numbers from `draw`, one for each hole.
    pub fn fill(&self, draw: impl FnMut() -> u64) -> Bytes {
        self.settle(draw, "")
    }

    /// The same, with the id of a hold.
    pub fn settle(&self, mut draw: impl FnMut() -> u64, id: &str) -> Bytes {
        let mut frame = BytesMut::from(self.frame.as_slice());
        for &hole in &self.holes {
            let mut rest = draw() % KEY_LIMIT;
            for digit in frame[hole..hole + KEY_DIGITS].iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
        }
        if id.len() == HOLD_BYTES {
            for &hole in &self.hold_holes {
                frame[hole..hole + HOLD_BYTES].copy_from_slice(id.as_bytes());
            }
        }
        frame.freeze()
    }
}

/// Where a text stands in a frame.
fn find(frame: &[u8], text: &str) -> Vec<usize> {
    let windows = frame.windows(text.len()).enumerate();
    windows
        .filter_map(|(at, window)| (window == text.as_bytes()).then_some(at))
        .collect()
}

/// Reads `key=value,key=value`; a key alone has an empty value.
fn parse_descriptor(text: &str) -> Result<RateLimitDescriptor, BenchError> {
    let refuse = |why: &str| BenchError::Argument(format!("--descriptor {:?}: {why}", text.escape_debug()));
    if text.contains(PLACEHOLDER) || text.contains(HOLD_PLACE) {
        return Err(refuse("contains reserved control characters"));
    }
    let entries = text
        .split(',')
        .map(|entry| {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            if key.is_empty() {
                return Err(refuse("an entry has no key; write key=value, separated by commas"));
            }
            Ok(Entry {
                key: key.into(),
                value: value
                    .replace("{key}", PLACEHOLDER)
                    .replace("{hold}", &HOLD_PLACE.repeat(HOLD_BYTES))
                    .into(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RateLimitDescriptor {
        entries,
        ..RateLimitDescriptor::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HOLD_ENTRY;

    #[test]
    fn filled_frames_decode_to_the_request_that_was_meant() {
        let descriptors = ["tenant=a,user=u-{key}".to_owned(), "path".to_owned()];
        let template = Template::rate_limit("d", &descriptors, 3, 4).unwrap();
        let mut next = 41;
        let frame = template.fill(|| {
            next += 1;
            next
        });
        assert_eq!(frame[0], 0);
        assert_eq!(
            u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize,
            frame.len() - 5
        );
        let request = RateLimitRequest::decode(&frame[5..]).unwrap();
        assert_eq!((request.domain.as_str(), request.hits_addend), ("d", 4));
        let values: Vec<_> = request
            .descriptors
            .iter()
            .map(|d| {
                d.entries
                    .iter()
                    .map(|e| String::from_utf8_lossy(&e.value).into_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(values, [vec!["a", "u-0000000042"], vec![""], vec!["a", "u-0000000043"]]);
    }

    #[test]
    fn the_id_of_a_hold_has_its_place() {
        let descriptors = [format!("user=u-{{key}},{HOLD_ENTRY}={{hold}}")];
        let template = Template::rate_limit("d", &descriptors, 1, 0).unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let request = RateLimitRequest::decode(&template.settle(|| 7, id)[5..]).unwrap();
        let values: Vec<_> = request.descriptors[0].entries.iter().map(|e| &e.value[..]).collect();
        assert_eq!(values, [&b"u-0000000007"[..], id.as_bytes()]);
    }

    #[test]
    fn an_entry_without_a_key_is_refused() {
        let error = Template::rate_limit("d", &["a=b,=c".to_owned()], 1, 0).unwrap_err();
        assert!(error.to_string().contains("no key"), "{error}");
    }
}

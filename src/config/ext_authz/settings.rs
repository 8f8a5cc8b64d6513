//! The client's address, how answers look, and what a request costs.

use crate::mapping::hits::MAX_HITS;
use crate::mapping::{Answers, ClientAddress, HitsFrom};

use super::super::fields::{Fields, Reader};
use super::super::node::{Node, Value};
use super::super::problem::{Problem, nearest};

const CLIENT_ADDRESS: [&str; 3] = ["xff_num_trusted_hops", "skip_xff_append", "ipv6_prefix_len"];
const ANSWERS: [&str; 5] = [
    "denied_status",
    "headers",
    "body",
    "upstream_header",
    "dynamic_metadata",
];
const FAMILIES: [&str; 3] = ["x_ratelimit", "ratelimit", "retry_after"];
const HITS: [&str; 3] = ["number", "header", "content_length"];
const HITS_HEADER: [&str; 3] = ["name", "default", "max"];
const HITS_LENGTH: [&str; 3] = ["bytes_per_hit", "default", "max"];
/// Far more proxies than stand in a row anywhere.
const MAX_HOPS: u64 = 100;
/// The HTTP errors that Envoy's `StatusCode` knows; it drops an answer with another one.
const DENIED: [u64; 37] = [
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 426,
    428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

impl Reader<'_> {
    pub(super) fn client_address(&mut self, section: &Fields<'_>) -> ClientAddress {
        let default = ClientAddress::default();
        let Some(node) = section.get("client_address") else {
            return default;
        };
        let Some(fields) = self.fields(node, "`client_address`", &CLIENT_ADDRESS) else {
            return default;
        };
        let hops = self.within(&fields, "xff_num_trusted_hops", 0, MAX_HOPS);
        let length = self.within(&fields, "ipv6_prefix_len", 0, 128);
        ClientAddress {
            xff_num_trusted_hops: hops.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
            skip_xff_append: self.truth(&fields, "skip_xff_append").is_true(),
            ipv6_prefix_len: length
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(default.ipv6_prefix_len),
        }
    }

    pub(super) fn answers(&mut self, section: &Fields<'_>) -> Answers {
        let mut answers = Answers::default();
        let Some(node) = section.get("answers") else {
            return answers;
        };
        let Some(fields) = self.fields(node, "`answers`", &ANSWERS) else {
            return answers;
        };
        if let Some(status) = self.denied_status(&fields) {
            answers.denied_status = status;
        }
        if let Some(node) = fields.get("headers") {
            self.families(node, &mut answers);
        }
        answers.body = self.truth(&fields, "body").value().copied().unwrap_or(answers.body);
        answers.upstream_header = self.header_name(&fields, "upstream_header");
        answers.dynamic_metadata = self.truth(&fields, "dynamic_metadata").is_true();
        answers
    }

    fn denied_status(&mut self, fields: &Fields<'_>) -> Option<u16> {
        let status = self.within(fields, "denied_status", 400, 599)?;
        if !DENIED.contains(&status) {
            let place = fields.get("denied_status").and_then(|node| node.place);
            let problem = Problem::Unusable {
                field: "denied_status",
                word: status.to_string(),
                reason: "Envoy does not answer with it; 429 is the usual one".into(),
            };
            self.report(problem, place);
            return None;
        }
        u16::try_from(status).ok()
    }

    fn families(&mut self, node: &Node, answers: &mut Answers) {
        let Value::List(items) = &node.value else {
            return self.wrong(
                "`headers`".to_owned(),
                "a list of x_ratelimit, ratelimit, retry_after",
                node,
            );
        };
        (answers.x_ratelimit, answers.ietf, answers.retry_after) = (false, false, false);
        for item in items {
            match item.text().as_deref() {
                Some("x_ratelimit") => answers.x_ratelimit = true,
                Some("ratelimit") => answers.ietf = true,
                Some("retry_after") => answers.retry_after = true,
                Some(word) => self.report(
                    Problem::UnknownWord {
                        field: "headers",
                        word: word.to_owned(),
                        suggestion: nearest(word, &FAMILIES),
                        allowed: &FAMILIES,
                    },
                    item.place,
                ),
                None => self.wrong("an entry of `headers`".to_owned(), "text", item),
            }
        }
    }

    pub(super) fn hits_addend(&mut self, list: &Fields<'_>) -> Option<HitsFrom> {
        let node = list.get("hits_addend")?;
        if let Value::Int(_) = node.value {
            return self.within(list, "hits_addend", 0, MAX_HITS).map(HitsFrom::Fixed);
        }
        let fields = self.fields(node, "`hits_addend`", &HITS)?;
        let (kind, inner) = self.only(node, &fields, "`hits_addend`", &HITS)?;
        match kind {
            "number" => self.within(&fields, "number", 0, MAX_HITS).map(HitsFrom::Fixed),
            "header" => {
                let fields = self.fields(inner, "`header`", &HITS_HEADER)?;
                let text = ("`header`", "add `name: …`, the header that says what a request costs");
                self.needed(inner, &fields, "name", text)?;
                Some(HitsFrom::Header {
                    name: self.header_name(&fields, "name")?,
                    default: self.within(&fields, "default", 1, MAX_HITS).unwrap_or(1),
                    max: self.within(&fields, "max", 1, MAX_HITS).unwrap_or(MAX_HITS),
                })
            }
            _ => {
                let fields = self.fields(inner, "`content_length`", &HITS_LENGTH)?;
                Some(HitsFrom::ContentLength {
                    bytes_per_hit: self.within(&fields, "bytes_per_hit", 1, u64::MAX).unwrap_or(1),
                    default: self.within(&fields, "default", 1, MAX_HITS).unwrap_or(1),
                    max: self.within(&fields, "max", 1, MAX_HITS).unwrap_or(MAX_HITS),
                })
            }
        }
    }

    /// The one field of a mapping that has to have exactly one.
    pub(super) fn only<'n>(
        &mut self,
        node: &Node,
        fields: &Fields<'n>,
        context: &'static str,
        allowed: &'static [&'static str],
    ) -> Option<(&'static str, &'n Node)> {
        let given = fields.all();
        if let [one] = given {
            return Some(*one);
        }
        // One that is unknown has been reported already.
        if !given.is_empty() || matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
            self.report(Problem::NotOne { context, allowed }, node.place);
        }
        None
    }
}

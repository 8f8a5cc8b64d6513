//! Actions: the names and fields of Envoy's route rate limits, and ours.

use crate::mapping::matcher::QueryMatcher;
use crate::mapping::{Absent, Action, Masks, Source};

use super::super::fields::{Fields, Reader};
use super::super::node::{Node, Value};
use super::super::problem::Problem;

/// Most templates, matchers or steps of a path in one place.
pub(super) const MAX_PARTS: usize = 64;

const ACTION: [&str; 14] = [
    "request_headers",
    "remote_address",
    "masked_remote_address",
    "generic_key",
    "header_value_match",
    "query_parameters",
    "query_parameter_value_match",
    "path",
    "method",
    "host",
    "source_principal",
    "jwt_claim",
    "metadata",
    "context_extension",
];
const KEY_ONLY: [&str; 1] = ["descriptor_key"];
const KEY_OR_DEFAULT: [&str; 3] = ["descriptor_key", "skip_if_absent", "default_value"];
const REQUEST_HEADERS: [&str; 4] = ["header_name", "descriptor_key", "skip_if_absent", "default_value"];
const MASKED: [&str; 3] = ["v4_prefix_mask_len", "v6_prefix_mask_len", "descriptor_key"];
const GENERIC_KEY: [&str; 2] = ["descriptor_key", "descriptor_value"];
const HEADER_MATCH: [&str; 4] = ["descriptor_key", "descriptor_value", "expect_match", "headers"];
const QUERY: [&str; 4] = [
    "query_parameter_name",
    "descriptor_key",
    "skip_if_absent",
    "default_value",
];
const QUERY_MATCH: [&str; 4] = ["descriptor_key", "descriptor_value", "expect_match", "query_parameters"];
const EXTENSION: [&str; 4] = ["name", "descriptor_key", "skip_if_absent", "default_value"];

impl Reader<'_> {
    /// Reads an action: a mapping of one name to its fields.
    pub(super) fn action(&mut self, node: &Node, normalize: bool) -> Option<Action> {
        let fields = self.fields(node, "an action", &ACTION)?;
        let (kind, inner) = self.only(node, &fields, "an action", &ACTION)?;
        let nothing = Node::empty_map(inner.place);
        // `- method:` is `- method: {}`.
        let inner = if matches!(inner.value, Value::Null) {
            &nothing
        } else {
            inner
        };
        match kind {
            "request_headers" => self.request_headers(inner),
            "remote_address" => self.plain(inner, "`remote_address`", "remote_address", Source::RemoteAddress),
            "masked_remote_address" => self.masked(inner),
            "generic_key" => self.generic_key(inner),
            "header_value_match" => self.header_value_match(inner),
            "query_parameters" => self.query_parameters(inner),
            "query_parameter_value_match" => self.query_value_match(inner),
            "path" => self.path_action(inner, normalize),
            "method" => self.plain(inner, "`method`", "method", Source::Method),
            "host" => self.plain(inner, "`host`", "host", Source::Host),
            "source_principal" => self.source_principal(inner),
            "jwt_claim" => self.jwt_claim(inner),
            "metadata" => self.metadata_action(inner),
            _ => self.context_extension(inner),
        }
    }

    fn plain(&mut self, node: &Node, context: &'static str, key: &str, source: Source) -> Option<Action> {
        let fields = self.fields(node, context, &KEY_ONLY)?;
        Some(Action {
            key: self.key(&fields, key),
            source,
            absent: Absent::SkipList,
        })
    }

    /// `descriptor_key`, or what an entry is called without it.
    pub(super) fn key(&mut self, fields: &Fields<'_>, default: &str) -> Box<str> {
        self.word(fields, "descriptor_key")
            .map_or_else(|| default.into(), Into::into)
    }

    /// `skip_if_absent` or `default_value`.
    pub(super) fn absent(&mut self, fields: &Fields<'_>) -> Absent {
        let skip = self.truth(fields, "skip_if_absent");
        let value = self.word(fields, "default_value");
        match (skip.is_true(), value) {
            (true, Some(_)) => {
                let problem = Problem::Conflict {
                    field: "skip_if_absent",
                    other: "default_value",
                };
                self.report(problem, skip.place());
                Absent::SkipEntry
            }
            (true, None) => Absent::SkipEntry,
            (false, Some(value)) => Absent::Value(value.into()),
            (false, None) => Absent::SkipList,
        }
    }

    fn request_headers(&mut self, node: &Node) -> Option<Action> {
        const CONTEXT: &str = "`request_headers`";
        let fields = self.fields(node, CONTEXT, &REQUEST_HEADERS)?;
        let key = self.descriptor_key(node, &fields, CONTEXT);
        let text = (CONTEXT, "add `header_name: …`");
        let named = self.needed(node, &fields, "header_name", text).is_some();
        let name = if named {
            self.header_name(&fields, "header_name")
        } else {
            None
        };
        let absent = self.absent(&fields);
        Some(Action {
            key: key?,
            source: Source::Header(name?),
            absent,
        })
    }

    pub(super) fn descriptor_key(
        &mut self,
        node: &Node,
        fields: &Fields<'_>,
        context: &'static str,
    ) -> Option<Box<str>> {
        let text = (context, "add `descriptor_key: …`, the `key` of the rule that counts it");
        self.needed(node, fields, "descriptor_key", text).map(Into::into)
    }

    fn masked(&mut self, node: &Node) -> Option<Action> {
        let fields = self.fields(node, "`masked_remote_address`", &MASKED)?;
        let default = Masks::default();
        let length = |n: Option<u64>, default| n.and_then(|n| u8::try_from(n).ok()).unwrap_or(default);
        let masks = Masks {
            v4_prefix_mask_len: length(
                self.within(&fields, "v4_prefix_mask_len", 0, 32),
                default.v4_prefix_mask_len,
            ),
            v6_prefix_mask_len: length(
                self.within(&fields, "v6_prefix_mask_len", 0, 128),
                default.v6_prefix_mask_len,
            ),
        };
        Some(Action {
            key: self.key(&fields, "masked_remote_address"),
            source: Source::MaskedRemoteAddress(masks),
            absent: Absent::SkipList,
        })
    }

    fn generic_key(&mut self, node: &Node) -> Option<Action> {
        const CONTEXT: &str = "`generic_key`";
        let fields = self.fields(node, CONTEXT, &GENERIC_KEY)?;
        let key = self.key(&fields, "generic_key");
        let value = self.descriptor_value(node, &fields, CONTEXT)?;
        Some(Action {
            key,
            source: Source::Fixed(value),
            absent: Absent::SkipList,
        })
    }

    fn descriptor_value(&mut self, node: &Node, fields: &Fields<'_>, context: &'static str) -> Option<Box<str>> {
        let text = (context, "add `descriptor_value: …`");
        self.needed(node, fields, "descriptor_value", text).map(Into::into)
    }

    fn header_value_match(&mut self, node: &Node) -> Option<Action> {
        const CONTEXT: &str = "`header_value_match`";
        let fields = self.fields(node, CONTEXT, &HEADER_MATCH)?;
        let key = self.key(&fields, "header_match");
        let value = self.descriptor_value(node, &fields, CONTEXT);
        let expect_match = self.truth(&fields, "expect_match").value().copied().unwrap_or(true);
        let headers = self.parts(node, &fields, "headers", CONTEXT, Self::header_matcher);
        Some(Action {
            key,
            source: Source::HeaderMatch {
                value: value?,
                expect_match,
                headers: headers?,
            },
            absent: Absent::SkipList,
        })
    }

    fn query_parameters(&mut self, node: &Node) -> Option<Action> {
        const CONTEXT: &str = "`query_parameters`";
        let fields = self.fields(node, CONTEXT, &QUERY)?;
        let key = self.descriptor_key(node, &fields, CONTEXT);
        let text = (CONTEXT, "add `query_parameter_name: …`");
        let name = self.needed(node, &fields, "query_parameter_name", text);
        let absent = self.absent(&fields);
        Some(Action {
            key: key?,
            source: Source::Query(name?.into()),
            absent,
        })
    }

    fn query_value_match(&mut self, node: &Node) -> Option<Action> {
        const CONTEXT: &str = "`query_parameter_value_match`";
        let fields = self.fields(node, CONTEXT, &QUERY_MATCH)?;
        let key = self.key(&fields, "query_match");
        let value = self.descriptor_value(node, &fields, CONTEXT);
        let expect_match = self.truth(&fields, "expect_match").value().copied().unwrap_or(true);
        let parameters: Option<Box<[QueryMatcher]>> =
            self.parts(node, &fields, "query_parameters", CONTEXT, Self::query_matcher);
        Some(Action {
            key,
            source: Source::QueryMatch {
                value: value?,
                expect_match,
                parameters: parameters?,
            },
            absent: Absent::SkipList,
        })
    }

    /// A list of at least one of the same thing.
    pub(super) fn parts<T>(
        &mut self,
        node: &Node,
        fields: &Fields<'_>,
        field: &'static str,
        context: &'static str,
        read: impl Fn(&mut Self, &Node) -> Option<T>,
    ) -> Option<Box<[T]>> {
        let Some(list) = fields.get(field) else {
            let help = "add what has to match";
            self.report(Problem::Missing { field, context, help }, node.place);
            return None;
        };
        let items = self.items(list, field, MAX_PARTS)?;
        let parts: Vec<_> = items.iter().map(|item| read(self, item)).collect();
        parts.into_iter().collect()
    }

    fn source_principal(&mut self, node: &Node) -> Option<Action> {
        let fields = self.fields(node, "`source_principal`", &KEY_OR_DEFAULT)?;
        Some(Action {
            key: self.key(&fields, "source_principal"),
            source: Source::SourcePrincipal,
            absent: self.absent(&fields),
        })
    }

    fn context_extension(&mut self, node: &Node) -> Option<Action> {
        const CONTEXT: &str = "`context_extension`";
        let fields = self.fields(node, CONTEXT, &EXTENSION)?;
        let text = (CONTEXT, "add `name: …`, a key of the route's `context_extensions`");
        let name = self.needed(node, &fields, "name", text);
        let absent = self.absent(&fields);
        let name = name?;
        Some(Action {
            key: self.key(&fields, &name),
            source: Source::ContextExtension(name.into()),
            absent,
        })
    }
}

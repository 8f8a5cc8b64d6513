//! Values that other filters left behind: claims of a token, any other metadata.

use crate::mapping::{Action, Source};

use super::super::fields::Reader;
use super::super::node::Node;
use super::super::problem::Problem;
use super::actions::MAX_PARTS;

const CLAIM: [&str; 6] = [
    "claim",
    "payload_in_metadata",
    "filter",
    "descriptor_key",
    "skip_if_absent",
    "default_value",
];
const METADATA: [&str; 4] = ["metadata_key", "descriptor_key", "skip_if_absent", "default_value"];
const METADATA_KEY: [&str; 2] = ["key", "path"];
const METADATA_STEP: [&str; 1] = ["key"];

/// Where Envoy's JWT filter puts what it has verified.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// The usual `payload_in_metadata` of a provider.
const JWT_PAYLOAD: &str = "jwt_payload";

impl Reader<'_> {
    pub(super) fn jwt_claim(&mut self, node: &Node) -> Option<Action> {
        let fields = self.fields(node, "`jwt_claim`", &CLAIM)?;
        let text = ("`jwt_claim`", "add `claim: …`, for instance `sub`, or a list of keys");
        if fields.get("claim").is_none() {
            self.needed(node, &fields, "claim", text);
        }
        let read = |_: &mut Self, text: &str, _| (!text.is_empty()).then(|| Box::<str>::from(text));
        let claim = self.one_or_more(&fields, "claim", MAX_PARTS, read);
        let payload = self.word(&fields, "payload_in_metadata");
        let filter = self.word(&fields, "filter");
        let absent = self.absent(&fields);
        let claim = claim?;
        let key = self.key(&fields, claim.last().map_or("claim", |name| name));
        let mut path = vec![Box::from(payload.as_deref().unwrap_or(JWT_PAYLOAD))];
        path.extend(claim);
        Some(Action {
            key,
            source: Source::Metadata {
                namespace: filter.as_deref().unwrap_or(JWT_FILTER).into(),
                path: path.into(),
            },
            absent,
        })
    }

    pub(super) fn metadata_action(&mut self, node: &Node) -> Option<Action> {
        const CONTEXT: &str = "`metadata`";
        let fields = self.fields(node, CONTEXT, &METADATA)?;
        let key = self.descriptor_key(node, &fields, CONTEXT);
        let absent = self.absent(&fields);
        let Some(inner) = fields.get("metadata_key") else {
            let problem = Problem::Missing {
                field: "metadata_key",
                context: CONTEXT,
                help: "add `metadata_key: {key: <filter>, path: [{key: …}]}`, as in Envoy",
            };
            self.report(problem, node.place);
            return None;
        };
        let fields = self.fields(inner, "`metadata_key`", &METADATA_KEY)?;
        let text = ("`metadata_key`", "add `key: …`, the filter that wrote the metadata");
        let namespace = self.needed(inner, &fields, "key", text);
        let step = |reader: &mut Self, node: &Node| {
            let fields = reader.fields(node, "a step of `path`", &METADATA_STEP)?;
            let text = ("a step of `path`", "add `key: …`");
            reader.needed(node, &fields, "key", text).map(Box::<str>::from)
        };
        let path = self.parts(inner, &fields, "path", "`metadata_key`", step);
        Some(Action {
            key: key?,
            source: Source::Metadata {
                namespace: namespace?.into(),
                path: path?,
            },
            absent,
        })
    }
}

//! Rules as they are written, before anything is known to make sense: what files and xDS have in common.

use super::error::{Origin, Place};
use super::ext_authz::Section;
use super::field::Field;
use super::options::Options;
use super::plans::{WrittenPlan, WrittenSource};
use super::problem::Clipped;

/// One file or resource.
#[derive(Debug, Clone)]
pub struct File {
    /// What it is called, and its text.
    pub origin: Origin,
    /// `domain`
    pub domain: Field<String>,
    /// Options of the whole domain.
    pub options: Options,
    /// `descriptors`
    pub descriptors: Vec<Descriptor>,
    /// `ext_authz`
    pub ext_authz: Option<Section>,
    /// `plans`
    pub plans: Vec<WrittenPlan>,
    /// `sources`
    pub sources: Vec<WrittenSource>,
}

impl File {
    /// A file without anything in it.
    #[must_use]
    pub fn empty(origin: &Origin) -> Self {
        Self {
            origin: origin.clone(),
            domain: Field::Absent,
            options: Options::default(),
            descriptors: Vec::new(),
            ext_authz: None,
            plans: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// One entry of `descriptors`.
#[derive(Debug, Clone, Default)]
pub struct Descriptor {
    /// Where it begins.
    pub place: Option<Place>,
    /// `key`
    pub key: Field<String>,
    /// `value`; empty = absent.
    pub value: Field<String>,
    /// `rate_limit`
    pub rate_limit: Field<Options>,
    /// `descriptors`
    pub descriptors: Vec<Descriptor>,
    /// Options of the descriptor itself.
    pub options: Options,
    /// Options that stand in `metadata` under `sluicegate`, for sources whose schema has no fields for them.
    pub in_metadata: Field<Options>,
}

/// What a descriptor is called in the paths of errors: `key=value` or `key`, else its number (from 1) on its level.
#[must_use]
pub fn label(number: usize, key: Option<&str>, value: Option<&str>) -> String {
    match (key, value) {
        (Some(key), Some(value)) => format!("{}={}", Clipped(key), Clipped(value)),
        (Some(key), None) => Clipped(key).to_string(),
        (None, _) => format!("#{number}"),
    }
}

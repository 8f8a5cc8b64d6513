//! Rules as they are written, before anything is known to make sense: what files and xDS have in common.
//!
//! Every field may carry its place, so that the compile step can point at it whatever it comes from.

use serde_json::{Map, Value};

use super::error::{Origin, Place};
use super::ext_authz::Section;
use super::problem::Clipped;

/// A field: absent, given, or given in a way that has been reported already.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Field<T> {
    /// Not there.
    #[default]
    Absent,
    /// There, but unusable; the error is recorded, so that nothing that follows from it is reported again.
    Broken,
    /// There.
    Given(Placed<T>),
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where; `None` if it comes from no text.
    pub place: Option<Place>,
}

impl<T> Field<T> {
    /// What was given.
    pub const fn given(&self) -> Option<&Placed<T>> {
        match self {
            Self::Given(placed) => Some(placed),
            Self::Absent | Self::Broken => None,
        }
    }

    /// The value that was given.
    pub fn value(&self) -> Option<&T> {
        self.given().map(|placed| &placed.value)
    }

    /// Whether there is something, usable or not.
    pub const fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Where it stands.
    pub fn place(&self) -> Option<Place> {
        self.given().and_then(|placed| placed.place)
    }
}

impl Field<bool> {
    /// Whether it is given as true.
    pub fn is_true(&self) -> bool {
        self.value() == Some(&true)
    }
}

/// A value without a place.
impl<T> From<T> for Field<T> {
    fn from(value: T) -> Self {
        Self::Given(Placed { value, place: None })
    }
}

/// One file or resource.
#[derive(Debug, Clone)]
pub struct File {
    /// What it is called, and its text.
    pub origin: Origin,
    /// `domain`
    pub domain: Field<String>,
    /// `on_store_error`, for the whole domain.
    pub on_store_error: Field<String>,
    /// `lease`, for the whole domain.
    pub lease: Field<bool>,
    /// `descriptors`
    pub descriptors: Vec<Descriptor>,
    /// `ext_authz`
    pub ext_authz: Option<Section>,
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
    pub rate_limit: Field<RateLimit>,
    /// `descriptors`
    pub descriptors: Vec<Descriptor>,
    /// `shadow_mode`
    pub shadow_mode: Field<bool>,
    /// `quota_mode`
    pub quota_mode: Field<bool>,
    /// `detailed_metric`
    pub detailed_metric: Field<bool>,
    /// `value_to_metric`
    pub value_to_metric: Field<bool>,
    /// `share_threshold`
    pub share_threshold: Field<bool>,
    /// `on_store_error`, for this rule and all below.
    pub on_store_error: Field<String>,
    /// `lease`, for this rule and all below.
    pub lease: Field<bool>,
    /// `metadata`, with everything in it.
    pub metadata: Field<Map<String, Value>>,
    /// What stands in `metadata` under [`METADATA_KEY`]; if absent, the compile step reads it from `metadata`.
    pub from_metadata: Field<FromMetadata>,
}

/// The key in `metadata` under which our options may stand, for sources whose schema has no fields for them.
pub const METADATA_KEY: &str = "sluicegate";

/// Our options in `metadata`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FromMetadata {
    /// As in `rate_limit`.
    pub options: Options,
    /// As in the descriptor.
    pub share_threshold: Field<bool>,
    /// As in the descriptor.
    pub value_to_metric: Field<bool>,
}

/// `rate_limit`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RateLimit {
    /// `unit`
    pub unit: Field<String>,
    /// `requests_per_unit`; absent = 0.
    pub requests_per_unit: Field<u32>,
    /// `unlimited`
    pub unlimited: Field<bool>,
    /// `name`; absent = empty.
    pub name: Field<String>,
    /// `replaces`: the names.
    pub replaces: Vec<Field<String>>,
    /// What envoyproxy/ratelimit does not have.
    pub options: Options,
}

/// The fields of `rate_limit` that are ours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `algorithm`
    pub algorithm: Field<String>,
    /// `unit_multiplier`
    pub unit_multiplier: Field<u32>,
    /// `window`, in place of `unit`
    pub window: Field<String>,
    /// `burst`
    pub burst: Field<u64>,
    /// `precision`
    pub precision: Field<u32>,
    /// `max_delay`
    pub max_delay: Field<String>,
    /// `count_denied`
    pub count_denied: Field<bool>,
    /// `on_store_error`
    pub on_store_error: Field<String>,
    /// `lease`
    pub lease: Field<bool>,
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

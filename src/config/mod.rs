//! Settings, and rules files: read → raw → compiled [`RuleSet`], all or nothing, with every error in its place.
//!
//! What is read ([`options`], [`raw`]), how it is read (`fields`, `read`, [`xds`]) and what it is checked against
//! ([`mod@compile`]) are three layers; a module imports only what stands above it in this list, beside [`settings`]:
//!
//! | module | what is in it |
//! |---|---|
//! | [`settings`] | flags and environment variables |
//! | [`compat`] | how a setting or an option compares with envoyproxy/ratelimit |
//! | [`problem`], [`error`] | what can be wrong, where, and how to fix it |
//! | [`field`], `duration` | a value and its place; durations in rules |
//! | `node`, [`fields`] | YAML with positions, and mappings with known fields |
//! | [`options`] | the table of all fields of a rules file |
//! | [`plans`] | the sections `plans` and `sources`, and the entries of sources |
//! | [`ext_authz`] | the section that maps attributes to descriptors |
//! | [`raw`] | rules as they are written; xDS resources become this too |
//! | `read` | YAML → [`raw`] |
//! | [`mod@compile`] | [`raw`] → [`RuleSet`] |
//! | `dump` | [`RuleSet`] → the lines of `/rlconfig` |
//! | [`source`] | which files there are, and what is in them at one moment |
//! | [`mod@load`] | texts, or files and directories → [`RuleSet`] |
//! | [`import`] | limits files of other rate limiters → the text of a rules file |
//! | [`mod@watch`] | reloads when files change; the last good rules stay |
//! | [`xds`] | rules from a control plane instead of files |
//!
//! [`RuleSet`]: crate::rules::RuleSet

pub mod compat;
pub mod compile;
mod dump;
pub(crate) mod duration;
pub mod error;
pub mod ext_authz;
pub mod field;
pub mod fields;
pub mod import;
pub mod load;
pub(crate) mod node;
pub mod options;
pub mod plans;
pub mod problem;
pub mod raw;
mod read;
pub mod settings;
pub mod source;
pub mod watch;
pub mod xds;

pub use error::{ConfigError, ConfigErrors, Origin, Place, Warnings};
pub use load::{EXAMPLE, Summary, check, example, load, load_with_warnings, read_rules};
pub use problem::Problem;
pub use source::{Snapshot, Source, Text};
pub use watch::{Event, Loaded, Watch, watch};

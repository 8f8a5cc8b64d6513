//! Every field of a rules file, declared once: its name, the levels it may stand on, its type, the raw field that it
//! fills, its default, its documentation, how it compares with envoyproxy/ratelimit, how `/rlconfig` shows it and
//! which rules it can affect.
//!
//! From [`TABLE`] come the YAML reader with its suggestions, the options in an xDS resource's `metadata`, the merge of
//! both, the dump, the warnings about options without effect, and the tables of `docs/rules.md` and
//! `docs/migrating.md`. A new option is an entry there, the field of [`Options`] that it fills, and its use in the
//! compile step.
//!
//! | file | what is in it |
//! |---|---|
//! | `option` | what an entry is; [`Options`], the raw fields |
//! | `shapes` | readers of mappings and lists |
//! | `table` | [`TABLE`] |
//! | `read` | the options of one level, from YAML |
//! | `merge` | the options of a `rate_limit` and of its `metadata` together |
//! | [`docs`] | the table as documentation |

pub mod docs;
mod merge;
mod option;
mod read;
mod shapes;
mod table;

pub(super) use option::Shown;
pub use option::{Hold, Level, METADATA_KEY, Options, Rlqs, RuleOption, WrittenWindow};
pub(super) use read::misplaced;
pub(super) use shapes::limit_label;
pub use table::TABLE;

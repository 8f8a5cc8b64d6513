//! `sluicegate replay`: access logs of the past, decided by rules that are not in force yet.
//!
//! | module | what is in it |
//! |---|---|
//! | [`record`] | one line of a log as a request |
//! | [`mod@format`] | lines → records: common and combined log format, Envoy's text, JSON |
//! | [`input`] | files, compressed or not, merged in order of time |
//! | [`order`] | lines that are a little out of order |
//! | [`options`] | what is asked of a replay |
//! | [`unreadable`] | lines that could not be used |
//! | [`mod@run`], `side`, `change` | records → descriptors → decisions, by one or two sets of rules, and how these differ |
//! | [`tally`], [`keys`], [`demand`], [`series`] | what is counted of decisions, in bounded memory |
//! | [`report`], [`text`], [`html`] | results for people and programs |

mod change;
pub mod demand;
pub mod error;
pub mod format;
pub mod html;
pub mod input;
pub mod keys;
pub mod options;
pub mod order;
pub mod record;
pub mod report;
pub mod run;
pub mod series;
mod side;
pub mod tally;
pub mod text;
pub mod unreadable;

pub use error::ReplayError;
pub use options::Options;
pub use report::Report;
pub use run::run;

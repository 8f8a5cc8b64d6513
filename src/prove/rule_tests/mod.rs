//! `sluicegate test`: cases of requests at virtual times, and what the rules must answer.
//!
//! | module | what is in it |
//! |---|---|
//! | [`case`] | a test file as data |
//! | [`mod@read`], `values` | YAML → [`case`], every error with its place |
//! | [`range`] | ranges of numbers and durations |
//! | [`mod@run`], `answer` | asks the engine, and compares |
//! | [`report`], [`junit`] | the results for people, programs and CI systems |

mod answer;
pub mod case;
pub mod junit;
pub mod range;
pub mod read;
pub mod report;
pub mod run;
mod values;

pub use read::read;
pub use report::Report;
pub use run::run;

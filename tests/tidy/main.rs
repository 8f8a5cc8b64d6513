//! Rules of the house that the compiler and clippy do not know. Each check reads the sources as tokens, and each proves
//! itself on a small wrong sample: a check that cannot fail would be worth nothing.
//!
//! | check | refuses |
//! |---|---|
//! | `layers` | an import against the table of modules in the crate docs |
//! | `circles` | files of which each needs the other |
//! | `lengths` | a file of more than 400 lines (functions: clippy's `too_many_lines`) |
//! | `clock` | reading the clock where time should be an argument |
//! | `paths` | a path in documents or comments that leads nowhere |
//! | `names` | two types of one name |
//! | `dependencies` | a crate in `Cargo.toml` that no code names |
//!
//! Lists of exceptions may only shrink: an entry that is no longer needed is refused, too.
#![allow(clippy::expect_used, reason = "a check that cannot go on says why")]

mod circles;
mod clock;
mod dependencies;
mod layers;
mod lengths;
mod modules;
mod names;
mod paths;
mod project;
mod tokens;

/// Fails with everything that is wrong.
#[track_caller]
fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

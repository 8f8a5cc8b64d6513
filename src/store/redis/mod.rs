//! Redis through fred.

pub mod script;

//! Settings, and (as they come) the rules files.

pub mod settings;
pub mod xds;

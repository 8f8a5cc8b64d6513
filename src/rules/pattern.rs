//! Wildcards in values.

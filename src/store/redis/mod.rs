//! Redis through fred.

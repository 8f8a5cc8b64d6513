//! The arithmetic of limits: one folder each, pure, the same in Rust (`step.rs`) and in Lua (`script.lua`).

pub mod limit;

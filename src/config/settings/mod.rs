//! Settings: what flags and the environment say, parsed once into types. No module behind this one reads a flag, an
//! environment variable or a string that could still be wrong.
//!
//! Each setting is one entry of a table, from which its flag (`sluicegate serve`), its variable (started as
//! envoyproxy/ratelimit is), its defaults, its messages and its documentation come. A new one is an entry and the field
//! that it fills; settings that only make sense together (Redis, TLS, a control plane, traces) are read by name, by a
//! function for the group.
//!
//! | file | what is in it |
//! |---|---|
//! | [`redis`], [`traces`], [`xds`], [`model`] | the types |
//! | [`secret`], [`values`], [`errors`] | passwords; how single values are written; what is wrong with them |
//! | [`setting`], [`table`] | what an entry is; the entries |
//! | [`listing`] | `sluicegate settings`, and the table in the documentation |
//! | `defaults` | the defaults as types |
//! | `reader` | reads settings by name |
//! | [`ratelimit_env`] | the settings from envoyproxy/ratelimit's variables |
//! | [`flags`] | the settings from flags |

mod defaults;
pub mod errors;
pub mod flags;
pub mod listing;
pub mod model;
pub mod ratelimit_env;
mod reader;
pub mod redis;
pub mod secret;
pub mod setting;
pub mod table;
pub mod traces;
pub mod values;
pub mod xds;

pub use crate::tls::{ClientTls, ServerTls};

pub use super::compat::Compatibility;
pub use errors::{SettingError, SettingsErrors};
pub use flags::ServeArgs;
pub use model::{
    Ablation, AnswerSettings, LimitHeaders, ListenSettings, LogFormat, MaskValues, OnOverload, ProcessLimits,
    PrometheusSettings, RulesSettings, Settings, StatsdSettings, StatsdTransport, StoreKind, StoreSettings,
    TelemetrySettings,
};
pub use reader::{Notice, variable};
pub use redis::{RedisAuth, RedisSettings, RedisTls, Topology};
pub use secret::Secret;
pub use traces::{OtlpProtocol, OtlpSettings, SpanBatches, TraceSettings};
pub use xds::XdsSettings;

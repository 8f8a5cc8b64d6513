//! The defaults of the table as [`Settings`].

use super::listing::all;
use super::model::{
    Ablation, AnswerSettings, ListenSettings, ProcessLimits, RulesSettings, Settings, StoreSettings, TelemetrySettings,
};

impl Default for Settings {
    /// `sluicegate serve` without flags: the built-in example, in memory.
    fn default() -> Self {
        let mut settings = Self {
            rules: RulesSettings {
                ignore_dot_files: true,
                ..RulesSettings::default()
            },
            store: StoreSettings::default(),
            listen: ListenSettings::default(),
            answers: AnswerSettings::default(),
            telemetry: TelemetrySettings::default(),
            limits: ProcessLimits::default(),
            ablation: Ablation::default(),
        };
        for setting in all() {
            if let (Some(parse), Some(value)) = (setting.field, setting.serve_default_value()) {
                // A default that its own setting refuses would be found by the tests.
                let _ = parse(&mut settings, value);
            }
        }
        settings
    }
}

impl Settings {
    /// The defaults where the process is started as envoyproxy/ratelimit is.
    pub(super) fn of_ratelimit() -> Self {
        let mut settings = Self::default();
        for setting in all().filter(|setting| !setting.serve_only) {
            if let (Some(parse), Some(value)) = (setting.field, setting.default_value()) {
                let _ = parse(&mut settings, value);
            }
        }
        settings
    }
}

//! Where rules come from, and how new ones get into force.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::config::problem::Clipped;
use crate::config::settings::{RulesSettings, XdsSettings};
use crate::config::watch::{self, Event, Loaded};
use crate::config::xds::watch_xds;
use crate::config::{self, ConfigErrors, Source, Warnings};
use crate::engine::Engine;
use crate::rules::{Defaults, RuleSet};
use crate::sources::{OpenRedis, SourceKeeper};
use crate::telemetry::activity::Reload;
use crate::telemetry::{Activity, Metrics};
use crate::tls;

use super::AppError;

/// Bytes of BLAKE3 that name a configuration in the metrics.
const HASH_BYTES: usize = 6;

/// Rules that one log line names.
const NAMED: usize = 10;

/// A source of rules that has been asked once.
pub(super) struct RulesFeed {
    from: From,
    settings: RulesSettings,
    metrics: Arc<Metrics>,
    activity: Arc<Activity>,
    open_redis: Option<OpenRedis>,
}

enum From {
    /// The built-in example.
    Example(Arc<RuleSet>),
    /// Files and directories; `None` while they are wrong and the process serves all the same.
    Files { source: Source, loaded: Option<Loaded> },
    /// A control plane.
    Xds(XdsSettings),
}

/// What the compile step fills in where a file is silent.
pub(super) fn defaults(settings: &RulesSettings) -> Defaults {
    Defaults {
        algorithm: settings.default_algorithm,
        count_denied: settings.count_denied,
        merge_domains: settings.merge_domains,
    }
}

impl RulesFeed {
    /// Loads for the first time.
    pub(super) fn open(
        settings: &RulesSettings,
        metrics: Arc<Metrics>,
        activity: Arc<Activity>,
        open_redis: Option<OpenRedis>,
    ) -> Result<Self, AppError> {
        let defaults = defaults(settings);
        let wrong = |errors: ConfigErrors| AppError::Rules(errors.render(false));
        let from = if let Some(xds) = &settings.xds {
            // What cannot work must fail before anything serves.
            let certificates = xds.tls.as_ref().map(tls::client_config).transpose();
            certificates.map_err(|error| AppError::Rules(format!("TLS to the control plane: {error}")))?;
            From::Xds(xds.clone())
        } else if settings.paths.is_empty() {
            tracing::warn!(
                "NO RULES GIVEN (--rules): serving the built-in example, domain \"demo\", 10 requests a minute for each \
                 remote_address; see /rlconfig on the admin port"
            );
            From::Example(Arc::new(config::example(&defaults).map_err(wrong)?))
        } else {
            let source = Source::new(settings.paths.clone())
                .ignore_dot_files(settings.ignore_dot_files)
                .may_be_empty(settings.may_be_empty);
            match watch::first(&source, &defaults) {
                Ok(loaded) => From::Files {
                    source,
                    loaded: Some(loaded),
                },
                Err(errors) if settings.force_start => {
                    metrics.config.refused();
                    tracing::error!("no rules are in force:\n{}", errors.render(false));
                    From::Files { source, loaded: None }
                }
                Err(errors) => return Err(wrong(errors)),
            }
        };
        Ok(Self {
            from,
            settings: settings.clone(),
            metrics,
            activity,
            open_redis,
        })
    }

    /// Puts the first rules in force and keeps them fresh.
    pub(super) fn start(
        self,
        tasks: &mut JoinSet<()>,
        engine: Arc<Engine>,
        health: Health,
        stop: &CancellationToken,
    ) -> Result<(), AppError> {
        let needs_domain = self.settings.healthy_needs_domain;
        if self.settings.force_start && !needs_domain {
            health.update(|conditions| conditions.configured = true);
        }
        let defaults = defaults(&self.settings);
        let told = health.clone();
        let on_stale = move |names| told.update(|conditions| conditions.stale_plan_sources = names);
        let activator = Activator {
            engine,
            health,
            plans: SourceKeeper::new(Arc::clone(&self.metrics), self.open_redis, on_stale),
            metrics: self.metrics,
            activity: self.activity,
            needs_domain,
        };
        match self.from {
            From::Example(rules) => activator.activate(rules, 1, &Warnings::default()),
            From::Files { source, loaded } => {
                match &loaded {
                    Some(loaded) => activator.activate(Arc::clone(&loaded.rules), loaded.generation, &loaded.warnings),
                    None => activator.health.update(|conditions| conditions.stale_rules = true),
                }
                let watch = watch::watch(source, defaults, loaded.as_ref(), move |event| activator.handle(event))
                    .map_err(|error| AppError::Rules(format!("cannot watch the rules: {error}")))?;
                hold(tasks, watch, stop);
            }
            From::Xds(xds) => {
                let watch = watch_xds(xds, defaults, move |event| activator.handle(event))
                    .map_err(|error| AppError::Rules(error.to_string()))?;
                hold(tasks, watch, stop);
            }
        }
        Ok(())
    }
}

/// Watches until the process ends.
fn hold(tasks: &mut JoinSet<()>, watch: impl Send + 'static, stop: &CancellationToken) {
    let stop = stop.clone();
    tasks.spawn(async move {
        stop.cancelled().await;
        // Dropping a watch waits for its thread.
        let _ = tokio::task::spawn_blocking(move || drop(watch)).await;
    });
}

/// Where rules come into force.
struct Activator {
    engine: Arc<Engine>,
    health: Health,
    metrics: Arc<Metrics>,
    activity: Arc<Activity>,
    plans: SourceKeeper,
    /// Without a domain the process is not healthy.
    needs_domain: bool,
}

impl Activator {
    fn handle(&self, event: Event) {
        match event {
            Event::Loaded(loaded) => self.activate(loaded.rules, loaded.generation, &loaded.warnings),
            Event::Failed(errors) => {
                self.metrics.config.refused();
                self.health.update(|conditions| conditions.stale_rules = true);
                let rendered = errors.render(false);
                let active = self.engine.active();
                self.activity.events.reloaded(Reload {
                    generation: active.as_ref().map_or(0, |active| active.generation),
                    rules: active.as_ref().map_or(0, |active| active.rules.rules.len()),
                    errors: rendered.clone(),
                    ..Reload::default()
                });
                let instead = match active {
                    Some(_) => "the new rules are wrong, the old ones stay in force",
                    None => "no rules are in force",
                };
                tracing::error!("{instead}:\n{rendered}");
            }
        }
    }

    fn activate(&self, rules: Arc<RuleSet>, generation: u64, warnings: &Warnings) {
        let hash = blake3::hash(rules.dump().as_bytes()).to_hex();
        let (count, domains) = (rules.rules.len(), rules.domains.len());
        let anew = self.engine.active().and_then(|active| anew(&active.rules, &rules));
        // Plans first: no request is to be counted by a default only because a file is still being read.
        self.plans.follow(&rules);
        self.engine.activate(rules, generation);
        self.metrics.config.loaded(generation, count, &hash[..2 * HASH_BYTES]);
        self.activity.events.reloaded(Reload {
            ok: true,
            generation,
            hash: hash[..2 * HASH_BYTES].to_owned(),
            rules: count,
            ..Reload::default()
        });
        let configured = !self.needs_domain || domains > 0;
        self.health.update(|conditions| {
            conditions.configured = configured;
            conditions.no_rules = count == 0;
            conditions.stale_rules = false;
        });
        tracing::info!(
            generation,
            domains,
            rules = count,
            hash = &hash[..2 * HASH_BYTES],
            "rules in force"
        );
        if let Some((anew, names)) = anew {
            tracing::warn!(
                generation,
                rules = anew,
                "counters start anew, so that clients may use the whole limit at once, of rules whose algorithm, sliding_log \
                 window, holds, shared values or plans changed: {names} (`sluicegate check --diff` says so beforehand)"
            );
        }
        for warning in warnings.lines() {
            tracing::warn!(generation, "{warning}");
        }
        if domains == 0 {
            tracing::warn!(generation, "the configuration is empty: nothing is limited");
        }
    }
}

/// How many rules' counters start anew, and the first of them by name.
fn anew(before: &RuleSet, after: &RuleSet) -> Option<(usize, String)> {
    let rules = after.starting_anew(before);
    let mut names: Vec<_> = rules
        .iter()
        .take(NAMED)
        .map(|rule| format!("{} / {}", Clipped(&rule.domain), Clipped(&rule.path)))
        .collect();
    if rules.len() > NAMED {
        names.push(format!("and {} more", rules.len() - NAMED));
    }
    (!rules.is_empty()).then(|| (rules.len(), names.join(", ")))
}

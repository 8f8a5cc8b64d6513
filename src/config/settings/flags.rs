//! The flags of `sluicegate serve`, from the table of settings. Each is also an environment variable.

use std::collections::HashMap;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::errors::{Collector, SettingsErrors};
use super::listing::{all, of_variable};
use super::model::{PrometheusSettings, Settings, StoreKind};
use super::reader::{Notice, Reader, variable};
use super::redis::{RedisSettings, RedisTls};
use super::setting::{Flag, Setting};
use super::table::SECTIONS;
use super::traces::TraceSettings;
use super::values;
use crate::tls::{ClientTls, ServerTls};

/// The flags that were given.
#[derive(Debug, Clone, Default)]
pub struct ServeArgs {
    /// By variable.
    given: HashMap<&'static str, Vec<String>>,
}

impl Args for ServeArgs {
    fn augment_args(mut command: Command) -> Command {
        for section in SECTIONS {
            command = command.next_help_heading(section.topic.title());
            for setting in section.settings {
                if let Some(flag) = &setting.flag {
                    command = command.arg(arg(setting, flag));
                }
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(setting: &'static Setting, flag: &'static Flag) -> Arg {
    let mut arg = Arg::new(flag.name)
        .long(flag.name)
        .env(setting.variable)
        .hide_env_values(setting.secret)
        .value_name(flag.value)
        .help(setting.help(flag));
    if let Some(parse) = setting.field {
        let check = move |text: &str| parse(&mut Settings::default(), text).map(|()| text.to_owned());
        arg = arg.value_parser(ValueParser::from(check));
    }
    if flag.value == "BOOL" {
        arg = arg.num_args(0..=1).default_missing_value("true");
    }
    if flag.many {
        arg = arg.action(ArgAction::Append).value_delimiter(',');
    }
    if let Some(other) = flag.requires {
        arg = arg.requires(other);
    }
    if let Some(other) = flag.conflicts {
        arg = arg.conflicts_with(other);
    }
    arg
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in all() {
            let values = setting
                .flag
                .as_ref()
                .and_then(|flag| matches.get_many::<String>(flag.name));
            if let Some(values) = values {
                self.given.insert(setting.variable, values.cloned().collect());
            }
        }
        Ok(())
    }
}

/// What messages call a setting.
fn flag(variable: &str) -> String {
    let flag = of_variable(variable).and_then(|setting| setting.flag.as_ref());
    flag.map_or_else(|| variable.to_owned(), |flag| format!("--{}", flag.name))
}

impl ServeArgs {
    /// Defaults overlaid with the flags that were given; and what is set without effect.
    ///
    /// # Errors
    /// Everything that is wrong beyond the syntax of single flags.
    pub fn into_settings(self) -> Result<(Settings, Vec<Notice>), SettingsErrors> {
        let mut errors = Collector::default();
        let mut settings = Settings::default();
        for setting in all() {
            let values = self.given.get(setting.variable).into_iter().flatten();
            if let Some(parse) = setting.field {
                for value in values {
                    if let Err(problem) = parse(&mut settings, value) {
                        errors.bad(&flag(setting.variable), value, problem);
                    }
                }
            }
        }
        let given = |variable: &str| self.given.get(variable).map(|values| values.join(","));
        let mut reader = Reader::new(&given, flag);
        store(&mut reader, &mut settings);
        settings.listen.grpc_tls = grpc_tls(&reader);
        settings.listen.admin_tls = reader.admin_tls();
        let prometheus = reader.parse("PROMETHEUS_ADDR", values::listen_address);
        settings.listen.prometheus = prometheus.map(|addr| PrometheusSettings {
            addr,
            path: "/metrics".into(),
        });
        let mut notices = Vec::new();
        if reader.truth("TRACING_ENABLED") {
            match TraceSettings::from_variables(variable) {
                Ok((traces, idle)) => (settings.telemetry.traces, notices) = (Some(traces), idle),
                Err(wrong) => errors.all(wrong),
            }
        }
        if let Err(wrong) = reader.finish(()) {
            errors.all(wrong);
        }
        errors.finish((settings, notices))
    }
}

fn store(reader: &mut Reader<'_>, settings: &mut Settings) {
    let tls = RedisTls {
        client: ClientTls {
            ca: reader.path("REDIS_TLS_CACERT"),
            identity: reader
                .path("REDIS_TLS_CLIENT_CERT")
                .zip(reader.path("REDIS_TLS_CLIENT_KEY")),
            server_name: None,
        },
        skip_hostname: reader.truth("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION"),
    };
    let pool_size = reader.parse("REDIS_POOL_SIZE", values::at_least_one::<u16>);
    let names = [
        ("REDIS_URL", "REDIS_AUTH_FILE", "REDIS_SENTINEL_AUTH_FILE"),
        (
            "REDIS_PERSECOND_URL",
            "REDIS_PERSECOND_AUTH_FILE",
            "REDIS_PERSECOND_SENTINEL_AUTH_FILE",
        ),
    ];
    let [main, per_second] = names.map(|(name, auth_file, sentinel_auth_file)| {
        let mut redis: RedisSettings = reader.parse(name, RedisSettings::from_url)?;
        redis.pool_size = pool_size.map_or(redis.pool_size, usize::from);
        redis.tls = redis.tls.map(|_| tls.clone());
        redis.auth_file = reader.path(auth_file);
        redis.sentinel_auth_file = reader.path(sentinel_auth_file);
        Some(redis)
    });
    let url_given = reader.text("REDIS_URL").is_some();
    let kind = reader.parse("STORE", values::store_kind);
    let kind = kind.unwrap_or(if url_given { StoreKind::Redis } else { StoreKind::Memory });
    if kind == StoreKind::Redis && !url_given {
        reader.problem(
            "STORE",
            "redis needs --redis-url, for instance --redis-url redis://localhost:6379",
        );
    }
    let store = &mut settings.store;
    store.kind = kind;
    (store.redis, store.redis_per_second) = match kind {
        StoreKind::Redis => (main, per_second),
        StoreKind::Memory => (None, None),
    };
}

fn grpc_tls(reader: &Reader<'_>) -> Option<ServerTls> {
    let sans = reader.text("GRPC_CLIENT_TLS_SAN").unwrap_or_default();
    Some(ServerTls {
        cert: reader.path("GRPC_SERVER_TLS_CERT")?,
        key: reader.path("GRPC_SERVER_TLS_KEY")?,
        client_ca: reader.path("GRPC_CLIENT_TLS_CACERT"),
        client_sans: sans
            .split(',')
            .filter(|name| !name.is_empty())
            .map(Into::into)
            .collect(),
    })
}

//! Rules from a control plane: the same rules, and the same errors, as from files.

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use prost_types::{ListValue, Struct, Value, value::Kind};
use sluicegate::{
    config::{
        Text, load,
        settings::XdsSettings,
        watch::{Event, Loaded},
        xds::{XdsWatch, watch_xds},
    },
    proto::ratelimit::config::ratelimit::v3::{
        RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitReplace, RateLimitUnit,
    },
    rules::Defaults,
};

use crate::support::ads::ControlPlane;
use sluicegate::rules::Rule;

/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);

struct Rules {
    events: Receiver<Event>,
    _watch: XdsWatch,
}

impl Rules {
    fn watch(plane: &ControlPlane) -> Self {
        let (sender, events) = channel();
        let settings = XdsSettings {
            server: plane.address(),
            backoff_initial: Duration::from_millis(20),
            ..XdsSettings::default()
        };
        let watch = watch_xds(settings, Defaults::default(), move |event| {
            sender.send(event).expect("the test listens");
        })
        .expect("it starts");
        Self { events, _watch: watch }
    }

    fn next(&self) -> Result<Loaded, String> {
        match self.events.recv_timeout(PATIENCE).expect("an event in time") {
            Event::Loaded(loaded) => Ok(loaded),
            Event::Failed(errors) => Err(errors.to_string()),
        }
    }
}

fn config(domain: &str, descriptors: Vec<RateLimitDescriptor>) -> RateLimitConfig {
    RateLimitConfig {
        name: "the-resource".into(),
        domain: domain.into(),
        descriptors,
    }
}

fn descriptor(key: &str, value: &str, rate_limit: Option<RateLimitPolicy>) -> RateLimitDescriptor {
    RateLimitDescriptor {
        key: key.into(),
        value: value.into(),
        rate_limit,
        ..Default::default()
    }
}

fn policy(unit: RateLimitUnit, requests_per_unit: u32) -> RateLimitPolicy {
    RateLimitPolicy {
        unit: unit.into(),
        requests_per_unit,
        ..Default::default()
    }
}

fn object(fields: &[(&str, Value)]) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect(),
    }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn string(text: &str) -> Value {
    value(Kind::StringValue(text.into()))
}

fn list(values: Vec<Value>) -> Value {
    value(Kind::ListValue(ListValue { values }))
}

fn number(number: f64) -> Value {
    value(Kind::NumberValue(number))
}

/// Options that xDS' own schema has no fields for.
fn options(fields: &[(&str, Value)]) -> Option<Struct> {
    Some(object(&[("sluicegate", value(Kind::StructValue(object(fields))))]))
}

fn values_and_visibility() -> [RateLimitDescriptor; 4] {
    let no = || value(Kind::BoolValue(false));
    let networks = list(vec![string("10.0.0.0/8"), string("fd00::/8")]);
    let hold = object(&[("ttl", string("10s"))]);
    let limit = |fields: &[(&str, Value)]| value(Kind::StructValue(object(fields)));
    let limits = vec![
        limit(&[("requests_per_unit", number(10.0)), ("unit", string("minute"))]),
        limit(&[
            ("requests_per_unit", number(100.0)),
            ("window", string("7d")),
            ("name", string("weekly")),
        ]),
    ];
    [
        RateLimitDescriptor {
            metadata: options(&[("value_cidr", networks), ("headers", no()), ("body", no())]),
            ..descriptor("net", "", Some(policy(RateLimitUnit::Minute, 5)))
        },
        RateLimitDescriptor {
            metadata: options(&[
                ("value_in", list(vec![string("free"), string("trial")])),
                ("share_threshold", value(Kind::BoolValue(true))),
                ("on_limit", string("mark")),
            ]),
            ..descriptor("plan", "", Some(policy(RateLimitUnit::Hour, 7)))
        },
        RateLimitDescriptor {
            metadata: options(&[
                ("value_regex", string("/orders/[0-9]+")),
                ("hold", value(Kind::StructValue(hold))),
            ]),
            ..descriptor("path", "", Some(policy(RateLimitUnit::Minute, 9)))
        },
        RateLimitDescriptor {
            metadata: options(&[("rate_limits", list(limits))]),
            ..descriptor("several", "", None)
        },
    ]
}

fn everything() -> Vec<RateLimitDescriptor> {
    let window = object(&[("calendar", string("month")), ("time_zone", string("Europe/Berlin"))]);
    let calendar = object(&[("window", value(Kind::StructValue(window)))]);
    let options = object(&[
        ("algorithm", string("token_bucket")),
        ("window", string("30s")),
        ("burst", value(Kind::NumberValue(20.0))),
        ("share_threshold", value(Kind::BoolValue(true))),
        ("on_store_error", string("deny")),
    ]);
    let metadata = object(&[
        ("team", string("a")),
        (
            "tags",
            value(Kind::ListValue(ListValue {
                values: vec![string("x"), value(Kind::NumberValue(1.5))],
            })),
        ),
        ("sluicegate", value(Kind::StructValue(options))),
    ]);
    let own = vec![
        RateLimitDescriptor {
            shadow_mode: true,
            detailed_metric: true,
            metadata: Some(metadata),
            ..descriptor("user", "a*", Some(policy(RateLimitUnit::Minute, 10)))
        },
        RateLimitDescriptor {
            quota_mode: true,
            descriptors: vec![
                descriptor("path", "/x", Some(policy(RateLimitUnit::Week, 0))),
                descriptor(
                    "path",
                    "",
                    Some(RateLimitPolicy {
                        unlimited: true,
                        ..Default::default()
                    }),
                ),
            ],
            ..descriptor(
                "user",
                "",
                Some(RateLimitPolicy {
                    name: "all".into(),
                    replaces: vec![RateLimitReplace { name: "other".into() }],
                    ..policy(RateLimitUnit::Year, 4_294_967_295)
                }),
            )
        },
        RateLimitDescriptor {
            metadata: Some(object(&[("sluicegate", value(Kind::StructValue(calendar)))])),
            ..descriptor("tenant", "", Some(policy(RateLimitUnit::Second, 5)))
        },
    ];
    own.into_iter().chain(values_and_visibility()).collect()
}

const THE_SAME: &str = r#"
domain: gw/first
descriptors:
  - key: user
    value: "a*"
    shadow_mode: true
    detailed_metric: true
    share_threshold: true
    rate_limit: {window: 30s, requests_per_unit: 10, algorithm: token_bucket, burst: 20, on_store_error: deny}
    metadata: {team: a, tags: [x, 1.5]}
  - key: user
    quota_mode: true
    rate_limit: {unit: YEAR, requests_per_unit: 4294967295, name: all, replaces: [{name: other}]}
    descriptors:
      - {key: path, value: /x, rate_limit: {unit: week, requests_per_unit: 0}}
      - {key: path, rate_limit: {unlimited: true}}
  - {key: tenant, rate_limit: {requests_per_unit: 5, window: {calendar: month, time_zone: Europe/Berlin}}}
  - {key: net, value_cidr: [10.0.0.0/8, "fd00::/8"], rate_limit: {unit: minute, requests_per_unit: 5, headers: false, body: false}}
  - {key: plan, value_in: [free, trial], share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 7, on_limit: mark}}
  - {key: path, value_regex: "/orders/[0-9]+", rate_limit: {unit: minute, requests_per_unit: 9, hold: {ttl: 10s}}}
  - key: several
    rate_limits:
      - {unit: minute, requests_per_unit: 10}
      - {window: 7d, requests_per_unit: 100, name: weekly}
"#;

fn text(yaml: &str) -> Text {
    Text {
        name: "f.yaml".into(),
        text: yaml.into(),
    }
}

#[tokio::test]
async fn a_resource_means_what_the_same_file_means() {
    let mut plane = ControlPlane::new(None);
    plane.publish("1", &[config("gw/first", everything())]);
    plane.start();
    let rules = Rules::watch(&plane);
    let loaded = rules.next().expect("good rules");
    let from_file = load(&[text(THE_SAME)], &Defaults::default()).expect("good rules");
    let unplaced = |rules: &[std::sync::Arc<Rule>]| -> Vec<Rule> {
        let without = |rule: &std::sync::Arc<Rule>| Rule {
            source: "".into(),
            ..Rule::clone(rule)
        };
        rules.iter().map(without).collect()
    };
    assert_eq!(unplaced(&loaded.rules.rules), unplaced(&from_file.rules));
    // What values they match, and which counters they share, is no part of the rules.
    assert_eq!(loaded.rules.dump(), from_file.dump());
    assert_eq!(loaded.rules.rules.len(), 10);
    assert_eq!(
        (loaded.generation, loaded.summary.domains, loaded.summary.rules),
        (1, 1, 10)
    );
    assert_eq!(plane.next_answer().await, Ok("1".into()));
}

#[tokio::test]
async fn a_bad_version_is_refused_with_the_texts_of_a_file_and_changes_nothing() {
    let mut plane = ControlPlane::new(None);
    let good = config("first", vec![descriptor("k", "", Some(policy(RateLimitUnit::Hour, 1)))]);
    plane.publish("1", std::slice::from_ref(&good));
    plane.start();
    let rules = Rules::watch(&plane);
    assert_eq!(rules.next().expect("good rules").generation, 1);
    assert_eq!(plane.next_answer().await, Ok("1".into()));

    let bad = config(
        "first",
        vec![
            descriptor("", "v", Some(policy(RateLimitUnit::Hour, 1))),
            descriptor("k", "", Some(policy(RateLimitUnit::Unknown, 1))),
            descriptor(
                "u",
                "",
                Some(RateLimitPolicy {
                    unit: 99,
                    ..Default::default()
                }),
            ),
            descriptor(
                "n",
                "",
                Some(RateLimitPolicy {
                    name: "me".into(),
                    replaces: vec![RateLimitReplace { name: "me".into() }],
                    ..policy(RateLimitUnit::Day, 1)
                }),
            ),
        ],
    );
    plane.publish("2", &[good.clone(), bad]);
    let logged = rules.next().expect_err("bad rules");
    let refused = plane.next_answer().await.expect_err("a NACK");
    assert_eq!(logged, refused);

    let file = r#"
domain: first
descriptors:
  - {value: v, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: k, rate_limit: {requests_per_unit: 1}}
  - {key: u, rate_limit: {unit: "99"}}
  - {key: n, rate_limit: {unit: day, requests_per_unit: 1, name: me, replaces: [{name: me}]}}
"#;
    let errors = load(&[text(file)], &Defaults::default())
        .expect_err("bad rules")
        .to_string();
    // Without the place, which a resource does not have, and beside the second `domain: first`, which the file does not.
    let without_place = |line: &str| line.split_once(": ").expect("a place").1.to_owned();
    let of_file: Vec<_> = errors.lines().map(without_place).collect();
    let of_resource: Vec<_> = refused
        .lines()
        .filter(|line| !line.contains("another file"))
        .map(without_place)
        .collect();
    assert_eq!(of_file.len(), 4, "{errors}");
    assert_eq!(of_resource, of_file);
    assert!(
        refused
            .lines()
            .all(|line| line.starts_with("resource \"the-resource\": first")),
        "{refused}"
    );

    plane.publish("3", &[good]);
    assert_eq!(
        plane.next_answer().await,
        Ok("3".into()),
        "the same rules under another version are no news"
    );
    plane.publish("4", &[]);
    let empty = rules.next().expect("no rules at all are fine");
    assert_eq!((empty.generation, empty.rules.domains.len()), (2, 0));
}

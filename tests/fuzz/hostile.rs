//! Hostile values change nothing but their own counter.

use sluicegate::service::rls::Caller;
use std::collections::BTreeSet;

use proptest::prelude::*;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::telemetry::ServiceKind;
use tonic::{Code, Status};
use wire::rate_limit_response::Code as Answer;

use crate::inputs::bytes;
use crate::{Services, fuzz, services, wait};

const RULES: &str = "
domain: d
descriptors:
  - key: user
    descriptors:
      - {key: tenant, rate_limit: {unit: year, requests_per_unit: 1}}
";

fn ask(services: &Services, user: &[u8], tenant: &[u8]) -> Result<i32, Status> {
    let entry = |key: &[u8], value: &[u8]| common::rate_limit_descriptor::Entry {
        key: key.to_vec(),
        value: value.to_vec(),
    };
    let descriptor = common::RateLimitDescriptor {
        entries: vec![entry(b"user", user), entry(b"tenant", tenant)],
        ..Default::default()
    };
    let request = wire::RateLimitRequest {
        domain: "d".into(),
        descriptors: vec![descriptor],
        ..Default::default()
    };
    let answer = wait(services.rls.answer(ServiceKind::Rls, request, Caller::default()))?;
    Ok(answer.overall_code)
}

#[test]
fn each_pair_of_values_has_a_counter_of_its_own() {
    let pairs = prop::collection::btree_set((bytes(), bytes()), 1..12);
    fuzz(&pairs, |pairs: BTreeSet<(Vec<u8>, Vec<u8>)>| {
        let services = services(RULES);
        for expected in [Answer::Ok, Answer::OverLimit] {
            for (user, tenant) in &pairs {
                let code = ask(&services, user, tenant).expect("within all bounds");
                prop_assert_eq!(code, i32::from(expected), "{:?} {:?} of {:?}", user, tenant, pairs);
            }
        }
        Ok(())
    });
}

#[test]
fn a_megabyte_is_refused_by_name_and_opens_no_metric() {
    let services = services(RULES);
    assert_eq!(ask(&services, b"a", b"b").expect("answered"), i32::from(Answer::Ok));
    for length in [1 << 20, (128 << 10) + 1] {
        let refused = ask(&services, &vec![b'x'; length], b"").expect_err("too long");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().contains("descriptors[0].entries[0].value"),
            "{refused}"
        );
        assert!(refused.message().len() < 200, "{refused}");
    }
    let series = || {
        services
            .metrics
            .encode()
            .expect("metrics")
            .split(|byte| *byte == b'\n')
            .count()
    };
    let before = series();
    for n in 0..1000 {
        ask(&services, format!("{n}\n}}").as_bytes(), b"\0").expect("answered");
    }
    assert_eq!(series(), before);
}

//! What variables do to the counting of hits: quota, the old windows, charges above what is left.

use sluicegate::proto::envoy::{
    extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride,
    service::ratelimit::v3::rate_limit_response::Code, r#type::v3::RateLimitUnit,
};

use super::{Server, request};

#[tokio::test]
async fn quota_mode_makes_every_rule_a_quota() {
    let mut server = Server::start(&[("QUOTA_MODE", "true")]).await;
    for _ in 0..2 {
        server.ask(&[("user", "u")], None).await;
    }
    let one_left = server.ask(&[("user", "u"), ("user", "v")], None).await;
    assert_eq!(
        (one_left.overall_code(), one_left.statuses[0].code()),
        (Code::Ok, Code::OverLimit)
    );
    assert_eq!(server.ask(&[("user", "u")], None).await.overall_code(), Code::OverLimit);
    // Limits that requests bring, too.
    let mut with_own = request(&[("own", "x"), ("user", "w")], None);
    with_own.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 0,
        unit: RateLimitUnit::Hour.into(),
        ..Default::default()
    });
    let response = server.client.should_rate_limit(with_own).await.expect("an answer");
    let response = response.into_inner();
    assert_eq!(
        (response.overall_code(), response.statuses[0].code()),
        (Code::Ok, Code::OverLimit)
    );
}

#[tokio::test]
async fn the_old_windows_and_the_old_counting_are_a_setting_away() {
    let server = Server::start(&[("DEFAULT_ALGORITHM", "fixed_window"), ("COUNT_DENIED", "true")]).await;
    let rules = server.process.debug().get("/rlconfig", &[]).await.body;
    assert_eq!(rules.matches("fixed_window").count(), 3, "{rules}");
    assert_eq!(rules.matches("count_denied: true").count(), 3, "{rules}");
}

/// As gateways for language models do it: what a request cost is known, and charged, when it is over.
#[tokio::test]
async fn a_charge_above_what_is_left_uses_it_up() {
    for variables in [
        [].as_slice(),
        &[("DEFAULT_ALGORITHM", "token_bucket")],
        &[("COUNT_DENIED", "true")],
        &[("DEFAULT_ALGORITHM", "fixed_window"), ("COUNT_DENIED", "true")],
    ] {
        let mut server = Server::start(variables).await;
        let service = [("service", "service_2")];
        for (hits, expected) in [
            (0, Code::Ok),
            (1, Code::Ok),
            (0, Code::Ok),
            (500, Code::OverLimit),
            (0, Code::OverLimit),
        ] {
            let code = server.ask(&service, Some(hits)).await.overall_code();
            assert_eq!(code, expected, "{hits} hits, {variables:?}");
        }
    }
}

/// `COUNT_DENIED` holds for limits that requests bring themselves, too.
#[tokio::test]
async fn denied_hits_of_a_requests_own_limit_count_if_all_do() {
    for (variables, expected) in [
        (&[("COUNT_DENIED", "true")][..], Code::OverLimit),
        (
            &[("COUNT_DENIED", "true"), ("DEFAULT_ALGORITHM", "fixed_window")],
            Code::OverLimit,
        ),
        (&[], Code::Ok),
    ] {
        let mut server = Server::start(variables).await;
        let mut codes = Vec::new();
        for hits in [6, 6, 1] {
            let mut request = request(&[("own", "x")], Some(hits));
            request.descriptors[0].limit = Some(RateLimitOverride {
                requests_per_unit: 10,
                unit: RateLimitUnit::Day.into(),
                ..Default::default()
            });
            let answer = server.client.should_rate_limit(request).await.expect("an answer");
            codes.push(answer.into_inner().overall_code());
        }
        assert_eq!(codes, [Code::Ok, Code::OverLimit, expected], "{variables:?}");
    }
}

/// Without this setting a number of hits is a request, and one that is denied takes nothing; with it, it is one still
/// where nobody has looked first.
#[tokio::test]
async fn hits_that_are_asked_for_are_not_charged() {
    for (variables, first) in [([("CHARGE_AFTER_PEEK", "false")].as_slice(), Some(0)), (&[], Some(1))] {
        let mut server = Server::start(variables).await;
        let user = [("user", "u")];
        server.ask(&user, first).await;
        assert_eq!(server.ask(&user, Some(500)).await.overall_code(), Code::OverLimit);
        assert_eq!(server.ask(&user, Some(1)).await.overall_code(), Code::Ok);
    }
}

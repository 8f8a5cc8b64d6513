//! A hash in the store's Redis.

use crate::support::redis::Redis;
use crate::{Shop, until};

#[tokio::test]
async fn a_hash_is_read_whenever_its_version_changes() {
    let mut redis = Redis::start();
    // Far more than one step of a scan.
    let fields: Vec<String> = (0..3000).flat_map(|at| [format!("t{at}"), "pro".to_owned()]).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    redis.cli(&[&["HSET", "sg:tenants"], fields.as_slice()].concat());
    let shop = Shop::start(
        "{ redis: { hash: \"sg:tenants\" } }",
        &["--store", "redis", "--redis-url", &redis.url()],
    );
    shop.until_plan("t2999", "pro").await;
    assert_eq!(shop.metric("sluicegate_plan_source_entries", "").await, Some(3000.0));
    assert_eq!(shop.passes("t1").await, 3);
    assert_eq!(shop.passes("nobody").await, 1);

    redis.cli(&["HSET", "sg:tenants", "t1", "5/hour", "late", "pro,2020-01-01T00:00:00Z"]);
    redis.cli(&["INCR", "sg:tenants:version"]);
    shop.until_plan("t1", "5/hour").await;
    assert_eq!(shop.explain("late").await["plan"]["by_default"], true);

    redis.cli(&["HSET", "sg:tenants", "t1", "gold"]);
    redis.cli(&["INCR", "sg:tenants:version"]);
    shop.until_stale(true).await;
    assert_eq!(shop.explain("t1").await["plan"]["name"], "5/hour");
    shop.until_logged("no plan has this name").await;

    // Of another type, gone, and Redis itself away.
    redis.cli(&["DEL", "sg:tenants"]);
    redis.cli(&["SET", "sg:tenants", "text"]);
    redis.cli(&["INCR", "sg:tenants:version"]);
    until("another type", async || shop.server.process.log().contains("WRONGTYPE")).await;
    redis.cli(&["DEL", "sg:tenants"]);
    redis.cli(&["INCR", "sg:tenants:version"]);
    until("gone", async || {
        shop.server.process.log().contains("there is no such hash")
    })
    .await;
    redis.kill();
    let errors = shop.reads("error").await;
    until("away", async || shop.reads("error").await > errors).await;
    assert_eq!(shop.explain("t2").await["plan"]["name"], "pro");
    redis.restart();
    redis.cli(&["HSET", "sg:tenants", "t2", "all"]);
    shop.until_plan("t2", "all").await;
    shop.until_stale(false).await;
}

#[tokio::test]
async fn without_redis_it_is_said() {
    let shop = Shop::start("{ redis: { hash: \"sg:tenants\" } }", &[]);
    shop.until_stale(true).await;
    shop.until_logged("it needs a store in Redis").await;
    assert_eq!(shop.passes("acme").await, 1);
}

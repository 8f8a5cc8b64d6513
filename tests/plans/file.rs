//! A file of tenants.

use std::fs;

use crate::support::sluicegate::run;
use crate::{Shop, rules, until};

const TENANTS: &str = "# tenant, plan or limit, until\nacme,pro\nbig,all\nown,5/hour\n\"a,b\",\"pro\",\nq, \"2/hour\" , \"2999-01-01T00:00:00Z\"\nold,pro,2020-01-01T00:00:00Z\nnew,pro,2999-01-01T00:00:00+01:00\n";

#[tokio::test]
async fn each_value_has_its_plan_and_the_others_the_default() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tenants.csv");
    fs::write(&path, TENANTS).expect("the file");
    let shop = Shop::start(&format!("{{ file: {} }}", path.display()), &[]);
    let cases = [
        ("acme", 3),
        ("big", 10),
        ("own", 5),
        ("a,b", 3),
        ("q", 2),
        ("old", 1),
        ("new", 3),
        ("nobody", 1),
    ];
    for (tenant, passes) in cases {
        assert_eq!(shop.passes(tenant).await, passes, "{tenant}");
    }
    // Two tenants without a plan, ten requests each.
    assert_eq!(shop.metric("sluicegate_plan_defaults_total", "").await, Some(20.0));
    assert_eq!(shop.metric("sluicegate_plan_source_entries", "").await, Some(7.0));
    let explained = shop.explain("own").await;
    assert_eq!(
        explained["plan"],
        serde_json::json!({"source": "tenants", "name": "5/hour", "by_default": false, "expired": false})
    );
    assert_eq!(explained["counter"]["limit"], 5);
    let explained = shop.explain("nobody").await;
    assert_eq!(
        explained["plan"],
        serde_json::json!({"source": "tenants", "name": "free", "by_default": true, "expired": false})
    );
    assert_eq!(shop.explain("old").await["plan"]["expired"], true);
    let unlimited = shop.explain("big").await;
    assert_eq!(
        (&unlimited["outcome"], &unlimited["plan"]["name"]),
        (&"unlimited".into(), &"all".into())
    );
    let told = |tenant: &str| {
        let admin = format!("http://127.0.0.1:{}", shop.server.admin_port);
        let entry = format!("tenant={tenant}");
        let output = run(
            directory.path(),
            &["explain", "--admin", &admin, "--domain", "shop", &entry],
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (old, big) = (told("old"), told("big"));
    assert!(
        old.contains("plan free by default, because the value's entry in tenants has expired"),
        "{old}"
    );
    assert!(
        big.contains("unlimited by rule") && big.contains("plan all of tenants"),
        "{big}"
    );
    // It counts nothing.
    assert_eq!(shop.metric("sluicegate_plan_defaults_total", "").await, Some(20.0));
    let dump = shop.admin.get("/rlconfig", &[]).await.body;
    assert!(
        dump.contains(&format!("plan_from: tenants (file {}), default: free", path.display())),
        "{dump}"
    );
    assert!(
        dump.contains("# shop.tenants plan pro: 3 per hour by token_bucket, burst 3"),
        "{dump}"
    );
}

#[tokio::test]
async fn a_change_comes_into_force_and_what_is_wrong_does_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tenants.csv");
    fs::write(&path, "acme,pro\n").expect("the file");
    let shop = Shop::start(&format!("{{ file: {} }}", path.display()), &[]);
    shop.until_plan("acme", "pro").await;
    fs::write(&path, "acme,free\nother,pro\n").expect("the file");
    shop.until_plan("other", "pro").await;
    shop.until_plan("acme", "free").await;

    // Each is wrong as a whole: the last good one stays.
    let wrong: [(&str, &[u8]); 8] = [
        ("a tenant twice", b"acme,pro\nother,pro\nacme,free\n"),
        ("cut off in a name", b"acme,free\nother,pr"),
        ("cut off behind a name", b"acme,pro"),
        ("no such plan", b"acme,gold\nother,pro\n"),
        ("no limit", b"acme,100/fortnight\n"),
        ("no time", b"acme,pro,tomorrow\n"),
        ("no text", b"\xff\xfe,pro\n"),
        ("empty", b""),
    ];
    for (before, (what, text)) in wrong.into_iter().enumerate() {
        let errors = shop.reads("error").await;
        fs::write(&path, text).expect("the file");
        until(what, async || shop.reads("error").await > errors).await;
        shop.until_stale(true).await;
        assert_eq!(shop.explain("other").await["plan"]["name"], "pro", "{what}");
        until("it is said once more", async || {
            let log = shop.server.process.log();
            log.matches("its last good entries stay in force").count() == before + 1
        })
        .await;
    }
    shop.until_logged("tenants.csv:3:1: `value` \"acme\" cannot be used: this value has an entry already")
        .await;

    // Away, and something else.
    fs::remove_file(&path).expect("removed");
    let errors = shop.reads("error").await;
    until("away", async || shop.reads("error").await > errors).await;
    fs::create_dir(&path).expect("a directory in its place");
    until("a directory", async || {
        shop.server.process.log().contains("it is no file")
    })
    .await;
    assert_eq!(shop.explain("other").await["plan"]["name"], "pro");

    fs::remove_dir(&path).expect("removed");
    fs::write(&path, "other,all\n").expect("the file");
    shop.until_plan("other", "all").await;
    shop.until_stale(false).await;
    shop.until_logged("can be read again").await;
}

/// A reload of the rules keeps what was read, though the file is wrong by now; the numbers of a plan are those of the rules.
#[tokio::test]
async fn rules_and_tables_change_each_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tenants.csv");
    fs::write(&path, "acme,pro\nbig,all\n").expect("the file");
    let source = format!("{{ file: {} }}", path.display());
    let shop = Shop::start(&source, &[]);
    shop.until_plan("acme", "pro").await;
    fs::write(&path, "acme,nothing\n").expect("the file");
    shop.until_stale(true).await;
    let changed = rules(&source).replace("pro: { requests_per_unit: 3", "pro: { requests_per_unit: 4");
    fs::write(&shop.server.rules, changed.replace("  all: { unlimited: true }\n", "")).expect("the rules");
    until("the new number", async || {
        shop.explain("acme").await["counter"]["limit"] == 4
    })
    .await;
    assert_eq!(shop.passes("acme").await, 4);
    // The rules have its plan no more.
    assert_eq!(shop.explain("big").await["plan"]["by_default"], true);
    // Without the source there is nothing to be stale.
    let without = "domain: shop\ndescriptors:\n  - {key: tenant, rate_limit: {requests_per_unit: 7, unit: hour}}\n";
    fs::write(&shop.server.rules, without).expect("the rules");
    until("no source", async || {
        shop.metric("sluicegate_plan_source_stale", "").await.is_none()
    })
    .await;
    let health = shop.admin.get("/healthcheck?details", &[]).await;
    assert_eq!(health.json()["stale_plan_sources"], serde_json::json!([]));
}

#[test]
fn check_diff_and_tests_of_rules_read_the_file_beside_the_rules() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
    write("rules.yaml", &rules("{ file: tenants.csv }"));
    write("tenants.csv", TENANTS);
    let output = run(directory.path(), &["check", "rules.yaml"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    write(
        "rules.test.yaml",
        "rules: [rules.yaml]\ndomain: shop\ntests:\n  - name: plans\n    steps:\n      - { times: 3, request: { descriptors: [[{ tenant: \
         acme }]] }, expect: allowed }\n      - { request: { descriptors: [[{ tenant: acme }]] }, expect: denied }\n      - { request: { \
         descriptors: [[{ tenant: nobody }]] }, expect: allowed }\n      - { request: { descriptors: [[{ tenant: nobody }]] }, expect: denied \
         }\n",
    );
    let output = run(directory.path(), &["test", "rules.test.yaml"]);
    assert!(output.status.success(), "{output:?}");
    write(
        "new.yaml",
        &rules("{ file: other.csv }").replace("pro: { requests_per_unit: 3", "pro: { requests_per_unit: 4"),
    );
    write("other.csv", "acme,pro\n");
    let output = run(directory.path(), &["check", "--diff", "rules.yaml", "new.yaml"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("plan pro: 3 per hour by token_bucket, burst 3 → 4 per hour by token_bucket, burst 4"),
        "{said}"
    );
    assert!(
        said.contains("plans come from file other.csv, not from file tenants.csv"),
        "{said}"
    );
    write("tenants.csv", "acme,pro\nacme,gold\n");
    let output = run(directory.path(), &["check", "rules.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("tenants.csv:2:1: "), "{said}");
    assert!(
        said.contains("no plan has this name; there are: free, pro, all"),
        "{said}"
    );
}

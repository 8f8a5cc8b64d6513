//! A file of tenants.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::certs::Volume;
use crate::support::sluicegate::{Sluicegate, run};
use crate::{Shop, rules, until};

const TENANTS: &str = "# tenant, plan or limit, until\nacme,pro\nbig,all\nown,5/hour\n\"a,b\",\"pro\",\nq, \"2/hour\" , \"2999-01-01T00:00:00Z\"\nold,pro,2020-01-01T00:00:00Z\nnew,pro,2999-01-01T00:00:00+01:00\n";

/// A file of tenants with this text, where it is, and how rules name it.
fn tenants(text: &str) -> (TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tenants.csv");
    fs::write(&path, text).expect("the file");
    let source = format!("{{ file: {} }}", path.display());
    (directory, path, source)
}

#[tokio::test]
async fn each_value_has_its_plan_and_the_others_the_default() {
    let (directory, path, source) = tenants(TENANTS);
    let shop = Shop::start(&source, &[]);
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
    let (_directory, path, source) = tenants("acme,pro\n");
    let shop = Shop::start(&source, &[]);
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
    let (_directory, path, source) = tenants("acme,pro\nbig,all\n");
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

/// A tenant whom nobody has entered is seen, also where that limits nothing.
#[tokio::test]
async fn an_unlimited_default_is_counted_too() {
    let (_directory, _, source) = tenants("acme,pro\n");
    let rules = rules(&source).replace("default: free", "default: all");
    let shop = Shop::of(Sluicegate::start(&rules, &[]));
    assert_eq!(shop.passes("acme").await, 3);
    assert_eq!(shop.passes("nobody").await, 10);
    assert_eq!(shop.metric("sluicegate_plan_defaults_total", "").await, Some(10.0));
}

/// As careful exporters and Kubernetes do it.
#[tokio::test]
async fn a_file_renamed_over_and_the_links_of_a_config_map() {
    let volume = Volume::new(&[("tenants.csv", "acme,pro\n")]);
    let shop = Shop::start(&format!("{{ file: {} }}", volume.path("tenants.csv").display()), &[]);
    shop.until_plan("acme", "pro").await;
    volume.replace(&[("tenants.csv", "acme,free\nother,all\n")]);
    shop.until_plan("other", "all").await;
    assert_eq!(shop.explain("acme").await["plan"]["name"], "free");

    let (directory, path, source) = tenants("acme,pro\n");
    let shop = Shop::start(&source, &[]);
    shop.until_plan("acme", "pro").await;
    let next = directory.path().join("tenants.csv.next");
    fs::write(&next, "acme,free\nother,all\n").expect("the file");
    fs::rename(&next, &path).expect("the swap");
    shop.until_plan("other", "all").await;
    assert_eq!(shop.explain("acme").await["plan"]["name"], "free");
}

/// Line by line, each a good table so far: none of them comes into force but the last. The writer keeps the file open for longer
/// than one look waits, or opens it for each line.
#[tokio::test(flavor = "multi_thread")]
async fn no_half_of_a_file_comes_into_force() {
    for keeps_open in [true, false] {
        let lines = if keeps_open { 240 } else { 100 };
        // Unless the machine did not let the writer write: then nobody could have known that it was not done.
        while !written_slowly(keeps_open, lines).await {}
    }
}

/// Whether the writer never paused for long.
async fn written_slowly(keeps_open: bool, lines: usize) -> bool {
    let (_directory, path, source) = tenants("acme,pro\n");
    let shop = Shop::start(&source, &[]);
    shop.until_plan("acme", "pro").await;
    let writer = std::thread::spawn(move || {
        let mut file = fs::File::create(&path).expect("the file");
        let mut longest = Duration::ZERO;
        let mut last = Instant::now();
        for line in 0..lines {
            if !keeps_open {
                let mut options = fs::OpenOptions::new();
                file = options.append(true).open(&path).expect("the file");
            }
            writeln!(file, "t{line},all").expect("written");
            if !keeps_open {
                drop(file);
                file = fs::File::open("/dev/null").expect("a file");
            }
            longest = longest.max(last.elapsed());
            last = Instant::now();
            std::thread::sleep(Duration::from_millis(30));
        }
        longest
    });
    while !writer.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let longest = writer.join().expect("no panic");
    shop.until_plan(&format!("t{}", lines - 1), "all").await;
    if !keeps_open && longest > Duration::from_millis(90) {
        return false;
    }
    let log = shop.server.process.log();
    let in_force: Vec<&str> = log.lines().filter(|line| line.contains("plans in force")).collect();
    assert_eq!(in_force.len(), 2, "{in_force:#?}");
    true
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
    write("other.csv", "acme,pro\nown,free\nlate,7/minute\n");
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
    for expected in [
        "shop: source tenants: old has no entry any more, it had plan pro until 2020-01-01T00:00:00Z",
        "shop: source tenants: new entry late: 7/minute",
        "shop: source tenants: own has plan free, not 5/hour",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("acme has"), "{said}");
    let many: String = (0..30).map(|n| format!("t{n},pro\n")).collect();
    write("other.csv", &format!("{TENANTS}{many}"));
    let output = run(directory.path(), &["check", "--diff", "rules.yaml", "new.yaml"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("new entry t19: plan pro") && said.contains("and 10 more entries differ"),
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

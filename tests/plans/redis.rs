//! A hash in the store's Redis.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::redis::{Redis, cli};
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
    shop.until_logged("Redis hash sg:tenants: t1: `plan` \"gold\" cannot be used: no plan has this name")
        .await;

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

/// Passes what the server says on to Redis, and notes its commands that read plans. Before the third page of a scan on which
/// one waits, something happens.
struct Between {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    pages: usize,
    looks: usize,
    then: Option<Box<dyn FnOnce() + Send>>,
}

impl Between {
    async fn start(redis: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Seen>>::default();
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = Arc::clone(&all);
                tokio::spawn(pass_on(client, redis, seen));
            }
        });
        Self { port, seen }
    }

    /// What is to happen in the middle of the next scan.
    fn in_the_next_scan(&self, then: impl FnOnce() + Send + 'static) {
        *self.seen.lock().expect("no panic") = Seen {
            then: Some(Box::new(then)),
            ..Seen::default()
        };
    }

    fn has_happened(&self) -> bool {
        self.seen.lock().expect("no panic").then.is_none()
    }

    /// Pages of scans, and looks at the version, since it happened.
    fn since(&self) -> (usize, usize) {
        let seen = self.seen.lock().expect("no panic");
        (seen.pages, seen.looks)
    }
}

async fn pass_on(client: TcpStream, redis: u16, seen: Arc<Mutex<Seen>>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", redis)).await?;
    let (mut asked, mut answers) = client.into_split();
    let (mut answering, mut asks) = server.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut answering, &mut answers).await;
    });
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = asked.read(&mut bytes).await?;
        if read == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
        let then = {
            let mut seen = seen.lock().expect("no panic");
            seen.pages += text.matches("HSCAN").count();
            seen.looks += usize::from(text.contains("sg:tenants:version"));
            match seen.pages {
                3.. => seen.then.take().inspect(|_| {
                    (seen.pages, seen.looks) = (0, 0);
                }),
                _ => None,
            }
        };
        if let Some(then) = then {
            tokio::task::spawn_blocking(then).await.expect("no panic");
        }
        asks.write_all(&bytes[..read]).await?;
    }
    back.abort();
    Ok(())
}

/// `HSET` of so many tenants with this plan.
fn fill(redis: &Redis, key: &str, count: usize, plan: &str) {
    let fields: Vec<String> = (0..count).flat_map(|at| [format!("t{at}"), plan.to_owned()]).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    redis.cli(&[&["HSET", key], fields.as_slice()].concat());
}

/// A shop that reads its hash of 3000 tenants through something between.
async fn shop_of(redis: &Redis, between: &Between) -> Shop {
    fill(redis, "sg:tenants", 3000, "pro");
    let url = format!("redis://127.0.0.1:{}", between.port);
    let shop = Shop::start(
        "{ redis: { hash: \"sg:tenants\" } }",
        &["--store", "redis", "--redis-url", &url],
    );
    shop.until_plan("t2999", "pro").await;
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_in_a_scan_delays_nothing() {
    let redis = tokio::task::block_in_place(Redis::start);
    let between = Between::start(redis.port).await;
    let shop = shop_of(&redis, &between).await;
    let port = redis.port;
    between.in_the_next_scan(move || {
        cli(port, &["CLIENT", "KILL", "TYPE", "normal"]);
    });
    redis.cli(&["HSET", "sg:tenants", "t1", "5/hour"]);
    redis.cli(&["INCR", "sg:tenants:version"]);
    until("the connection is lost", async || between.has_happened()).await;
    until("it is read again", async || between.since().0 > 0).await;
    let (_, looks) = between.since();
    assert!(looks < 10, "only after {looks} looks at an unchanged version");
    shop.until_plan("t1", "5/hour").await;
    shop.until_stale(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_replaced_in_a_scan_is_read_as_a_whole() {
    let redis = tokio::task::block_in_place(Redis::start);
    let between = Between::start(redis.port).await;
    let shop = shop_of(&redis, &between).await;
    fill(&redis, "sg:next", 2000, "all");
    let port = redis.port;
    between.in_the_next_scan(move || {
        let swap = "redis.call('RENAME', KEYS[1], KEYS[2]) return redis.call('INCR', KEYS[3])";
        cli(
            port,
            &["EVAL", swap, "3", "sg:next", "sg:tenants", "sg:tenants:version"],
        );
    });
    redis.cli(&["INCR", "sg:tenants:version"]);
    until("it is replaced", async || between.has_happened()).await;
    shop.until_plan("t0", "all").await;
    until("2000 entries", async || {
        shop.metric("sluicegate_plan_source_entries", "").await == Some(2000.0)
    })
    .await;
    let log = shop.server.process.log();
    let in_force: Vec<&str> = log.lines().filter(|line| line.contains("plans in force")).collect();
    assert_eq!(in_force.len(), 2, "{in_force:#?}");
}

/// A version that changes all the time must not keep entries out for ever.
#[tokio::test(flavor = "multi_thread")]
async fn entries_whose_version_never_rests_come_into_force_all_the_same() {
    let redis = tokio::task::block_in_place(Redis::start);
    let between = Between::start(redis.port).await;
    let shop = shop_of(&redis, &between).await;
    redis.cli(&["HSET", "sg:tenants", "t1", "5/hour"]);
    let stop = Arc::new(AtomicBool::new(false));
    let (port, stopped) = (redis.port, Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            cli(port, &["INCR", "sg:tenants:version"]);
        }
    });
    shop.until_plan("t1", "5/hour").await;
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("no panic");
}

#[tokio::test]
async fn without_redis_it_is_said() {
    let shop = Shop::start("{ redis: { hash: \"sg:tenants\" } }", &[]);
    shop.until_stale(true).await;
    shop.until_logged("it needs a store in Redis").await;
    assert_eq!(shop.passes("acme").await, 1);
}

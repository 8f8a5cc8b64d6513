//! Many at once: of a limit of 1000, exactly 1000 pass.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use sluicegate::model::{AlgorithmKind, CounterKey, Hits};

use crate::subject::{Open, Subject, fresh_key, redis_at, shared_server, single};
use crate::traces;

/// Standing still, so that nothing refills meanwhile; on no edge of any window.
const NOW_US: u64 = 1_763_000_000_123_456;
const LIMIT: u64 = 1000;
const DAY: u32 = 86_400;

/// Takes from many tasks; returns how many were admitted.
fn hammer(subject: &Subject, key: &CounterKey, algorithm: AlgorithmKind, tasks: u64, takes: u64) -> u64 {
    let limit = traces::limit(algorithm, LIMIT, DAY);
    subject.clock.set(NOW_US);
    let transaction = Arc::new(single(key, limit, Hits::Acquire(1)));
    subject.runtime.block_on(async {
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let (store, transaction) = (subject.store.clone(), transaction.clone());
                tokio::spawn(async move {
                    let mut admitted = 0;
                    for _ in 0..takes {
                        let outcomes = store.check(&transaction).await.expect("an answer");
                        admitted += u64::from(outcomes[0].allowed);
                        tokio::task::yield_now().await;
                    }
                    admitted
                })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.expect("a task that ends");
        }
        sum
    })
}

/// What an unused counter admits: 1000, but for the leaky bucket, which says it itself.
fn quota(subject: &Subject, algorithm: AlgorithmKind) -> u64 {
    let limit = traces::limit(algorithm, LIMIT, DAY);
    let quota = subject.one(NOW_US, &fresh_key(), limit, Hits::Peek).remaining;
    assert!(quota == LIMIT || algorithm == AlgorithmKind::LeakyBucket);
    quota
}

/// 64 tasks on one store.
pub fn tasks(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    let admitted = hammer(&subject, &fresh_key(), algorithm, 64, 25);
    assert_eq!(admitted, quota(&subject, algorithm));
}

/// Two processes on one Redis.
#[test]
fn two_processes() {
    let server = shared_server();
    for algorithm in AlgorithmKind::ALL {
        let key = fresh_key();
        let mut workers = [0, 1].map(|_| Worker::start(&server.url(), &key, algorithm));
        for worker in &mut workers {
            assert_eq!(worker.line(), "ready");
        }
        for worker in &mut workers {
            worker.go();
        }
        let admitted: Vec<u64> = workers
            .iter_mut()
            .map(|worker| worker.line().parse().expect("a number"))
            .collect();
        let subject = redis_at(server.clone());
        let quota = quota(&subject, algorithm);
        assert_eq!(admitted.iter().sum::<u64>(), quota, "{algorithm}: {admitted:?}");
    }
}

const WORKER: &str = "SLUICEGATE_TEST_RACE";

/// This test binary once more, as [`worker`].
struct Worker {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Worker {
    fn start(url: &str, key: &CounterKey, algorithm: AlgorithmKind) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test binary"))
            .args(["--exact", "races::worker", "--ignored", "--nocapture", "--quiet"])
            .env(WORKER, format!("{url} {key} {algorithm}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    /// The next line that is meant for us; the test harness prints too.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("a line") > 0, "the worker ended");
            if let Some((_, word)) = line.trim_end().rsplit_once("race: ") {
                return word.to_owned();
            }
        }
    }

    fn go(&mut self) {
        let mut input = self.child.stdin.take().expect("its input");
        input.write_all(b"go\n").expect("a worker that listens");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of two processes.
#[test]
#[ignore = "run by two_processes, in a process of its own"]
#[allow(clippy::print_stdout, reason = "how it talks to the process that started it")]
fn worker() {
    let Ok(task) = std::env::var(WORKER) else { return };
    let [url, key, algorithm] = task.splitn(3, ' ').collect::<Vec<_>>().try_into().expect("three words");
    let subject = crate::subject::redis_client(url);
    let algorithm = AlgorithmKind::parse(algorithm).expect("an algorithm");
    subject.one(NOW_US, &fresh_key(), traces::limit(algorithm, LIMIT, DAY), Hits::Peek);
    println!("race: ready");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .expect("the start");
    let admitted = hammer(&subject, &CounterKey::from_raw(key), algorithm, 32, 25);
    println!("race: {admitted}");
}

//! Per-core runtimes: one single-threaded runtime for each core. A connection, its streams and their timers live on one
//! of them from accept to close.
//!
//! Why not one work-stealing runtime: a call is a few microseconds of work, and moving its task to another thread (a
//! lock, a wake-up, cold caches) costs about as much again. See docs/performance.md for the figures.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads; dropping this ends and joins them. Tasks that still run then are dropped.
#[derive(Debug)]
pub struct Cores {
    cores: Vec<Core>,
    end: CancellationToken,
}

#[derive(Debug)]
struct Core {
    handle: Handle,
    tasks: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// Counts one task of a core until it is dropped.
struct TaskCount(Arc<AtomicUsize>);

impl TaskCount {
    fn add(tasks: &Arc<AtomicUsize>) -> Self {
        tasks.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tasks))
    }
}

impl Drop for TaskCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cores {
    /// Starts `count` threads; for 0, tasks run on the runtime that calls this.
    ///
    /// # Errors
    /// When the operating system refuses a thread or its event queue.
    pub fn start(count: usize) -> io::Result<Self> {
        let end = CancellationToken::new();
        let cores = match count {
            0 => vec![Core::of_caller()],
            _ => (0..count)
                .map(|n| Core::start(n, end.clone()))
                .collect::<io::Result<_>>()?,
        };
        Ok(Self { cores, end })
    }

    /// Runs a task on the core that has the fewest. Sockets and timers of the task must be opened inside it, since they
    /// belong to that core's runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(core) = self.cores.iter().min_by_key(|core| core.tasks.load(Ordering::Relaxed)) else {
            return;
        };
        let count = TaskCount::add(&core.tasks);
        // Boxed, because an async block stores a future that it captures and then awaits twice.
        let task = Box::pin(task);
        core.handle.spawn(async move {
            task.await;
            drop(count);
        });
    }
}

impl Core {
    fn of_caller() -> Self {
        Self {
            handle: Handle::current(),
            tasks: Arc::default(),
            thread: None,
        }
    }

    fn start(n: usize, end: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(format!("grpc-{n}"))
            .spawn(move || runtime.block_on(end.cancelled()))?;
        Ok(Self {
            handle,
            tasks: Arc::default(),
            thread: Some(thread),
        })
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        self.end.cancel();
        for thread in self.cores.iter_mut().filter_map(|core| core.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a gRPC thread ended by a panic");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_task_runs_on_the_core_with_the_fewest() {
        let cores = Cores::start(2).unwrap();
        let (names, seen) = mpsc::channel();
        let hold = CancellationToken::new();
        for _ in 0..4 {
            let (names, hold) = (names.clone(), hold.clone());
            cores.spawn(async move {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                names.send(name).unwrap();
                hold.cancelled().await;
            });
        }
        let mut seen: Vec<_> = seen.iter().take(4).collect();
        seen.sort();
        assert_eq!(seen, ["grpc-0", "grpc-0", "grpc-1", "grpc-1"]);
        hold.cancel();
    }
}

//! A runtime of low priority: one thread that the operating system schedules after those that decide, for work that may take
//! only the rest of the cores' time.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// The thread's `nice` value: it gets a tenth of a core that decisions need, so that health and metrics are answered even when
/// the machine is fully loaded.
const NICE: i32 = 10;

/// The runtime; dropping this ends its tasks.
#[derive(Debug)]
pub struct BackgroundRuntime(Option<Runtime>);

impl BackgroundRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system refuses the thread or its event queue.
    pub fn start(name: &str) -> io::Result<Self> {
        // Not a single-threaded runtime: those get connections to the store of their own.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .on_thread_start(|| {
                // On Linux the value applies to this thread, not to the process.
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::debug!(%error, "the background thread could not get a lower priority; it runs with the normal one");
                }
            })
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a task on the runtime; the returned future waits for its end, and aborts it when it is dropped.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        let handle = self
            .0
            .as_ref()
            .map(|runtime| AbortOnDropHandle::new(runtime.spawn(task)));
        async move {
            let Some(handle) = handle else { return };
            if let Err(error) = handle.await {
                tracing::error!(%error, "a task of a listener ended by a panic");
            }
        }
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // To wait for the thread would block the runtime that drops this.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_task_runs_on_a_thread_of_lower_priority() {
        let runtime = BackgroundRuntime::start("background").unwrap();
        let (sender, receiver) = oneshot::channel();
        let here = rustix::process::getpriority_process(None).unwrap();
        runtime
            .run(async move {
                let name = std::thread::current().name().map(str::to_owned);
                let _ = sender.send((name, rustix::process::getpriority_process(None).unwrap()));
            })
            .await;
        let (name, there) = receiver.await.unwrap();
        assert_eq!(name.as_deref(), Some("background"));
        assert_eq!(there, (here + NICE).min(19));
        assert_eq!(
            rustix::process::getpriority_process(None).unwrap(),
            here,
            "only that thread"
        );
    }

    #[tokio::test]
    async fn a_task_is_aborted_when_its_future_is_dropped() {
        let runtime = BackgroundRuntime::start("background").unwrap();
        let (held, ended) = oneshot::channel::<()>();
        drop(runtime.run(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
        assert!(ended.await.is_err(), "dropped with its task");
    }
}

//! A runtime beside those that decide: one thread that the operating system runs after theirs, for work that may take what
//! is left of the cores, but not their time.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// How far the thread stands back (`nice`): it gets a tenth of a core that a decision wants, too, so that health and metrics
/// are answered even when the machine is full.
const NICE: i32 = 10;

/// The runtime; dropping this ends its tasks.
#[derive(Debug)]
pub struct Aside(Option<Runtime>);

impl Aside {
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
                // On Linux this is the thread's own, not the process'. Without it the work is done all the same.
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::debug!(%error, "a thread could not be made to stand back");
                }
            })
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a task there, and waits for its end. The task ends, too, when nobody waits any more.
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

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A runtime may not be waited for where others run.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_is_done_on_a_thread_that_stands_back() {
        let aside = Aside::start("aside").unwrap();
        let (sender, receiver) = oneshot::channel();
        let here = rustix::process::getpriority_process(None).unwrap();
        aside
            .run(async move {
                let name = std::thread::current().name().map(str::to_owned);
                let _ = sender.send((name, rustix::process::getpriority_process(None).unwrap()));
            })
            .await;
        let (name, there) = receiver.await.unwrap();
        assert_eq!(name.as_deref(), Some("aside"));
        assert_eq!(there, (here + NICE).min(19));
        assert_eq!(
            rustix::process::getpriority_process(None).unwrap(),
            here,
            "only that thread"
        );
    }

    #[tokio::test]
    async fn a_task_that_nobody_waits_for_ends() {
        let aside = Aside::start("aside").unwrap();
        let (held, ended) = oneshot::channel::<()>();
        drop(aside.run(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
        assert!(ended.await.is_err(), "dropped with its task");
    }
}

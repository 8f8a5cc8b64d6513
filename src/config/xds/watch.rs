//! Rules from a control plane, as [`mod@super::super::watch`] does it for files: a thread of its own, events for every
//! change, ended by drop.

use std::sync::Arc;
use std::{io, thread};

use prost::Message;
use tokio::runtime;
use tokio::sync::oneshot;

use super::super::load::Summary;
use super::super::settings::XdsSettings;
use super::super::watch::{Event, Loaded};
use super::client::XdsClient;
use super::update::Update;
use crate::rules::Defaults;
use crate::tls::TlsError;

/// Stays connected until dropped.
#[derive(Debug)]
pub struct XdsWatch {
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Why a control plane cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum XdsError {
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No thread.
    #[error("no thread for the control plane: {0}")]
    Thread(#[from] io::Error),
}

/// Connects to a control plane; `on_event` hears of everything it sends, on a thread of its own.
///
/// # Errors
/// When certificates cannot be used, or no thread can be started. A control plane that cannot be reached is no error.
pub fn watch_xds(
    settings: XdsSettings,
    defaults: Defaults,
    on_event: impl FnMut(Event) + Send + 'static,
) -> Result<XdsWatch, XdsError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let client = XdsClient::new(settings)?;
    drop(entered);
    let (stop, stopped) = oneshot::channel();
    let mut rules = Rules {
        defaults,
        loaded: None,
        generation: 0,
        on_event,
    };
    let thread = thread::Builder::new().name("rules-xds".into()).spawn(move || {
        runtime.block_on(async move {
            tokio::select! {
                () = client.run(|update| rules.apply(update)) => {}
                // Also when the sender is gone.
                _ = stopped => {}
            }
        });
    })?;
    Ok(XdsWatch {
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl Drop for XdsWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked, which has been reported.
            let _ = thread.join();
        }
    }
}

struct Rules<F> {
    defaults: Defaults,
    /// Digest of what is in force.
    loaded: Option<[u8; 32]>,
    generation: u64,
    on_event: F,
}

impl<F: FnMut(Event)> Rules<F> {
    fn apply(&mut self, update: Update) -> Result<(), String> {
        let digest = digest(&update);
        if self.loaded == Some(digest) {
            // The control plane came back and said the same.
            return Ok(());
        }
        let resources = update.configs.len();
        match update.compile(&self.defaults) {
            Ok((rules, warnings)) => {
                self.generation += 1;
                self.loaded = Some(digest);
                let summary = Summary {
                    domains: rules.domains.len(),
                    rules: rules.rules.len(),
                    files: resources,
                };
                let rules = Arc::new(rules);
                (self.on_event)(Event::Loaded(Loaded {
                    generation: self.generation,
                    rules,
                    summary,
                    warnings,
                    digest,
                }));
                Ok(())
            }
            Err(errors) => {
                let text = errors.to_string();
                (self.on_event)(Event::Failed(errors));
                Err(text)
            }
        }
    }
}

fn digest(update: &Update) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for config in &update.configs {
        hasher.update(&config.encode_length_delimited_to_vec());
    }
    *hasher.finalize().as_bytes()
}

//! A file, read when it has changed and nobody writes to it.

use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::thread;

use tokio_util::sync::CancellationToken;

use crate::config::Source;
use crate::config::plans::file::load;
use crate::config::watch::quiet::{Fingerprint, QUIET, QuietFiles};

use super::state::SourceState;

/// After so many looks without a verdict the file counts as one that cannot be read.
const MAX_MISSED: u32 = 20;

/// Keeps the table as the file is, until `stop`; `ready` hears when it has been read, well or not.
pub(super) fn read(state: &SourceState, path: &Path, stop: &CancellationToken, ready: &SyncSender<()>) {
    let files = QuietFiles::new(Source::new(vec![path.to_owned()]));
    let mut seen: Option<Fingerprint> = None;
    let mut missed = 0;
    while !stop.is_cancelled() {
        if state.take_wish() {
            seen = None;
        }
        if seen.as_ref() != Some(&files.fingerprint()) {
            let source = state.source();
            let read = files.read(|_| load(&source, path).map_err(|errors| errors.render(false)));
            drop(source);
            match read {
                Some((Err(_), looked)) if !holds_still(&files, &looked) => missed += 1,
                Some((read, looked)) => {
                    state.done(read);
                    (seen, missed) = (Some(looked), 0);
                    let _ = ready.try_send(());
                }
                None => missed += 1,
            }
            if missed == MAX_MISSED {
                state.done(Err(
                    "it keeps changing while it is read: replace it by renaming a new file over it".to_owned(),
                ));
                let _ = ready.try_send(());
            }
        }
        files.wait();
    }
}

/// Whether a file that is wrong stays as it is: it may have been half of a change.
fn holds_still(files: &QuietFiles, looked: &Fingerprint) -> bool {
    thread::sleep(QUIET);
    !files.is_written(looked) && files.fingerprint() == *looked
}

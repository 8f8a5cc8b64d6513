//! A file, read when it has changed and nobody writes to it.

use std::convert::Infallible;
use std::path::Path;
use std::sync::mpsc::SyncSender;

use tokio_util::sync::CancellationToken;

use crate::config::Source;
use crate::config::plans::file::load;
use crate::config::watch::quiet::{Fingerprint, QuietFiles};

use super::state::SourceState;

/// After so many looks in a row between or during which it changed, the file counts as one that cannot be read.
const MAX_MISSED: u32 = 20;

/// Keeps the table as the file is, until `stop`; drops `unread` when it has been read, well or not.
///
/// What was read comes into force, or is reported as wrong, only if the file has not changed since and nobody writes to it: else
/// it may be half of a file, which looks like a whole one wherever a line ends.
pub(super) fn read(state: &SourceState, path: &Path, stop: &CancellationToken, unread: SyncSender<Infallible>) {
    let files = QuietFiles::new(Source::new(vec![path.to_owned()]));
    let mut seen: Option<Fingerprint> = None;
    let mut missed = 0;
    let mut unread = Some(unread);
    while !stop.is_cancelled() {
        if state.take_reread() {
            seen = None;
        }
        if seen.as_ref() != Some(&files.fingerprint()) {
            let source = state.source();
            let read = files.read(|_| load(&source, path).map_err(|errors| errors.render(false)));
            drop(source);
            match read {
                Some((read, looked)) if files.wait_unchanged(&looked) => {
                    state.done(read);
                    (seen, missed) = (Some(looked), 0);
                    drop(unread.take());
                }
                _ => missed += 1,
            }
            if missed == MAX_MISSED {
                state.done(Err(
                    "it keeps changing while it is read: replace it by renaming a new file over it".to_owned(),
                ));
                drop(unread.take());
            }
        }
        files.wait();
    }
}

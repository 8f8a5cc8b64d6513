//! Places of the event stream's readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Readers at the same time.
pub(super) const MAX_READERS: usize = 16;

/// Who reads, the oldest first. A new reader takes the place of the oldest where there are too many: whether somebody reads cannot
/// be told while the buffers of both operating systems take what is sent, which is hours of a quiet stream.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<Mutex<ReaderList>>);

#[derive(Default)]
struct ReaderList {
    next: u64,
    by_number: BTreeMap<u64, CancellationToken>,
}

/// One reader's place, until this is dropped.
pub(super) struct ReaderPlace {
    readers: Readers,
    number: u64,
    /// Cancelled when a newer reader takes it.
    pub taken: CancellationToken,
}

impl Readers {
    /// Takes a place, the oldest reader's if need be.
    pub fn enter(&self) -> ReaderPlace {
        let mut list = self.0.lock();
        while list.by_number.len() >= MAX_READERS {
            if let Some((_, oldest)) = list.by_number.pop_first() {
                oldest.cancel();
            }
        }
        let (number, taken) = (list.next, CancellationToken::new());
        list.next += 1;
        list.by_number.insert(number, taken.clone());
        drop(list);
        ReaderPlace {
            readers: self.clone(),
            number,
            taken,
        }
    }

    /// How many have a place.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().by_number.len()
    }
}

impl Drop for ReaderPlace {
    fn drop(&mut self) {
        self.readers.0.lock().by_number.remove(&self.number);
    }
}

//! What a writer leaves on the disk at its end, in a thread of its own: a disk that does not answer
//! may keep that thread for ever, but not whoever closes the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::Builder;

use super::{Delivery, Patience};
use crate::drain::Drain;
use crate::engine::LOOK_INTERVAL;
use crate::platform::without_signals;
use crate::run_folder::{WriterEnd, WriterInfo};
use crate::spool::SpoolFiles;

/// Owns what is left of a writer whose threads have ended. None of the writer's locks is held while
/// the disk works, for a fork takes them all.
#[derive(Debug)]
pub(super) struct LastWork {
    pub drain: Drain,
    pub delivery: Delivery,
    pub files: Arc<dyn SpoolFiles>,
    /// Points and attributes that nothing keeps.
    pub lost: u64,
}

impl LastWork {
    /// Does it, and waits for it as long as `patience` lasts. `false`: it was not done by then. It
    /// goes on, and until it is done or the process ends, the folder's lock is held and the ring
    /// stays for recovery.
    pub fn do_within(self, patience: &mut Patience<'_>) -> bool {
        let (give, given) = sync_channel::<Self>(1);
        let (tell, told) = sync_channel(1);
        let started = without_signals(|| {
            Builder::new().name("metrana-close".to_owned()).spawn(move || {
                if let Ok(work) = given.recv() {
                    work.run();
                    // Whoever asked may have gone.
                    let _ = tell.send(());
                }
            })
        });
        // A system without a thread to spare has the caller do it.
        if started.is_err() {
            self.run();
            return true;
        }
        let _ = give.send(self);
        is_told_within(&told, patience)
    }

    /// Leaves the folder as the next process is to find it, and lets go of its lock.
    fn run(self) {
        let Self { mut drain, delivery, files, lost } = self;
        let shared = Arc::clone(&drain.shared);
        if lost > 0 {
            shared.report(format!(
                "{lost} points and attributes are lost: nothing could be written to the spool, and \
                 the ring was in this process's memory"
            ));
        }
        drain.force_to_disk();
        let (is_sealed, info) = (drain.is_empty(), drain.info());
        drop(drain);
        shared.log.info(format_args!("closed: {delivery}, all sealed: {is_sealed}"));
        let Some(folder) = shared.folder.lock().take() else { return };
        let is_over = match delivery {
            Delivery::Dropped => true,
            Delivery::Done => is_sealed,
            Delivery::Kept | Delivery::Unfinished => false,
        };
        let ended = if is_over {
            // Nobody needs it any more; what is worth keeping are the cursors beside it.
            folder.withdraw().map_err(|error| error.to_string())
        } else if is_sealed && folder.place().is_kept() {
            let last_seq = Some(shared.ring.lock().next_seq().0 - 1);
            let acked = Some(shared.acked.load(Ordering::Acquire));
            let info = WriterInfo { ended: Some(WriterEnd::Closed), last_seq, acked, ..info };
            folder.place().write_info(&info, files.as_ref()).map_err(|error| error.to_string())
        } else {
            // The ring stays for recovery, and for whoever finds a folder that was moved: it does
            // not say there that its writer has ended.
            return;
        };
        if let Err(problem) = ended {
            shared.report(problem);
            if !is_over {
                // As far as anybody can read, the ring is still to be looked into.
                return;
            }
        }
        let unlinked = shared.ring.lock().unlink();
        if let Err(error) = unlinked {
            shared.report(error.to_string());
        }
    }
}

fn is_told_within(told: &Receiver<()>, patience: &mut Patience<'_>) -> bool {
    loop {
        match told.recv_timeout(patience.left().min(LOOK_INTERVAL)) {
            Ok(()) => return true,
            // It died of something, and the rest is undone.
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) if patience.left().is_zero() => return false,
            Err(RecvTimeoutError::Timeout) => _ = patience.is_interrupted(),
        }
    }
}

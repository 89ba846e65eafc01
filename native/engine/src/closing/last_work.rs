//! What a writer leaves on the disk at its end, in a thread of its own: a disk that does not answer
//! may keep that thread for ever, but not whoever closes the writer.

mod ending;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{Builder, JoinHandle};

pub(crate) use ending::is_ending;

use super::{Delivery, Patience};
use crate::drain::Drain;
use crate::engine::LOOK_INTERVAL;
use crate::platform::without_signals;
use crate::run_folder::{WriterEnd, WriterInfo};
use crate::spool::SpoolFiles;
use crate::types::WriterId;

/// What is left to do of a writer whose threads have ended. None of the writer's locks is held while
/// the disk works, for a fork takes them all.
#[derive(Debug)]
pub(super) struct LastWork {
    pub delivery: Delivery,
    pub files: Arc<dyn SpoolFiles>,
}

impl LastWork {
    /// Does it, and waits for it as long as `patience` lasts. `false`: it was not done by then. It
    /// goes on, and until it is done or the process ends, the folder's lock is held and the ring
    /// stays for recovery.
    pub fn do_within(self, drain: Drain, patience: &mut Patience<'_>) -> bool {
        let ending = ending::begin(drain.writer_id());
        let (give, given) = sync_channel::<(Self, Drain)>(1);
        let (tell, told) = sync_channel(1);
        let started = in_thread(move || {
            if let Ok((work, drain)) = given.recv() {
                work.run(drain);
                drop(ending);
                // Whoever asked may have gone.
                let _ = tell.send(());
            }
        });
        // A system without a thread to spare has the caller do it.
        if !started {
            self.run(drain);
            return true;
        }
        let _ = give.send((self, drain));
        is_told_within(&told, patience)
    }

    /// Does it once a drain thread has ended that a disk kept from ending in time. Without a thread to
    /// spare nobody does, as if the process had been killed.
    pub fn do_after(self, thread: JoinHandle<Drain>, writer_id: WriterId) {
        let ending = ending::begin(writer_id);
        in_thread(move || {
            if let Ok(drain) = thread.join() {
                lose_unkept(&drain);
                self.run(drain);
            }
            drop(ending);
        });
    }

    /// Leaves the folder as the next process is to find it, and lets go of its lock.
    fn run(self, mut drain: Drain) {
        let Self { delivery, files } = self;
        let shared = Arc::clone(&drain.shared);
        let (is_sealed, info) = (drain.is_empty(), drain.info());
        let has_sealed_ring = drain.has_sealed_ring();
        let is_over = match delivery {
            Delivery::Dropped => true,
            Delivery::Done => is_sealed,
            Delivery::Kept | Delivery::Unfinished => false,
        };
        let cursors = is_over.then(|| drain.cursors()).flatten();
        if !is_over {
            drain.force_to_disk();
            drain.report_left_renderings();
        }
        drop(drain);
        shared.log.info(format_args!("closed: {delivery}, all sealed: {is_sealed}"));
        let Some(folder) = shared.folder.lock().take() else { return };
        let ended = if is_over {
            // Nobody needs it any more, and what was dropped must not come back because the process
            // ended while a disk took its time. What is worth keeping are the cursors beside it.
            let place = folder.place().clone();
            let withdrawn = folder.withdraw().map_err(|error| error.to_string());
            if let Some(Err(problem)) = cursors.map(|all| place.write_cursors(&all, files.as_ref()))
            {
                shared.report(problem.to_string());
            }
            withdrawn
        } else if has_sealed_ring && folder.place().is_kept() {
            // Renderings may be left: they need no ring.
            let last_seq = Some(shared.ring.lock().next_seq().0 - 1);
            let acked = Some(shared.acked.load(Ordering::Acquire));
            let info = WriterInfo { ended: Some(WriterEnd::Closed), last_seq, acked, ..info };
            folder.place().write_info(&info, files.as_ref()).map_err(|error| error.to_string())
        } else {
            // The ring stays for recovery, and for whoever finds a folder that was moved: it does
            // not say there that its writer has ended.
            shared.ring.lock().let_go();
            return;
        };
        if let Err(problem) = ended {
            shared.report(problem);
            if !is_over {
                // As far as anybody can read, the ring is still to be looked into.
                shared.ring.lock().let_go();
                return;
            }
        }
        let unlinked = shared.ring.lock().unlink();
        if let Err(error) = unlinked {
            shared.report(error.to_string());
        }
    }
}

/// Points and attributes that nothing keeps: they could not be sealed, and a ring that ends with the
/// process held them.
pub(super) fn lose_unkept(drain: &Drain) -> u64 {
    if drain.has_lasting_ring() {
        return 0;
    }
    let lost = drain.shared.lose_unsealed().total();
    if lost > 0 {
        drain.shared.report(format!(
            "{lost} points and attributes are lost: nothing could be written to the spool, and the \
             ring was in this process's memory"
        ));
    }
    lost
}

/// `false`: the system has no thread to spare.
fn in_thread(work: impl FnOnce() + Send + 'static) -> bool {
    let name = "metrana-close".to_owned();
    without_signals(|| Builder::new().name(name).spawn(work)).is_ok()
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

//! Forks of the process: no lock may be copied while it is held, and no thread lives on in a child.
//!
//! Python runs the hooks of `os.register_at_fork` with other Python code in between, so other
//! threads may run while the locks are taken. They must not wait for one of those locks with the
//! interpreter's lock in hand, which the forking thread needs to go on: they wait at
//! [`wait_until_forked`] instead, before they touch a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;

use crate::writer::Writer;

static WRITERS: Mutex<Vec<Weak<Writer>>> = Mutex::new(Vec::new());
/// The writers whose locks are taken for the fork that is under way.
static PREPARED: Mutex<Vec<Arc<Writer>>> = Mutex::new(Vec::new());
/// Changed only by a thread that holds the interpreter's lock.
static FORKING: AtomicBool = AtomicBool::new(false);
static FORK_LOCK: Mutex<()> = Mutex::new(());
static FORKED: Condvar = Condvar::new();

/// Makes the hooks know a new writer.
pub fn watch(writer: &Arc<Writer>) {
    let mut writers = WRITERS.lock();
    writers.retain(|writer| writer.strong_count() > 0);
    writers.push(Arc::downgrade(writer));
}

/// Waits, without the interpreter's lock, while another thread forks.
pub fn wait_until_forked(py: Python<'_>) {
    if FORKING.load(Ordering::Relaxed) {
        py.detach(|| {
            let mut lock = FORK_LOCK.lock();
            while FORKING.load(Ordering::Relaxed) {
                FORKED.wait(&mut lock);
            }
        });
    }
}

fn watched() -> Vec<Arc<Writer>> {
    let writers = WRITERS.lock();
    writers.iter().filter_map(Weak::upgrade).filter(|writer| !writer.is_inherited()).collect()
}

fn end() {
    let _lock = FORK_LOCK.lock();
    FORKING.store(false, Ordering::Relaxed);
    FORKED.notify_all();
}

/// Take the locks of every open writer: before a fork.
#[pyfunction]
pub fn fork_prepare() {
    FORKING.store(true, Ordering::Relaxed);
    let writers = watched();
    for engine in writers.iter().filter_map(|writer| writer.engine()) {
        // Whoever holds its locks is no Python thread, hence needs nothing that this one holds.
        engine.fork_prepare();
    }
    *PREPARED.lock() = writers;
}

/// Release those locks: after a fork, in the parent.
#[pyfunction]
pub fn fork_in_parent() {
    let prepared = std::mem::take(&mut *PREPARED.lock());
    for engine in prepared.iter().filter_map(|writer| writer.engine()) {
        engine.fork_in_parent();
    }
    end();
}

/// Let go of the parent's writers: after a fork, in the child.
#[pyfunction]
pub fn fork_in_child() {
    let prepared = std::mem::take(&mut *PREPARED.lock());
    for engine in prepared.iter().filter_map(|writer| writer.engine()) {
        engine.fork_in_child();
    }
    for writer in watched() {
        writer.mark_inherited();
        // Its threads do not exist here, so it may never be dropped.
        std::mem::forget(writer);
    }
    WRITERS.lock().clear();
    end();
}

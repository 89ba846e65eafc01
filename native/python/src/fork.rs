//! Forks of the process: no lock may be copied while it is held, and no thread lives on in a child.
//!
//! Before a fork the forking thread takes every lock of every engine, and keeps them until it has
//! forked. Python runs the hooks of `os.register_at_fork` one after the other and is free to run
//! other threads in between, with the locks taken. Such a thread must not wait for one of them with
//! the interpreter's lock in hand, which the forking thread needs to go on. Hence the rule, which
//! [`Writer`] keeps for its callers:
//!
//! **[`wait_until_forked`] right before each call of an engine, and no Python code between the
//! two.** Anything that may run Python code (reading an argument, making an error, dropping an
//! object) may let another thread begin a fork, so a check made before it says nothing. What lets
//! go of the interpreter's lock for the whole call, as all that waits does, needs no check.
//!
//! The forking thread itself runs the hooks of others while it has the locks. A call that one of
//! them makes would wait for its own thread: [`enter`], at the beginning of every method that
//! Python calls, refuses it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use metrana_engine::sync::{Condvar, Mutex};
use pyo3::prelude::*;

use crate::error::process_fork;
use crate::writer::Writer;

// These are locked only by threads that hold the interpreter's lock and keep it, as the forking
// thread does while it forks: they are free in every child.
static WRITERS: Mutex<Vec<Weak<Writer>>> = Mutex::new(Vec::new());
/// The writers whose locks are taken for the fork that is under way.
static PREPARED: Mutex<Vec<Arc<Writer>>> = Mutex::new(Vec::new());
/// Where threads wait for the end of the fork that is under way.
static GATE: Mutex<Option<Arc<Gate>>> = Mutex::new(None);
/// Changed only by a thread that holds the interpreter's lock.
static FORKING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// How many forks, one in a hook of the other, this thread has begun and not ended.
    static FORK_DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Opened once. Each fork has its own, because a thread that waits at one may hold its lock at the
/// moment of the fork, and then holds the child's copy for ever.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut is_open = self.is_open.lock();
        while !*is_open {
            is_open = self.opened.wait(is_open);
        }
    }

    fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }
}

/// Makes the hooks know a new writer.
pub fn watch(writer: &Arc<Writer>) {
    let mut writers = WRITERS.lock();
    writers.retain(|writer| writer.strong_count() > 0);
    writers.push(Arc::downgrade(writer));
}

/// Begins a method that takes an engine's locks: waits as [`wait_until_forked`] does.
///
/// # Errors
///
/// `MetranaProcessForkError` in a hook that this thread runs while it forks.
#[inline]
pub fn enter(py: Python<'_>) -> PyResult<()> {
    if FORKING.load(Ordering::Relaxed) { enter_during_fork(py) } else { Ok(()) }
}

#[cold]
fn enter_during_fork(py: Python<'_>) -> PyResult<()> {
    if FORK_DEPTH.get() > 0 {
        return Err(process_fork(
            py,
            "this call was made by a fork hook while the process forks; log before or after os.fork()",
        ));
    }
    wait_until_forked(py);
    Ok(())
}

/// Waits, without the interpreter's lock, while another thread forks. See the module.
#[inline]
pub fn wait_until_forked(py: Python<'_>) {
    // By the time this thread has the interpreter's lock again, the next fork may have begun.
    while FORKING.load(Ordering::Relaxed) {
        wait(py);
    }
}

#[cold]
fn wait(py: Python<'_>) {
    let gate = GATE.lock().clone();
    if let Some(gate) = gate {
        py.detach(|| gate.pass());
    }
}

fn watched() -> Vec<Arc<Writer>> {
    let writers = WRITERS.lock();
    writers.iter().filter_map(Weak::upgrade).filter(|writer| !writer.is_inherited()).collect()
}

/// Take the locks of every open writer: before a fork.
#[pyfunction]
pub fn fork_prepare(py: Python<'_>) {
    let depth = FORK_DEPTH.get();
    FORK_DEPTH.set(depth + 1);
    if depth > 0 {
        // A hook forks in its turn: this thread has all the locks.
        return;
    }
    // Two threads may fork at once; each needs all of the locks.
    wait_until_forked(py);
    FORKING.store(true, Ordering::Relaxed);
    *GATE.lock() = Some(Arc::default());
    let writers = watched();
    for engine in writers.iter().filter_map(|writer| writer.engine()) {
        // Whoever holds its locks does not wait for the interpreter's lock: by the rule above.
        engine.fork_prepare();
    }
    *PREPARED.lock() = writers;
}

/// Release those locks: after a fork, in the parent.
#[pyfunction]
pub fn fork_in_parent() {
    // In the child of a hook's fork the outer one goes on, of which nothing is left to end.
    let depth = FORK_DEPTH.get().saturating_sub(1);
    FORK_DEPTH.set(depth);
    if depth > 0 {
        return;
    }
    let prepared = std::mem::take(&mut *PREPARED.lock());
    for engine in prepared.iter().filter_map(|writer| writer.engine()) {
        engine.fork_in_parent();
    }
    FORKING.store(false, Ordering::Relaxed);
    let gate = GATE.lock().take();
    if let Some(gate) = gate {
        gate.open();
    }
}

/// Let go of the parent's writers: after a fork, in the child.
#[pyfunction]
pub fn fork_in_child() {
    FORK_DEPTH.set(0);
    let prepared = std::mem::take(&mut *PREPARED.lock());
    for engine in prepared.iter().filter_map(|writer| writer.engine()) {
        engine.fork_in_child();
    }
    WRITERS.lock().clear();
    // Nobody waits here, and the gate's lock may look as if somebody held it: it is let lie.
    FORKING.store(false, Ordering::Relaxed);
}

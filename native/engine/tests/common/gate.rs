//! A disk that can be made full, stuck, or broken.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use metrana_engine::spool::{Disk, SpoolFile, SpoolFiles};
use metrana_engine::sync::{Condvar, Mutex};

const OPEN: u8 = 0;
const SHUT: u8 = 1;
const BROKEN: u8 = 2;

/// While it is shut, nothing can be written; a clone is the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    mode: AtomicU8,
    refused: AtomicU64,
    is_stuck: Mutex<bool>,
    takes_nothing: AtomicBool,
    unstuck: Condvar,
}

impl Gate {
    pub fn shut(&self) {
        self.0.mode.store(SHUT, Ordering::SeqCst);
    }

    /// Whatever is written from now on panics, as a driver with a bug would.
    pub fn break_down(&self) {
        self.0.mode.store(BROKEN, Ordering::SeqCst);
    }

    /// Whoever forces something to the disk waits until it is opened.
    pub fn get_stuck(&self) {
        *self.0.is_stuck.lock() = true;
    }

    /// Whoever writes waits too.
    pub fn get_stuck_for_good(&self) {
        self.0.takes_nothing.store(true, Ordering::SeqCst);
        self.get_stuck();
    }

    pub fn open(&self) {
        self.0.takes_nothing.store(false, Ordering::SeqCst);
        self.0.mode.store(OPEN, Ordering::SeqCst);
        *self.0.is_stuck.lock() = false;
        self.0.unstuck.notify_all();
    }

    /// How often something could not be written.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::SeqCst)
    }

    fn wait(&self) {
        let mut is_stuck = self.0.is_stuck.lock();
        while *is_stuck {
            is_stuck = self.0.unstuck.wait(is_stuck);
        }
    }

    fn pass(&self) -> io::Result<()> {
        if self.0.takes_nothing.load(Ordering::SeqCst) {
            self.wait();
        }
        match self.0.mode.load(Ordering::SeqCst) {
            OPEN => Ok(()),
            SHUT => {
                self.0.refused.fetch_add(1, Ordering::SeqCst);
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => panic!("the disk is broken"),
        }
    }
}

impl SpoolFiles for Gate {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SpoolFile>> {
        self.pass()?;
        Ok(Box::new(GateFile { gate: self.clone(), file: Disk.create(path)? }))
    }

    fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        Disk.truncate(path, bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.wait();
        Disk.sync_folder(path)
    }
}

#[derive(Debug)]
struct GateFile {
    gate: Gate,
    file: Box<dyn SpoolFile>,
}

impl SpoolFile for GateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gate.pass()?;
        // In small steps, so that a gate that is shut meanwhile tears a frame.
        self.file.write(&bytes[..bytes.len().min(100)])
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.gate.wait();
        self.file.sync()
    }

    fn is_deleted(&self) -> io::Result<bool> {
        self.file.is_deleted()
    }

    fn copy_to(&mut self, bytes: u64, copy: &mut dyn SpoolFile) -> io::Result<()> {
        self.gate.pass()?;
        self.file.copy_to(bytes, copy)
    }
}

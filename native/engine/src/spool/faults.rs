//! A disk that fails: full, short of breath, or gone from one operation to the next.
//!
//! It writes real files, so that what a reader or a recovery finds afterwards is what a real disk
//! would show. Every operation is numbered from 0; a plan says what happens at one of them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Disk, SpoolFile, SpoolFiles};

/// What a disk does at one of its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Takes half of what it is given; not an error.
    ShortWrite,
    /// Is interrupted before it does anything; not an error.
    Interrupted,
    /// Has no room for this operation, and keeps half of what it was given.
    Full,
    /// Has no room from here on until [`FaultyDisk::repair`].
    FullFromHere,
    /// The process dies before the operation: it and all later ones fail.
    DiesBefore,
    /// The process dies in the middle of the write.
    DiesWithin,
    /// The operation succeeds, but the process dies before it learns that.
    DiesAfter,
}

#[derive(Debug, Default)]
struct Plan {
    count: AtomicU64,
    is_dead: AtomicBool,
    is_full: AtomicBool,
}

#[derive(Clone, Debug)]
pub(crate) struct FaultyDisk {
    at: u64,
    fault: Fault,
    plan: Arc<Plan>,
}

/// What to do with an operation.
enum Verdict {
    Go,
    Half,
    HalfThen(io::Error),
    DoThen(io::Error),
    Not(io::Error),
}

fn died() -> io::Error {
    io::Error::other("the process died")
}

impl FaultyDisk {
    /// A disk that fails at operation `at`.
    pub(crate) fn new(at: u64, fault: Fault) -> Self {
        Self { at, fault, plan: Arc::default() }
    }

    /// A disk that works.
    pub(crate) fn sound() -> Self {
        Self::new(u64::MAX, Fault::ShortWrite)
    }

    /// Operations so far.
    pub(crate) fn count(&self) -> u64 {
        self.plan.count.load(Ordering::Relaxed)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.plan.is_dead.load(Ordering::Relaxed)
    }

    pub(crate) fn repair(&self) {
        self.plan.is_full.store(false, Ordering::Relaxed);
    }

    /// `grows`: the operation needs room.
    fn judge(&self, grows: bool) -> Verdict {
        let number = self.plan.count.fetch_add(1, Ordering::Relaxed);
        if self.is_dead() {
            return Verdict::Not(died());
        }
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        if self.plan.is_full.load(Ordering::Relaxed) && grows {
            return Verdict::Not(full());
        }
        if number != self.at {
            return Verdict::Go;
        }
        let dies = matches!(self.fault, Fault::DiesBefore | Fault::DiesWithin | Fault::DiesAfter);
        self.plan.is_dead.store(dies, Ordering::Relaxed);
        match self.fault {
            Fault::ShortWrite => Verdict::Half,
            Fault::Interrupted if grows => Verdict::Not(io::ErrorKind::Interrupted.into()),
            Fault::Full | Fault::FullFromHere if grows => {
                self.plan.is_full.store(self.fault == Fault::FullFromHere, Ordering::Relaxed);
                Verdict::HalfThen(full())
            }
            Fault::Interrupted | Fault::Full | Fault::FullFromHere => Verdict::Go,
            Fault::DiesBefore => Verdict::Not(died()),
            Fault::DiesWithin => Verdict::HalfThen(died()),
            Fault::DiesAfter => Verdict::DoThen(died()),
        }
    }

    fn whole<T>(&self, grows: bool, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.judge(grows) {
            Verdict::Go | Verdict::Half => run(),
            Verdict::DoThen(error) => run().and(Err(error)),
            Verdict::HalfThen(error) | Verdict::Not(error) => Err(error),
        }
    }
}

impl SpoolFiles for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SpoolFile>> {
        // `open` is never interrupted half-way in a way that the caller would have to repeat.
        let file = match self.judge(self.fault != Fault::Interrupted) {
            Verdict::Go | Verdict::Half => Disk.create(path)?,
            Verdict::DoThen(error) => return Disk.create(path).and(Err(error)),
            Verdict::HalfThen(error) | Verdict::Not(error) => return Err(error),
        };
        Ok(Box::new(FaultyFile { disk: self.clone(), file }))
    }

    fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.whole(false, || Disk.truncate(path, bytes))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole(false, || Disk.remove(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole(false, || Disk.rename(from, to))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.whole(false, || Disk.sync_folder(path))
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    file: Box<dyn SpoolFile>,
}

impl FaultyFile {
    fn write_half(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let half = &bytes[..bytes.len().div_ceil(2)];
        self.file.write(half)
    }
}

impl SpoolFile for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.judge(true) {
            Verdict::Go => self.file.write(bytes),
            Verdict::Half => self.write_half(bytes),
            Verdict::HalfThen(error) => self.write_half(bytes).and(Err(error)),
            Verdict::DoThen(error) => self.file.write(bytes).and(Err(error)),
            Verdict::Not(error) => Err(error),
        }
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let disk = self.disk.clone();
        disk.whole(false, || self.file.truncate(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        let disk = self.disk.clone();
        disk.whole(false, || self.file.sync())
    }

    fn is_deleted(&self) -> io::Result<bool> {
        self.file.is_deleted()
    }

    fn copy_to(&mut self, bytes: u64, copy: &mut dyn SpoolFile) -> io::Result<()> {
        self.file.copy_to(bytes, copy)
    }
}

//! The bytes of a ring: mapping, header, the three offsets.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU32, fence};

use memmap2::{MmapOptions, MmapRaw};

use super::access::{Access, AtomicU64, Ordering};
use super::{MAX_CAPACITY_BYTES, PAGE_BYTES, RING_VERSION, RingError, RingStart};
use crate::platform::{self, LockFile};
use crate::types::{Lsn, Seq, WriterId};

pub(super) const HEADER_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"METRRING";

// Each offset has a cache line of its own: the producer and the consumer do not share one.
const AT_VERSION: usize = 8;
const AT_HEADER_BYTES: usize = 12;
const AT_WRITER_ID: usize = 16;
const AT_CAPACITY: usize = 32;
const AT_COMMITTED: usize = 64;
const AT_TAIL: usize = 128;
const AT_NEXT_SEQ: usize = 192;
const AT_UNSEALED: usize = 256;
/// Length as u32, then as many bytes.
const AT_FOLDER: usize = 512;
/// The words of the header that two threads share.
#[cfg(loom)]
pub(super) const OFFSETS: [usize; 4] = [AT_COMMITTED, AT_TAIL, AT_NEXT_SEQ, AT_UNSEALED];
/// The part of the header that is fixed at creation.
const FIXED_BYTES: usize = 40;

/// A mapped ring. Shared by a producer, a consumer and handles; the two offsets order their
/// accesses to the data.
#[derive(Debug)]
pub(super) struct Memory {
    map: MmapRaw,
    access: Access,
    /// Kept for its link count and its lock; `None` for anonymous memory.
    file: Option<LockFile>,
    capacity: u64,
    writer_id: WriterId,
}

impl Memory {
    /// A new file of exactly this capacity, allocated, mapped and prefaulted. On an error no file
    /// is left behind.
    pub(super) fn create(
        path: &Path,
        capacity: u64,
        writer_id: WriterId,
        start: RingStart,
    ) -> Result<Self, RingError> {
        let failed = |doing| move |source| RingError::Io { doing, path: path.to_owned(), source };
        let options = &mut platform::private_file();
        let file = LockFile::open(options.read(true).write(true).create_new(true), path)
            .map_err(failed("creating"))?;
        let made = Self::fill(path, file, capacity, writer_id).map_err(|(doing, source)| {
            // What cannot be used must not stay and take room in tmpfs.
            let _ = std::fs::remove_file(path);
            failed(doing)(source)
        })?;
        made.write_header(start);
        Ok(made)
    }

    fn fill(
        path: &Path,
        file: LockFile,
        capacity: u64,
        writer_id: WriterId,
    ) -> Result<Self, (&'static str, io::Error)> {
        let bytes = HEADER_BYTES as u64 + capacity;
        file.try_lock().map_err(|error| ("locking", error.into()))?;
        platform::reserve_space(&file, bytes).map_err(|error| ("allocating", error))?;
        let map = map_file(path, bytes).map_err(|error| ("mapping", error))?;
        prefault(&map).map_err(|error| ("prefaulting", error))?;
        Ok(Self { map, access: Access::new(capacity), file: Some(file), capacity, writer_id })
    }

    /// The same layout in memory of this process alone.
    pub(super) fn anonymous(
        capacity: u64,
        writer_id: WriterId,
        start: RingStart,
    ) -> Result<Self, RingError> {
        let failed =
            |source| RingError::Io { doing: "mapping memory for", path: "".into(), source };
        let map = MmapOptions::new()
            .len(HEADER_BYTES + capacity as usize)
            .map_anon()
            .map(MmapRaw::from)
            .map_err(failed)?;
        prefault(&map).map_err(failed)?;
        let made = Self { map, access: Access::new(capacity), file: None, capacity, writer_id };
        made.write_header(start);
        Ok(made)
    }

    /// A ring that another process made and no process holds any more.
    pub(super) fn open(path: &Path, writer_id: WriterId) -> Result<Self, RingError> {
        let failed = |doing| move |source| RingError::Io { doing, path: path.to_owned(), source };
        let options = &mut platform::private_file();
        let file =
            LockFile::open(options.read(true).write(true), path).map_err(failed("opening"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RingError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed("locking")(source)),
        }
        let (bytes, capacity) = measure(&file, path)?;
        // A page of a ring is allocated when it is made; allocating again changes nothing in a
        // whole one and keeps a store into a damaged one from raising SIGBUS.
        platform::reserve_space(&file, bytes).map_err(failed("allocating"))?;
        let map = map_file(path, bytes).map_err(failed("mapping"))?;
        let memory =
            Self { map, access: Access::new(capacity), file: Some(file), capacity, writer_id };
        memory.check_header(path)?;
        Ok(memory)
    }

    /// A dead writer's ring, for reading only: whoever empties it meanwhile is not disturbed.
    pub(super) fn look(path: &Path, writer_id: WriterId) -> Result<Self, RingError> {
        let failed = |doing| move |source| RingError::Io { doing, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed("opening"))?;
        let (bytes, capacity) = measure(&file, path)?;
        let map = MmapOptions::new()
            .len(bytes as usize)
            .map_raw_read_only(&file)
            .map_err(failed("mapping"))?;
        let memory = Self { map, access: Access::new(capacity), file: None, capacity, writer_id };
        memory.check_header(path)?;
        Ok(memory)
    }

    fn write_header(&self, start: RingStart) {
        let mut fixed = [0; FIXED_BYTES];
        fixed[AT_VERSION..][..2].copy_from_slice(&RING_VERSION.to_le_bytes());
        fixed[AT_HEADER_BYTES..][..4].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        fixed[AT_WRITER_ID..][..16].copy_from_slice(&self.writer_id.0);
        fixed[AT_CAPACITY..][..8].copy_from_slice(&self.capacity.to_le_bytes());
        self.atomic(AT_COMMITTED).store(start.lsn.0, Ordering::Relaxed);
        self.atomic(AT_TAIL).store(start.lsn.0, Ordering::Relaxed);
        self.atomic(AT_NEXT_SEQ).store(start.next_seq.0, Ordering::Relaxed);
        self.atomic(AT_UNSEALED).store(start.unsealed_bytes, Ordering::Relaxed);
        self.put(AT_VERSION, &fixed[AT_VERSION..]);
        // Whoever finds the file before this is done finds no ring in it.
        fence(Ordering::Release);
        self.put(0, &MAGIC);
    }

    /// Writes down whose ring it is; a path that is too long or no text is left out.
    ///
    /// Others may read it at any time, whether the writer lives or not: what it is in the middle of is
    /// no text.
    pub(super) fn set_folder(&self, folder: &Path) {
        let text = folder.to_str().unwrap_or_default();
        if text.len() > HEADER_BYTES - AT_FOLDER - 4 {
            return;
        }
        let length = self.word(AT_FOLDER);
        length.store(0, Ordering::Relaxed);
        // Whoever reads a byte of the new text finds the old length gone.
        fence(Ordering::Release);
        self.put(AT_FOLDER + 4, text.as_bytes());
        length.store(text.len() as u32, Ordering::Release);
    }

    /// What was written down; `None`: nothing, or it is being changed. Of a writer that lives it may
    /// be two texts of one length, if one took the other's place meanwhile.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let mut text = [0; HEADER_BYTES - AT_FOLDER - 4];
        let length = self.word(AT_FOLDER).load(Ordering::Acquire);
        let text = text.get_mut(..length as usize)?;
        self.get(AT_FOLDER + 4, text);
        fence(Ordering::Acquire);
        if self.word(AT_FOLDER).load(Ordering::Relaxed) != length {
            return None;
        }
        let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
        Some(PathBuf::from(text))
    }

    fn check_header(&self, path: &Path) -> Result<(), RingError> {
        let invalid = |what: String| Err(RingError::Invalid { path: path.to_owned(), what });
        let mut fixed = [0; FIXED_BYTES];
        self.get(0, &mut fixed[..AT_VERSION]);
        fence(Ordering::Acquire);
        self.get(AT_VERSION, &mut fixed[AT_VERSION..]);
        let number = |at: usize, bytes: usize| {
            fixed[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        if fixed[..8] != MAGIC {
            return invalid("it has no ring's magic".to_owned());
        }
        let version = number(AT_VERSION, 2) as u16;
        if version > RING_VERSION {
            return Err(RingError::Newer { path: path.to_owned(), version });
        }
        if version == 0 || number(AT_HEADER_BYTES, 4) != HEADER_BYTES as u64 {
            return invalid("its header makes no sense".to_owned());
        }
        if fixed[AT_WRITER_ID..][..16] != self.writer_id.0 {
            return invalid("it belongs to another writer".to_owned());
        }
        if number(AT_CAPACITY, 8) != self.capacity {
            return invalid(format!("it says {} bytes", number(AT_CAPACITY, 8)));
        }
        let (tail, committed) = self.span();
        let is_sane = committed >= tail
            && committed - tail <= self.capacity
            && committed.is_multiple_of(8)
            && tail.is_multiple_of(8);
        if !is_sane || self.next_seq().0 == 0 {
            return invalid(format!("its offsets make no sense: {tail} to {committed}"));
        }
        Ok(())
    }

    pub(super) fn writer_id(&self) -> WriterId {
        self.writer_id
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The first byte of the data, valid for `capacity` bytes.
    pub(super) fn data(&self) -> *mut u8 {
        // SAFETY: the mapping is `HEADER_BYTES + capacity` long.
        unsafe { self.map.as_mut_ptr().add(HEADER_BYTES) }
    }

    /// This thread is about to write `bytes` of the data from `at` on.
    #[inline]
    pub(super) fn writes(&self, at: u64, bytes: u64) {
        self.access.writes(at, bytes);
    }

    /// This thread is about to read `bytes` of the data from `at` on.
    #[inline]
    pub(super) fn reads(&self, at: u64, bytes: u64) {
        self.access.reads(at, bytes);
    }

    pub(super) fn committed(&self) -> Lsn {
        Lsn(self.atomic(AT_COMMITTED).load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn set_committed(&self, lsn: u64) {
        self.atomic(AT_COMMITTED).store(lsn, Ordering::Release);
    }

    pub(super) fn tail(&self) -> Lsn {
        Lsn(self.atomic(AT_TAIL).load(Ordering::Acquire))
    }

    /// Tail and committed of one moment: in a ring that is in use both go on while they are read.
    pub(super) fn span(&self) -> (u64, u64) {
        loop {
            let (tail, committed) = (self.tail(), self.committed());
            if self.tail() == tail {
                return (tail.0, committed.0);
            }
        }
    }

    pub(super) fn next_seq(&self) -> Seq {
        Seq(self.atomic(AT_NEXT_SEQ).load(Ordering::Acquire))
    }

    /// Bytes of the stream before this ring's first that are in no spool yet: in the ring that this
    /// one replaces, which dies with its process.
    pub(super) fn unsealed(&self) -> u64 {
        self.atomic(AT_UNSEALED).load(Ordering::Acquire)
    }

    pub(super) fn set_unsealed(&self, bytes: u64) {
        self.atomic(AT_UNSEALED).store(bytes, Ordering::Release);
    }

    /// In this order, so that whoever sees the tail sees its seq.
    pub(super) fn set_tail(&self, tail: Lsn, next_seq: Seq) {
        self.atomic(AT_NEXT_SEQ).store(next_seq.0, Ordering::Relaxed);
        self.atomic(AT_TAIL).store(tail.0, Ordering::Release);
    }

    /// Not knowing counts as no: a new ring every second would help nobody.
    pub(super) fn is_unlinked(&self) -> bool {
        self.file.as_ref().is_some_and(|file| matches!(platform::link_count(file), Ok(Some(0))))
    }

    /// Lets go of the file's lock, which is a dead writer's from then on.
    pub(super) fn unlock(&self) {
        if let Some(file) = &self.file {
            // Without it the lock is let go of when the ring is.
            let _ = file.unlock();
        }
    }

    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.file.as_ref().is_some_and(|file| platform::is_same_file(file, path).unwrap_or(false))
    }

    #[inline]
    fn atomic(&self, at: usize) -> &AtomicU64 {
        // SAFETY: `at` is one of the offsets above, 8-aligned and inside the mapping; this word is
        // never accessed but atomically. Offsets are little-endian on disk, and so are all targets
        // (checked below).
        unsafe { self.access.offset(&self.map, at) }
    }

    /// Stores bytes into the header, word by word.
    fn put(&self, at: usize, bytes: &[u8]) {
        for (bytes, at) in bytes.chunks(4).zip((at..).step_by(4)) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            self.word(at).store(u32::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Loads bytes from the header, word by word.
    fn get(&self, at: usize, bytes: &mut [u8]) {
        for (bytes, at) in bytes.chunks_mut(4).zip((at..).step_by(4)) {
            let word = self.word(at).load(Ordering::Relaxed).to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
    }

    /// A word of the header outside the four offsets.
    fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at.is_multiple_of(4) && at < HEADER_BYTES);
        // SAFETY: 4-aligned, as the mapping is, and inside the header; never accessed but by this, so
        // that other processes may read what this one writes.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
    }
}

// The offsets and the records are native words, so another byte order would be another format.
const _: () = assert!(cfg!(target_endian = "little"), "the ring's layout is little-endian");

/// The file's length, and how much of it is data.
fn measure(file: &File, path: &Path) -> Result<(u64, u64), RingError> {
    let bytes = match file.metadata() {
        Ok(metadata) => metadata.len(),
        Err(source) => {
            return Err(RingError::Io { doing: "measuring", path: path.to_owned(), source });
        }
    };
    let capacity = bytes.saturating_sub(HEADER_BYTES as u64);
    if (PAGE_BYTES..=MAX_CAPACITY_BYTES).contains(&capacity) && capacity.is_multiple_of(PAGE_BYTES)
    {
        return Ok((bytes, capacity));
    }
    let what = format!("it has {bytes} bytes");
    Err(RingError::Invalid { path: path.to_owned(), what })
}

/// Opens the file once more: a mapping keeps the open file it is of, and a forked child, which has
/// the mapping too, would keep the lock of a parent that died.
fn map_file(path: &Path, bytes: u64) -> io::Result<MmapRaw> {
    let file = platform::private_file().read(true).write(true).open(path)?;
    MmapOptions::new().len(bytes as usize).map_raw(&file)
}

/// Faults every page in, so that the hot path never does.
fn prefault(map: &MmapRaw) -> io::Result<()> {
    // SAFETY: the whole of one readable and writable mapping.
    match unsafe { platform::prefault(map.as_mut_ptr(), map.len()) } {
        Ok(()) => Ok(()),
        // Linux before 5.14, and other systems: the pages are allocated (or anonymous), so touching
        // them cannot fail. They are zero and nobody else has them, so zero is what is written.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            for at in (0..map.len()).step_by(PAGE_BYTES as usize) {
                // SAFETY: inside the mapping.
                unsafe { ptr::write_volatile(map.as_mut_ptr().add(at), 0) };
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

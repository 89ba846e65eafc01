//! The writing side of a ring.

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use super::PAD;
use super::memory::Memory;
use crate::platform;
use crate::types::Lsn;

/// Bytes of a line of a cache.
const LINE: u64 = 64;
/// Most bytes that are fetched ahead: more would wait for each other.
const FETCHED_BYTES: u64 = 128 * LINE;

/// Appends records to a ring. There is one; the callers' lock holds it.
///
/// [`reserve`](Self::reserve) makes room for a record and gives a [`Slot`] to fill;
/// [`commit`](Self::commit) publishes all records reserved since the last one at once, so a call
/// that logs several is kept whole or not at all. Nothing here allocates, waits or calls the system.
#[derive(Debug)]
pub struct Producer {
    data: *mut u8,
    capacity: u64,
    /// Lsn behind the last reserved record.
    head: u64,
    /// `head mod capacity`, kept because a division costs more than the rest of `reserve`.
    offset: u64,
    /// Lsn that may not be passed: the tail when last looked at, plus the capacity.
    limit: u64,
    /// What the ring's header says.
    committed: u64,
    memory: Arc<Memory>,
}

// SAFETY: `data` points into `memory`, which the producer keeps alive and which any thread may
// access; `&mut self` makes the writer the only one.
unsafe impl Send for Producer {}

impl Producer {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        let (data, capacity) = (memory.data(), memory.capacity());
        let head = memory.committed().0;
        let limit = memory.tail().0 + capacity;
        Self { data, capacity, head, offset: head % capacity, limit, committed: head, memory }
    }

    /// Longest record that an empty ring takes wherever its offset stands. Longer ones may never
    /// fit: split the call.
    pub fn max_record_bytes(&self) -> usize {
        self.capacity as usize / 2
    }

    /// Room for a record of `bytes`, a positive multiple of 8, or `None` while the ring is too
    /// full. What is reserved is invisible until [`commit`](Self::commit).
    ///
    /// # Panics
    ///
    /// When `bytes` is not a positive multiple of 8.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) -> Option<Slot<'_>> {
        // Costs nothing for a constant; the safety of what follows rests on it.
        assert!(bytes > 0 && bytes.is_multiple_of(8), "records are multiples of 8 bytes");
        let bytes = bytes as u64;
        let until_end = self.capacity - self.offset;
        let padding = if bytes > until_end { until_end } else { 0 };
        let head = self.head.checked_add(padding)?.checked_add(bytes)?;
        if head > self.limit && !self.look_for_room(head) {
            return None;
        }
        if padding > 0 {
            self.pad(padding);
        }
        self.memory.writes(self.offset, bytes);
        // SAFETY: `offset + bytes <= capacity`: either the record fits before the end, or the
        // offset is 0 now and `head <= tail + capacity` bounds the record's length.
        let start = unsafe { self.data.add(self.offset as usize) };
        self.head = head;
        self.offset += bytes;
        if self.offset == self.capacity {
            self.offset = 0;
        }
        Some(Slot { at: start, left: bytes as usize, producer: PhantomData })
    }

    /// Publishes every record reserved since the last commit.
    #[inline]
    pub fn commit(&mut self) {
        let bytes = self.head - self.committed;
        self.committed = self.head;
        self.memory.set_committed(self.head);
        if bytes > LINE {
            self.fetch_next(bytes);
        }
    }

    /// Brings the place of a next record that is like the last ones into the caches, while the caller
    /// does something else: a ring is larger than they are, so its own writes have left them long ago.
    #[inline]
    fn fetch_next(&self, bytes: u64) {
        let end = self.capacity.min(self.offset + bytes.min(FETCHED_BYTES));
        for at in (self.offset..end).step_by(LINE as usize) {
            platform::fetch_for_write(self.data.wrapping_add(at as usize));
        }
    }

    /// Forgets every record reserved since the last commit.
    pub fn rollback(&mut self) {
        self.head = self.committed;
        self.offset = self.committed % self.capacity;
    }

    /// Lsn behind the last reserved record: the next record's, unless padding comes before it.
    pub fn head(&self) -> Lsn {
        Lsn(self.head)
    }

    /// Bytes from the tail to the last reserved record, padding included.
    pub fn used(&self) -> u64 {
        self.head - self.memory.tail().0
    }

    /// Bytes of records the ring has room for.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    #[cold]
    fn look_for_room(&mut self, head: u64) -> bool {
        self.limit = self.memory.tail().0 + self.capacity;
        head <= self.limit
    }

    #[cold]
    fn pad(&mut self, bytes: u64) {
        let word = u64::from(PAD) | bytes << 32;
        let bytes = word.to_le_bytes();
        self.memory.writes(self.offset, bytes.len() as u64);
        // SAFETY: at least 8 bytes are left from `offset` to the end of the data, and below the
        // limit, so nobody reads them.
        unsafe {
            let at = self.data.add(self.offset as usize);
            ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
        self.offset = 0;
    }
}

/// Room for one record, filled from front to back.
///
/// Its length is known where [`Producer::reserve`] is inlined with a constant, and then the checks
/// below cost nothing; for arrays there is one a copy.
#[derive(Debug)]
pub struct Slot<'a> {
    at: *mut u8,
    left: usize,
    producer: PhantomData<&'a mut Producer>,
}

impl Slot<'_> {
    /// Bytes not filled yet.
    #[inline]
    pub fn left(&self) -> usize {
        self.left
    }

    /// The 8 bytes every record begins with: `kind u8, flags u8, 0 u16, word u32`.
    #[inline]
    pub fn put_header(&mut self, kind: u8, flags: u8, word: u32) {
        self.put_u64(u64::from(kind) | u64::from(flags) << 8 | u64::from(word) << 32);
    }

    /// # Panics
    ///
    /// When the slot is full, here and below: the length reserved was wrong.
    #[inline]
    pub fn put_u64(&mut self, value: u64) {
        self.put_bytes(&value.to_le_bytes());
    }

    /// See [`put_u64`](Self::put_u64).
    #[inline]
    pub fn put_i64(&mut self, value: i64) {
        self.put_bytes(&value.to_le_bytes());
    }

    /// See [`put_u64`](Self::put_u64).
    #[inline]
    pub fn put_u32(&mut self, value: u32) {
        self.put_bytes(&value.to_le_bytes());
    }

    /// See [`put_u64`](Self::put_u64).
    #[inline]
    pub fn put_f64(&mut self, value: f64) {
        self.put_bytes(&value.to_le_bytes());
    }

    /// See [`put_u64`](Self::put_u64).
    #[inline]
    pub fn put_f64s(&mut self, values: &[f64]) {
        self.put(values.as_ptr().cast(), size_of_val(values));
    }

    /// See [`put_u64`](Self::put_u64).
    #[inline]
    pub fn put_f32s(&mut self, values: &[f32]) {
        self.put(values.as_ptr().cast(), size_of_val(values));
    }

    /// See [`put_u64`](Self::put_u64).
    #[inline]
    pub fn put_i64s(&mut self, values: &[i64]) {
        self.put(values.as_ptr().cast(), size_of_val(values));
    }

    /// See [`put_u64`](Self::put_u64).
    #[inline]
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.as_ptr(), bytes.len());
    }

    /// Fills the rest with zeros: what lay there before must not show in padding.
    #[inline]
    pub fn fill(&mut self) {
        // SAFETY: `at .. at + left` is the slot's, inside the ring's data and below the limit.
        unsafe { ptr::write_bytes(self.at, 0, self.left) };
        self.at = self.at.wrapping_add(self.left);
        self.left = 0;
    }

    #[inline]
    fn put(&mut self, from: *const u8, bytes: usize) {
        assert!(bytes <= self.left, "a record is longer than what was reserved for it");
        // SAFETY: `from` is valid for `bytes` (all callers pass a slice's), the slot for `left`;
        // a caller's slice never lies in the ring, whose bytes are never lent.
        unsafe { ptr::copy_nonoverlapping(from, self.at, bytes) };
        self.at = self.at.wrapping_add(bytes);
        self.left -= bytes;
    }
}

//! How two threads touch what they share of a ring: its offsets atomically, its data in turns.
//!
//! It is the one place that a model checker has to know. Under `cfg(loom)` the offsets are loom's,
//! so that every order is tried that the memory model allows, and every access to the data is told
//! to it, so that it finds two that nothing orders. Otherwise all of this costs nothing.

#[cfg(not(loom))]
mod mapped {
    use std::sync::atomic::AtomicU64;

    use memmap2::MmapRaw;

    /// Offsets that lie in the mapping; accesses to the data are nobody's business.
    #[derive(Debug)]
    pub(in super::super) struct Access;

    impl Access {
        pub(in super::super) fn new(_capacity: u64) -> Self {
            Self
        }

        /// # Safety
        ///
        /// `at` is 8-aligned and inside the mapping, and never accessed but by this.
        #[inline]
        #[expect(clippy::unused_self, reason = "the offsets are its own under loom")]
        pub(in super::super) unsafe fn offset<'a>(
            &self,
            map: &'a MmapRaw,
            at: usize,
        ) -> &'a AtomicU64 {
            // SAFETY: the caller's; the mapping lives as long as the reference.
            unsafe { AtomicU64::from_ptr(map.as_mut_ptr().add(at).cast()) }
        }

        #[inline]
        #[expect(clippy::unused_self, reason = "used under loom")]
        pub(in super::super) fn writes(&self, _at: u64, _bytes: u64) {}

        #[inline]
        #[expect(clippy::unused_self, reason = "used under loom")]
        pub(in super::super) fn reads(&self, _at: u64, _bytes: u64) {}
    }
}

#[cfg(loom)]
mod modelled {
    use std::collections::HashMap;

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU64;
    use memmap2::MmapRaw;

    use super::super::memory::OFFSETS;

    /// So many bytes of data are told from the rest; more would make every model slower.
    pub(in super::super) const BLOCK_BYTES: u64 = 1024;

    /// Offsets of loom's, and who touched which block of the data.
    #[derive(Debug)]
    pub(in super::super) struct Access {
        offsets: HashMap<usize, AtomicU64>,
        blocks: Vec<UnsafeCell<()>>,
    }

    // SAFETY: the cells hold nothing; that they are touched by one thread at a time is what loom
    // checks.
    unsafe impl Sync for Access {}

    impl Access {
        pub(in super::super) fn new(capacity: u64) -> Self {
            Self {
                offsets: OFFSETS.iter().map(|at| (*at, AtomicU64::new(0))).collect(),
                blocks: (0..capacity / BLOCK_BYTES).map(|_| UnsafeCell::new(())).collect(),
            }
        }

        /// # Safety
        ///
        /// None needed.
        pub(in super::super) unsafe fn offset(&self, _map: &MmapRaw, at: usize) -> &AtomicU64 {
            &self.offsets[&at]
        }

        pub(in super::super) fn writes(&self, at: u64, bytes: u64) {
            self.blocks(at, bytes).for_each(|block| block.with_mut(|_| ()));
        }

        pub(in super::super) fn reads(&self, at: u64, bytes: u64) {
            self.blocks(at, bytes).for_each(|block| block.with(|_| ()));
        }

        fn blocks(&self, at: u64, bytes: u64) -> impl Iterator<Item = &UnsafeCell<()>> {
            let range = at / BLOCK_BYTES..(at + bytes).div_ceil(BLOCK_BYTES);
            self.blocks[range.start as usize..range.end as usize].iter()
        }
    }
}

#[cfg(not(loom))]
pub(super) use mapped::Access;
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub(super) use modelled::{Access, BLOCK_BYTES};

//! Windows: memory that a client shares with the servers it calls, for what does not fit in a message's words.
//!
//! A client has one window with a slot for each of its threads; a slot is used by one call at a time. Its first page
//! carries text and larger replies, the others data. Servers copy what they read, once, since the client can change
//! it under their hands; nothing in it is trusted.

use core::ptr;

use crate::layout::WINDOW;

/// Bytes of a slot.
pub const SLOT: u64 = 8 << 10;
/// Where a slot's data part begins; what is before is for text and replies.
pub const DATA: usize = 4 << 10;
/// Slots of a window.
pub const SLOTS: u32 = 512;
/// Bytes of a window.
pub const WINDOW_BYTES: u64 = SLOT * SLOTS as u64;

/// One slot as one side sees it; the client's or the server's address.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    base: *mut u8,
}

impl Slot {
    /// The slot `index` of the window that this program sees at `window`.
    ///
    /// # Safety
    /// A window is mapped there, or faults there are answered, for as long as the slot is used.
    #[must_use]
    #[inline(always)]
    pub const unsafe fn new(window: u64, index: u32) -> Self {
        Self { base: (window + (index % SLOTS) as u64 * SLOT) as *mut u8 }
    }

    /// The client's own.
    #[must_use]
    #[inline(always)]
    pub fn own(index: u32) -> Self {
        let mut window = WINDOW;
        // An address that the compiler does not know is added to once, and not anew for each word.
        // SAFETY: nothing is done.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) window, options(pure, nomem, nostack, preserves_flags))
        };
        // SAFETY: every program that has servers to call has its window there.
        unsafe { Self::new(window, index) }
    }

    /// Copies `bytes` to `offset`; what does not fit is left out. Returns how much was copied.
    #[inline]
    pub fn write(self, offset: usize, bytes: &[u8]) -> usize {
        let length = bytes.len().min((SLOT as usize).saturating_sub(offset));
        // SAFETY: within the slot; the other side may read meanwhile, and sees bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset.min(SLOT as usize)), length) };
        length
    }

    /// Copies from `offset` to `bytes`; returns how much there was.
    #[inline]
    pub fn read(self, offset: usize, bytes: &mut [u8]) -> usize {
        let length = bytes.len().min((SLOT as usize).saturating_sub(offset));
        // SAFETY: within the slot; the other side may write meanwhile, and any bytes will do.
        unsafe {
            ptr::copy_nonoverlapping(self.base.add(offset.min(SLOT as usize)), bytes.as_mut_ptr(), length)
        };
        length
    }

    /// Writes words from the slot's start on.
    #[inline(always)]
    pub fn write_words<const N: usize>(self, words: [u64; N]) {
        const { assert!(N * size_of::<u64>() <= DATA) };
        // SAFETY: within the slot, which is aligned to more than a word.
        unsafe { self.base.cast::<[u64; N]>().write_volatile(words) };
    }

    /// Writes one word, the `index`th from the slot's start on, before [`DATA`].
    #[inline(always)]
    pub fn write_word(self, index: usize, word: u64) {
        assert!(index < DATA / size_of::<u64>());
        // SAFETY: within the slot, as was just seen, which is aligned to more than a word.
        unsafe { self.base.cast::<u64>().add(index).write_volatile(word) };
    }

    /// Reads words from the slot's start on.
    #[inline(always)]
    #[must_use]
    pub fn read_words<const N: usize>(self) -> [u64; N] {
        const { assert!(N * size_of::<u64>() <= DATA) };
        // SAFETY: within the slot, which is aligned to more than a word; any words are valid.
        unsafe { self.base.cast::<[u64; N]>().read_volatile() }
    }

    /// Where the data part begins, which has [`SLOT`] less [`DATA`] bytes.
    #[must_use]
    #[inline(always)]
    pub const fn data(self) -> *mut u8 {
        // SAFETY: within the slot.
        unsafe { self.base.add(DATA) }
    }
}

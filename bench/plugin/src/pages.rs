//! A small translation cache for each vCPU, because asking QEMU for a physical address costs more than all
//! the rest of an access. As a processor's own, it may keep a translation until the guest invalidates it;
//! the model knows the instructions that do. Pages of devices are never kept.

/// Bits of an address inside a page.
pub const PAGE_BITS: u32 = 12;
/// Entries, direct-mapped by page number.
const ENTRIES: usize = 512;
/// Marks an entry that holds nothing: no page has this number.
const NOTHING: u64 = u64::MAX;

/// The cache.
pub struct Pages {
    entries: Box<[(u64, u64); ENTRIES]>,
}

impl Pages {
    /// An empty one.
    pub fn new() -> Self {
        Self { entries: Box::new([(NOTHING, 0); ENTRIES]) }
    }

    /// Physical address of `address`, if its page is kept.
    #[inline]
    pub fn find(&self, address: u64) -> Option<u64> {
        let page = address >> PAGE_BITS;
        let (tag, physical) = self.entries[page as usize % ENTRIES];
        (tag == page).then(|| physical + (address & ((1 << PAGE_BITS) - 1)))
    }

    /// Keeps the translation of `address`'s page.
    pub fn keep(&mut self, address: u64, physical: u64) {
        let page = address >> PAGE_BITS;
        self.entries[page as usize % ENTRIES] = (page, physical >> PAGE_BITS << PAGE_BITS);
    }

    /// The guest invalidated translations: forgets all.
    pub fn flush(&mut self) {
        self.entries.fill((NOTHING, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translations_are_kept_until_flushed_or_displaced() {
        let mut pages = Pages::new();
        assert_eq!(pages.find(0x1234), None);
        pages.keep(0x1234, 0xab_c234);
        assert_eq!(pages.find(0x1fff), Some(0xab_cfff));
        assert_eq!(pages.find(0x2000), None);
        pages.keep(0x1000 + ((ENTRIES as u64) << PAGE_BITS), 0x5000);
        assert_eq!(pages.find(0x1234), None, "another page in the same entry");
        pages.keep(0x1234, 0xab_c234);
        pages.flush();
        assert_eq!(pages.find(0x1234), None);
    }
}

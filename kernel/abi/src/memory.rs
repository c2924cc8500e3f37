//! Mapping memory, and what a pager is told and answers.

/// What may be done with mapped memory, and how it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u64);

impl Access {
    /// Reading; what is mapped can always be read.
    pub const READ: Self = Self(1);
    /// Writing; not together with executing.
    pub const WRITE: Self = Self(2);
    /// Executing.
    pub const EXECUTE: Self = Self(4);
    /// Fill the pages with zeroes first. Needs the right to write, and that nobody maps them.
    pub const ZERO: Self = Self(8);
    /// Take out what is mapped there already.
    pub const REPLACE: Self = Self(16);
    /// Map a large page where address and memory are aligned to one and all of it is mapped by this call: it takes
    /// one entry of a page table instead of 512. Each of its pages can still be unmapped alone.
    pub const LARGE: Self = Self(32);

    /// The three rights.
    pub const RIGHTS: Self = Self(7);

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A page fault as its region's pager sees it: a call with the region's badge and four words: the address, the
/// access ([`Access`], one of the rights), the offset of the address in the region, the address of the
/// instruction. The labels of the answer:
pub mod fault {
    /// Map a page at the fault's: word 0 is a memory capability of the pager's, word 1 the page in it, word 2 an
    /// [`super::Access`]. If a page is there by now that allows the access, it stays, unless the answer says
    /// `REPLACE`.
    pub const MAP: u64 = 0;
    /// The access can be tried again: the pager has mapped what it wants, or wants to be asked again.
    pub const RETRY: u64 = 1;
    /// Any other label: the access is an error of the program.
    pub const REFUSED: u64 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_and_manner_are_told_apart() {
        let access = Access::READ.with(Access::ZERO);
        assert!(access.contains(Access::READ) && !access.contains(Access::WRITE));
        assert_eq!(access.0 & Access::RIGHTS.0, Access::READ.0);
    }
}

//! Data split by key.
//!
//! **Idea.** A `T` for each part of the keys, each with a lock on lines of its own; for maps that all CPUs use by
//! different keys. CPUs meet only if their keys are in one part.
//!
//! **Source.** The partitioned clustered objects of Tornado (Gamsa et al., OSDI'99, section 3.1); multiplicative hashing
//! (Knuth, vol. 3, section 6.4).
//!
//! **Cost in lines moved.** Those of the part's lock and data if it was last used on another CPU; else none.
//!
//! ```
//! use std::collections::BTreeMap;
//! use smp::{clustered::Partitioned, host::Machine, lock::Spinning};
//! type Names = BTreeMap<u64, &'static str>;
//! let parts: [_; 8] = core::array::from_fn(|_| Partitioned::<Names, 4>::part(Names::new()));
//! let names = Partitioned::new(&parts);
//! let machine = Machine::new(1);
//! let cpu = machine.claim(smp::CpuId::BOOT);
//! names.with(&Spinning::new(&machine, cpu), 17, |part| part.insert(17, "seventeen"));
//! assert_eq!(names.with(&Spinning::new(&machine, cpu), 17, |part| part.len()), 1);
//! ```

use crossbeam_utils::CachePadded;

use crate::lock::{Class, Mcs, Wait};

/// A `T` for each part of the keys, each with a lock.
#[derive(Debug)]
pub struct Partitioned<'m, T, const CLASS: Class, H = ()> {
    parts: &'m [CachePadded<Mcs<T, CLASS, H>>],
}

impl<'m, T, const CLASS: Class, H: Copy> Partitioned<'m, T, CLASS, H> {
    /// One part, for the slice that [`Partitioned::new`] is given.
    pub fn part(value: T) -> CachePadded<Mcs<T, CLASS, H>> {
        CachePadded::new(Mcs::new(value))
    }

    /// Data in these parts.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub const fn new(parts: &'m [CachePadded<Mcs<T, CLASS, H>>]) -> Self {
        assert!(!parts.is_empty(), "data needs at least one part");
        Self { parts }
    }

    /// Calls `work` with the part that `key` belongs to.
    pub fn with<W: Wait<Thread = H>, R>(&self, wait: &W, key: u64, work: impl FnOnce(&mut T) -> R) -> R {
        // Fibonacci hashing (Knuth, vol. 3, section 6.4): neighbouring keys come far apart; then the high bits.
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let hash = u128::from(key.wrapping_mul(GOLDEN));
        let part = (hash * self.parts.len() as u128) >> u64::BITS;
        self.parts[part as usize].with(wait, work)
    }
}

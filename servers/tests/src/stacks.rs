//! Memory for stacks that a part needs on every CPU there may be. A program plays one part, so all parts take what they
//! need from one area: the program stays small, and tests can start many of it.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// CPUs that there may be.
pub const MOST_CPUS: usize = 256;
/// Bytes of a stack.
pub const STACK: usize = 4096;

/// What the part that needs most takes on [`MOST_CPUS`] CPUs, in stacks a CPU.
const MOST_A_CPU: usize = 8;

#[repr(C, align(4096))]
struct Area([u8; STACK * MOST_CPUS * MOST_A_CPU]);

static mut AREA: Area = Area([0; STACK * MOST_CPUS * MOST_A_CPU]);
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Stacks for every CPU, which are taken from the area when they are first asked for. Any thread may ask.
#[derive(Debug)]
pub struct Stacks {
    a_cpu: usize,
    at: AtomicU64,
}

/// Not taken yet; somebody is taking them.
const NOWHERE: u64 = 0;
const ON_THE_WAY: u64 = 1;

impl Stacks {
    /// So many stacks for each CPU.
    pub const fn new(a_cpu: usize) -> Self {
        Self { a_cpu, at: AtomicU64::new(NOWHERE) }
    }

    /// Where they begin; those of a CPU lie together.
    pub fn address(&self) -> u64 {
        let taken = self.at.compare_exchange(NOWHERE, ON_THE_WAY, Ordering::Acquire, Ordering::Acquire);
        if taken.is_ok() {
            let bytes = self.a_cpu * MOST_CPUS * STACK;
            let offset = TAKEN.fetch_add(bytes, Ordering::Relaxed);
            assert!(offset + bytes <= size_of::<Area>(), "the area is too small for this part");
            self.at.store(&raw const AREA as u64 + offset as u64, Ordering::Release);
        }
        loop {
            match self.at.load(Ordering::Acquire) {
                ON_THE_WAY => core::hint::spin_loop(),
                at => return at,
            }
        }
    }

    /// The end of the `index`th stack, for a thread that starts there: as if a call had pushed its return address.
    pub fn end_of(&self, index: usize) -> *mut u8 {
        assert!(index < self.a_cpu * MOST_CPUS);
        (self.address() + ((index + 1) * STACK - size_of::<u64>()) as u64) as *mut u8
    }
}

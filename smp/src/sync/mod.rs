//! Where this crate takes its atomics from: the language's, or under `--cfg loom` the model checker's.
//!
//! **Idea.** Nothing else here names `core::sync::atomic`, so that the code which is model-checked is the code
//! that runs. The checker weakens sequentially consistent accesses, so every handshake here uses fences.
//!
//! **Source.** CDSChecker (Norris and Demsky, OOPSLA'13), which `loom` follows; the memory model is that of C11.
//!
//! **Cost in lines moved.** None: every function is an inlined call of the language's own.
//!
//! ```
//! use smp::sync::{AtomicU64, Ordering, fence_after_rmw};
//! let [mine, yours] = [AtomicU64::new(0), AtomicU64::new(0)];
//! // Says that it comes, then looks whether the other one does: on x86-64 without another instruction.
//! mine.swap(1, Ordering::AcqRel);
//! fence_after_rmw();
//! assert_eq!(yours.load(Ordering::Acquire), 0);
//! ```

#[cfg(loom)]
mod checked;

#[cfg(loom)]
pub use checked::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub use loom::sync::atomic::{Ordering, fence};

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub use loom::cell::UnsafeCell;

/// A cell whose accesses the model checker can see; otherwise `core::cell::UnsafeCell`.
#[cfg(not(loom))]
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// The value of a cell that is owned.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }

    /// Reads through the pointer that `f` is given; `f` answers for the access being free of races.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Writes through the pointer that `f` is given; `f` answers for the access being exclusive.
    #[inline(always)]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A full fence between an atomic read-modify-write before it and a load after it, in any order of
/// memory that the language allows.
///
/// On x86-64 a locked instruction is a full fence already, so that only the compiler is held back;
/// elsewhere, and under the model checker or Miri, it is a sequentially consistent fence.
#[inline(always)]
pub fn fence_after_rmw() {
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
    fence(Ordering::SeqCst);
}

/// Tells the processor (or the model checker) that this is a turn of a waiting loop.
#[inline(always)]
pub fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(any(loom, test, feature = "host")))]
    core::hint::spin_loop();
    // The host may have fewer CPUs than threads.
    #[cfg(all(not(loom), any(test, feature = "host")))]
    std::thread::yield_now();
}

/// Declares a constructor that is `const`, except under the model checker, whose atomics are made at
/// run time.
macro_rules! const_new {
    ($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])*
        pub const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])*
        pub fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use const_new;

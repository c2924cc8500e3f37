//! Building blocks for software that scales with the number of CPUs: everything here is local by
//! default, and what is not says so and counts what it costs in cache lines moved.
//!
//! The same code runs in the kernel, in user-level servers and in host tests. It depends on nothing
//! else in this repository, needs no allocator (memory comes from the caller or from a backing store
//! that may answer "exhausted"), and never panics on a path that a hostile caller can reach.
//!
//! Read the modules in this order:
//!
//! 1. [`platform`]: what the code runs on; [`Cpu`], the token that says "I am on this CPU".
//! 2. [`cpu_set`] and [`per_cpu`]: naming CPUs, and storage that belongs to one of them.
//! 3. [`chain`] and [`mailbox`]: lists that allocate nothing, and how a CPU is sent one.
//! 4. [`lock`]: for the few places where CPUs share on purpose.
//! 5. [`backing`] and [`pool`]: where memory comes from, and blocks of it for each CPU.
//! 6. [`clustered`]: objects with a representative on each CPU: counters, accounts, replicated values.
//! 7. [`grace`]: when an object may be freed that others may still be using.
//! 8. [`remote`] and [`shootdown`]: work for other CPUs now, above all to forget translations.
//! 9. [`range_map`]: address spaces.
//! 10. [`marker`]: how running code speaks to the measuring instrument; [`flaw`]: how the tests are tested.
//!
//! # How it is tested
//!
//! `cargo test -p smp` runs unit tests, the examples on these pages and property tests against
//! sequential models. `RUSTFLAGS="--cfg loom" cargo test -p smp --lib --release` runs the model checks:
//! the [`mod@sync`] module then takes its atomics from `loom`, which tries the interleavings and the stale
//! values that the C11 memory model allows, within the bounds that each test names. For each
//! concurrent primitive a deliberately broken variant is kept as a test that must fail.
#![cfg_attr(not(any(test, feature = "host")), no_std)]

pub mod backing;
pub mod chain;
pub mod clustered;
pub mod cpu_set;
pub mod flaw;
pub mod grace;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod lock;
pub mod mailbox;
pub mod marker;
pub mod per_cpu;
pub mod platform;
pub mod pool;
pub mod range_map;
pub mod remote;
pub mod shootdown;
pub mod sync;

pub use platform::{Cpu, CpuId, Platform};

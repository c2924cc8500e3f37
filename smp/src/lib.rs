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
//! 9. [`range_map`]: address spaces; [`sparse`]: walking almost empty nodes.
//! 10. [`marker`]: how running code speaks to the measuring instrument; [`flaw`]: how the tests are tested.
//!
//! # Who uses it
//!
//! In this repository: the attributes of the file server's inodes are a replicated value, its files are counted by a
//! distributed counter and its pages paid from a clustered account ([`clustered`]); balances and credits pay the kernel's
//! memory; the kernel's regions are a [`range_map`] with records from a [`pool`], each behind a sequence lock; its threads
//! wait in queues under MCS [`lock`]s, and a program's threads at a mutex park in one; its objects go by [`grace`] periods;
//! it asks other CPUs by [`mailbox`]es, [`remote`] calls and the [`shootdown`]; all of these lie in its per-CPU areas by
//! [`per_cpu::Storage`], where its tests and the lab's workloads use [`per_cpu::PerCpu`].
//!
//! # In a kernel
//!
//! A kernel has one area a CPU, made when that CPU is started, and no time to look anything up. So each structure
//! takes where its per-CPU parts lie as a parameter ([`per_cpu::Storage`]), which a kernel implements on a type without
//! size, and is made by a `const` constructor (`over`, and `new` of the parts), so that it is a `static`:
//!
//! ```
//! use smp::grace::{Grace, Local, Tree, TreeNode};
//! use smp::{Cpu, CpuId, Platform, host::Machine, per_cpu::Storage, platform::MAX_CPUS};
//! /// What others may touch of a CPU. In a kernel it lies in the CPU's area.
//! struct Public { grace: Local }
//! static AREAS: [Public; 2] = [const { Public { grace: Local::new(64) } }; 2];
//! struct InPublic;
//! // SAFETY: an area belongs to one CPU.
//! unsafe impl Storage<Local> for InPublic {
//!     fn local<'a>(&'a self, cpu: Cpu<'a>) -> &'a Local { &AREAS[cpu.id().index()].grace }
//!     fn remote(&self, id: CpuId) -> Option<&Local> { AREAS.get(id.index()).map(|area| &area.grace) }
//!     fn count(&self) -> usize { AREAS.len() }
//! }
//! static TREE: [TreeNode; Tree::nodes(MAX_CPUS)] = [const { TreeNode::new() }; Tree::nodes(MAX_CPUS)];
//! static GRACE: Grace<'_, InPublic> = Grace::over(InPublic, &TREE);
//! let machine = Machine::new(2);
//! machine.run(|cpu| {
//!     GRACE.enter(cpu);
//!     GRACE.leave(&machine, cpu);
//! });
//! ```
//!
//! # How it is tested
//!
//! `cargo test -p smp` runs unit tests, the examples on these pages and property tests against
//! sequential models. `RUSTFLAGS="--cfg loom" cargo test -p smp --lib --release` runs the model checks:
//! the [`mod@sync`] module then takes its atomics from `loom`, which tries the interleavings and the stale
//! values that the C11 memory model allows, within the bounds that each test names. For each
//! concurrent primitive a deliberately broken variant is kept as a test that must fail. `cargo xtask test --filter
//! host/smp` counts the instructions of the hot paths by single-stepping them, and `--filter figures/smp` the lines
//! that they move at 32 CPUs. Where Miri is there, `MIRIFLAGS="-Zmiri-permissive-provenance -Zmiri-ignore-leaks" cargo miri test -p smp
//! --lib` finds undefined behaviour (the property tests take long there).
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
pub mod sparse;
pub mod sync;

pub use platform::{Cpu, CpuId, Platform};

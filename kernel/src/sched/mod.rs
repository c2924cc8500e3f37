//! Threads and when they run: per-CPU queues of fixed priorities, waits with deadlines, what one CPU asks of
//! another.
//!
//! A thread belongs to one CPU. Only that CPU touches it; other CPUs ask it to, by [`letter`]s.
//! Everything here runs on the thread's CPU unless it says otherwise.

pub mod errand;
pub mod join;
pub mod letter;
pub mod life;
pub mod queue;
pub mod remote;
pub mod thread;
pub mod timer;
pub mod wait;

pub use thread::{State, Thread};

//! Building blocks for software that scales with the number of CPUs: everything here is local by
//! default, and what is not says so and counts what it costs in cache lines moved.
//!
//! The same code runs in the kernel, in user-level servers and in host tests. It depends on nothing
//! else in this repository.
#![no_std]

pub mod marker;

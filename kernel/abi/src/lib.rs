//! The contract between the kernel and user code: system-call numbers, message layout, errors, limits.
//!
//! Linked by the kernel and by every user program; depends on nothing.
#![no_std]

//! The user runtime.
#![no_std]

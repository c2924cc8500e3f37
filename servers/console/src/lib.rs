//! What the console does with keys and text, apart from the device: [`editor`] edits a line, [`keys`] takes
//! keys from bytes, [`history`] remembers lines, [`saved`] is what outlives the server. Tested on the host.
#![no_std]

extern crate alloc;

pub mod editor;
pub mod history;
pub mod keys;
pub mod saved;

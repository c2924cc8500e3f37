//! The user runtime: what every program that runs on the kernel links.
//!
//! [`main!`] makes a function a program's start, [`server!`] a type a server ([`start`], which also has what a program is
//! given); [`call`] has the system calls, [`memory`], [`program`] and [`io`] those about memory, other programs and devices;
//! [`log!`] writes to the early console. A panic logs its message and ends the program. [`here`] is what a thread knows of
//! itself, [`layout`] says where things are in every program.
//!
//! For clients: [`service`] (typed calls; [`interface!`] describes a service once) and [`errno`] (why one was refused), [`window`]
//! (what does not fit in a message), [`items`] (a capability that goes with one), [`thread`], [`mutex`], [`barrier`],
//! [`pipe`], [`heap`].
//! For servers besides: [`mod@server`] (a replica a CPU), [`saved`] (what outlives the server), [`archive`].
#![no_std]

extern crate alloc;

pub mod archive;
pub mod barrier;
pub mod call;
pub mod errno;
pub mod heap;
pub mod here;
pub mod interface;
pub mod io;
pub mod items;
pub mod layout;
pub mod memory;
pub mod mutex;
pub mod pipe;
pub mod program;
pub mod saved;
pub mod server;
pub mod service;
pub mod start;
pub mod thread;
pub mod window;

use core::fmt::{self, Write};

/// Collects a line of text for one `Log` call; what does not fit is cut.
struct Line {
    bytes: [u8; Line::CAPACITY],
    length: usize,
}

impl Line {
    const CAPACITY: usize = 256;
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let end = self.length + c.len_utf8();
            if end > Self::CAPACITY {
                return Err(fmt::Error);
            }
            c.encode_utf8(&mut self.bytes[self.length..end]);
            self.length = end;
        }
        Ok(())
    }
}

/// Writes one line to the early console, at most 256 bytes of it.
pub fn log_line(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; Line::CAPACITY], length: 0 };
    // A text that is too long is cut: that is all that can fail.
    let _ = line.write_fmt(text);
    // A message that the kernel refuses can't be reported anywhere else.
    let _ = call::log(&line.bytes[..line.length]);
}

/// Logs one line, as `println!` does.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::log_line(format_args!($($argument)*)) };
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    log!("{info}");
    call::exit(1)
}

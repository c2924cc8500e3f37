//! The user runtime: what every program that runs on the kernel links.
//!
//! [`program!`] makes a function the program's start; [`call`] has the system calls; [`log!`] writes to the
//! early console. A panic logs its message and ends the program.
#![no_std]

pub mod call;
pub mod io;
pub mod memory;
pub mod start;

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

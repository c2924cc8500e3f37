//! The first server.
#![no_std]
#![no_main]
use rt as _;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

//! The kernel image.
#![no_std]
#![no_main]
use kernel as _;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

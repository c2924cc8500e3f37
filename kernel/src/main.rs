//! The kernel image: the library and what the language wants of a program.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    kernel::panic::panic(info)
}

#[cfg(not(target_os = "none"))]
fn main() {
    use kernel as _;
    eprintln!("this is the kernel; `cargo xtask run` builds it for the bare machine and starts it");
    std::process::exit(2);
}

//! The smallest program that can be started and waited for: it ends with status 0 at once.
#![cfg_attr(not(test), no_std, no_main)]

/// Where the kernel starts the program.
///
/// # Safety
/// Called by the kernel only, as the first code of a fresh process.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _start() -> ! {
    /// The number of the system call `exit`.
    const EXIT: u32 = 60;
    // SAFETY: `exit` takes its status in a register, touches no memory of ours and does not return.
    unsafe {
        core::arch::asm!("syscall", in("eax") EXIT, in("edi") 0, options(noreturn, nostack));
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

//! System calls, one function each; `abi` documents them.

use abi::{Call, Error};

/// Makes a system call.
#[inline(always)]
fn raw(call: Call, arguments: [u64; 4]) -> Result<u64, Error> {
    abi::decode(raw_number(call as u64, arguments))
}

/// Makes the system call of this number, which need not exist; returns the result register.
#[inline(always)]
pub fn raw_number(number: u64, [first, second, third, fourth]: [u64; 4]) -> u64 {
    let result;
    // SAFETY: the kernel checks all it is given, reads and writes no memory of ours but what the arguments
    // name, and keeps the registers that are not listed here.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") first => _,
            inlateout("rsi") second => _,
            inlateout("rdx") third => _,
            inlateout("r10") fourth => _,
            lateout("rcx") _,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// Enters the kernel and comes back.
#[inline(always)]
pub fn null() -> Result<u64, Error> {
    raw(Call::Null, [0; 4])
}

/// Writes a line of at most 256 bytes.
pub fn log(text: &[u8]) -> Result<(), Error> {
    raw(Call::Log, [text.as_ptr() as u64, text.len() as u64, 0, 0]).map(drop)
}

/// Number of the CPU that the caller runs on.
#[must_use]
pub fn cpu_number() -> u32 {
    raw(Call::CpuNumber, [0; 4]).unwrap_or_default() as u32
}

/// CPUs of the machine.
#[must_use]
pub fn cpu_count() -> u32 {
    raw(Call::CpuCount, [0; 4]).unwrap_or_default() as u32
}

/// Lets other ready threads of this CPU run first.
pub fn yield_now() {
    // Yielding has no error.
    let _ = raw(Call::Yield, [0; 4]);
}

/// Starts a thread of this program on `cpu`, at `entry` with `argument`, its stack ending at `stack`.
///
/// # Safety
/// `stack` is the end of memory that only the new thread uses, 8 below a multiple of 16.
pub unsafe fn thread_start(
    cpu: u32,
    entry: extern "C" fn(u64) -> !,
    stack: *mut u8,
    argument: u64,
) -> Result<(), Error> {
    raw(Call::ThreadStart, [cpu.into(), entry as usize as u64, stack as u64, argument]).map(drop)
}

/// Ends the calling thread.
pub fn thread_exit() -> ! {
    let _ = raw(Call::ThreadExit, [0; 4]);
    unreachable!("the kernel does not return from ThreadExit")
}

/// Ends the program; 0 is success.
pub fn exit(status: u64) -> ! {
    loop {
        let _ = raw(Call::Exit, [status, 0, 0, 0]);
    }
}

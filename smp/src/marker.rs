//! Markers: what running code tells the measuring instrument.
//!
//! **Idea.** A marker is one 7-byte NOP, `0F 1F 80` and a little-endian `0x5C110000 | verb << 8 | arg`, which the
//! instrument finds when it translates the code. It touches no memory and no flag, so it stays in release code, and
//! what is measured is what runs. Any program, in user or kernel mode, may use it.
//!
//! **Source.** The magic instructions of Simics (Magnusson et al., IEEE Computer 35/2, 2002), here of a kind that every
//! x86-64 processor does nothing at; the verbs are the instrument's.
//!
//! **Cost in lines moved.** None; one instruction.
//!
//! ```
//! use smp::marker::{ENTER, LEAVE, OPERATION, immediate, mark};
//! const WORKLOAD: u8 = 200;
//! mark::<ENTER, WORKLOAD>();
//! for _ in 0..3 {
//!     // What is measured.
//!     mark::<OPERATION, WORKLOAD>();
//! }
//! mark::<LEAVE, WORKLOAD>();
//! assert_eq!(immediate(OPERATION, WORKLOAD), 0x5C11_03C8);
//! ```

/// Verb 1: this CPU enters the region of interest of a workload.
pub const ENTER: u32 = 1;
/// Verb 2: this CPU leaves the region of interest of a workload.
pub const LEAVE: u32 = 2;
/// Verb 3: one operation of a workload is complete.
pub const OPERATION: u32 = 3;
/// Verb 4: a lock was found taken (slow path only); the argument is the lock's class.
pub const CONTENDED: u32 = 4;
/// Verb 5: entry of a handler of inter-processor interrupts; the argument is the kind.
pub const IPI_HANDLER: u32 = 5;

/// The immediate of the marker NOP for `verb` and `arg`.
#[must_use]
pub const fn immediate(verb: u32, arg: u8) -> u32 {
    0x5C11_0000 | verb << 8 | arg as u32
}

/// Marks this point of the instruction stream. Any CPU, any mode; one instruction, no memory access.
#[inline(always)]
pub fn mark<const VERB: u32, const ARG: u8>() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the bytes encode `nop dword ptr [rax + disp32]`, which reads and writes nothing, not even
    // flags, and does not access the memory that it names.
    unsafe {
        core::arch::asm!(
            ".byte 0x0f, 0x1f, 0x80",
            ".long {imm}",
            imm = const immediate(VERB, ARG),
            options(nomem, nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediate_packs_verb_and_argument() {
        assert_eq!(immediate(OPERATION, 201), 0x5C11_03C9);
    }
}

//! Recognises the few x86-64 instructions whose cost differs from one cycle, from their bytes.
//!
//! Only prefixes, opcode and ModRM are looked at. 16- and 32-bit code (boot loaders, trampolines) may be
//! misread; it is never measured.

/// What an instruction is to the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The event that it causes beyond being an instruction.
    pub event: Event,
    /// Locked read-modify-write (a `lock` prefix, or `xchg` with memory).
    pub locked: bool,
    /// A string instruction with a repeat prefix.
    pub string: bool,
    /// It can make the processor forget address translations.
    pub flushes: bool,
}

/// Events that single instructions cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// Nothing special.
    #[default]
    None,
    /// `syscall`.
    Syscall,
    /// `sysret`.
    Sysret,
    /// `iret` in any width.
    Iret,
    /// A write of CR3.
    WriteCr3,
    /// A write of CR0, and `clts`.
    WriteCr0,
    /// `invlpg`, `invpcid`.
    Invlpg,
    /// `swapgs` and the four instructions that read and write FS and GS bases.
    Swapgs,
    /// `wrmsr`.
    Wrmsr,
    /// `rdmsr`.
    Rdmsr,
    /// `pause`.
    Pause,
    /// `xsave`, `xrstor`, `fxsave`, `fxrstor` and their variants.
    Xsave,
    /// A marker: verb and argument.
    Marker(u8, u8),
}

const MARKER_PREFIX: [u8; 3] = [0x0f, 0x1f, 0x80];
const MARKER_MAGIC: u16 = 0x5c11;

/// ModRM fields.
#[derive(Clone, Copy)]
struct ModRm(u8);

impl ModRm {
    fn is_memory(self) -> bool {
        self.0 >> 6 != 3
    }
    fn reg(self) -> u8 {
        self.0 >> 3 & 7
    }
}

#[derive(Clone, Copy, Default)]
struct Prefixes {
    operand_size: bool,
    repeat: bool,
    repeat_f3: bool,
    lock: bool,
    length: usize,
}

fn prefixes(bytes: &[u8]) -> Prefixes {
    let mut found = Prefixes::default();
    for &byte in bytes {
        match byte {
            0x66 => found.operand_size = true,
            0xf2 => found.repeat = true,
            0xf3 => (found.repeat, found.repeat_f3) = (true, true),
            0xf0 => found.lock = true,
            0x67 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0x40..=0x4f => {}
            _ => break,
        }
        found.length += 1;
    }
    found
}

/// Decodes the instruction that `bytes` start with.
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded {
    if let Some(event) = marker(bytes) {
        return Decoded { event, ..Decoded::default() };
    }
    let prefix = prefixes(bytes);
    let code = &bytes[prefix.length..];
    let at = |i: usize| code.get(i).copied().unwrap_or(0);
    match at(0) {
        0x0f => Decoded {
            event: two_byte(prefix, at(1), ModRm(at(2)), at(2)),
            locked: prefix.lock,
            flushes: is_flush(prefix, at(1), ModRm(at(2)), at(2)),
            string: false,
        },
        0x86 | 0x87 => Decoded { locked: ModRm(at(1)).is_memory(), ..Decoded::default() },
        0x90 if prefix.repeat_f3 => Decoded { event: Event::Pause, ..Decoded::default() },
        0xcf => Decoded { event: Event::Iret, ..Decoded::default() },
        0xa4..=0xa7 | 0xaa..=0xaf | 0x6c..=0x6f => Decoded { string: prefix.repeat, ..Decoded::default() },
        _ => Decoded { locked: prefix.lock, ..Decoded::default() },
    }
}

fn marker(bytes: &[u8]) -> Option<Event> {
    let rest = bytes.strip_prefix(&MARKER_PREFIX)?;
    let [arg, verb, low, high] = *rest.first_chunk()?;
    (u16::from_le_bytes([low, high]) == MARKER_MAGIC).then_some(Event::Marker(verb, arg))
}

/// Writes of control registers, `invlpg`, `invpcid`.
fn is_flush(prefix: Prefixes, opcode: u8, modrm: ModRm, third: u8) -> bool {
    opcode == 0x22 || two_byte(prefix, opcode, modrm, third) == Event::Invlpg
}

/// Opcodes after `0F`; `third` is the byte after the opcode where no ModRM is meant.
fn two_byte(prefix: Prefixes, opcode: u8, modrm: ModRm, third: u8) -> Event {
    match opcode {
        0x01 if third == 0xf8 => Event::Swapgs,
        0x01 if modrm.is_memory() && modrm.reg() == 7 => Event::Invlpg,
        0x05 => Event::Syscall,
        0x06 => Event::WriteCr0,
        0x07 => Event::Sysret,
        0x22 if modrm.reg() == 3 => Event::WriteCr3,
        0x22 if modrm.reg() == 0 => Event::WriteCr0,
        0x30 => Event::Wrmsr,
        0x32 => Event::Rdmsr,
        0x38 if third == 0x82 && prefix.operand_size => Event::Invlpg,
        0xae if modrm.is_memory() => match modrm.reg() {
            0 | 1 | 4 | 5 => Event::Xsave,
            6 if !prefix.operand_size => Event::Xsave,
            _ => Event::None,
        },
        0xae if prefix.repeat_f3 && modrm.reg() < 4 => Event::Swapgs,
        0xc7 if modrm.is_memory() && (3..=5).contains(&modrm.reg()) => Event::Xsave,
        _ => Event::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: &[u8]) -> Event {
        decode(bytes).event
    }

    #[test]
    fn events_are_recognised() {
        let cases: &[(&[u8], Event)] = &[
            (&[0x0f, 0x05], Event::Syscall),
            (&[0x48, 0x0f, 0x07], Event::Sysret),
            (&[0x48, 0xcf], Event::Iret),
            (&[0x0f, 0x22, 0xd8], Event::WriteCr3),
            (&[0x0f, 0x22, 0xc0], Event::WriteCr0),
            (&[0x0f, 0x22, 0xe0], Event::None),
            (&[0x0f, 0x06], Event::WriteCr0),
            (&[0x0f, 0x01, 0x38], Event::Invlpg),
            (&[0x66, 0x0f, 0x38, 0x82, 0x00], Event::Invlpg),
            (&[0x0f, 0x01, 0xf8], Event::Swapgs),
            (&[0xf3, 0x48, 0x0f, 0xae, 0xd0], Event::Swapgs),
            (&[0x0f, 0x30], Event::Wrmsr),
            (&[0x0f, 0x32], Event::Rdmsr),
            (&[0xf3, 0x90], Event::Pause),
            (&[0x90], Event::None),
            (&[0x48, 0x0f, 0xae, 0x20], Event::Xsave),
            (&[0x48, 0x0f, 0xc7, 0x21], Event::Xsave),
            (&[0x0f, 0xae, 0xf0], Event::None),
            (&[0x0f, 0xae, 0xe8], Event::None),
            (&[0x66, 0x0f, 0xae, 0x33], Event::None),
            (&[0x0f, 0x1f, 0x80, 0xc9, 0x03, 0x11, 0x5c], Event::Marker(3, 201)),
            (&[0x0f, 0x1f, 0x80, 0xc9, 0x03, 0x11, 0x5d], Event::None),
        ];
        for (bytes, want) in cases {
            assert_eq!(event(bytes), *want, "{bytes:02x?}");
        }
    }

    #[test]
    fn locked_and_string_instructions_are_recognised() {
        assert!(decode(&[0xf0, 0x48, 0xff, 0x00]).locked);
        assert!(decode(&[0xf0, 0x0f, 0xb1, 0x0a]).locked);
        assert!(decode(&[0x48, 0x87, 0x07]).locked);
        assert!(!decode(&[0x48, 0x87, 0xc7]).locked);
        assert!(decode(&[0xf3, 0x48, 0xab]).string);
        assert!(!decode(&[0x48, 0xab]).string);
        assert!(!decode(&[0x48, 0xff, 0x00]).locked);
    }

    #[test]
    fn instructions_that_flush_translations_are_recognised() {
        let flushes: &[&[u8]] = &[&[0x0f, 0x22, 0xd8], &[0x0f, 0x22, 0xe0], &[0x0f, 0x01, 0x38]];
        assert!(flushes.iter().all(|bytes| decode(bytes).flushes));
        assert!(!decode(&[0x0f, 0x05]).flushes && !decode(&[0x90]).flushes);
    }

    #[test]
    fn truncated_bytes_are_nothing_special() {
        for length in 0..4 {
            assert_eq!(decode(&[0x0f, 0x1f, 0x80, 0xc9][..length]), Decoded::default());
        }
    }
}

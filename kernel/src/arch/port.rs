//! Accesses to I/O ports on behalf of programs.

use x86_64::instructions::port::Port;

/// How many bytes an access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One.
    Byte,
    /// Two.
    Word,
    /// Four.
    Long,
}

impl Width {
    /// The width of so many bytes.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Long),
            _ => None,
        }
    }

    /// Bytes of this width, which are also the ports that an access takes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Long => 4,
        }
    }
}

/// Reads a port, for a program that has a capability to it.
#[must_use]
pub fn read(port: u16, width: Width) -> u32 {
    // SAFETY: what a device does is its driver's concern: the program was given the port. Ports that reach memory
    // (by DMA) or end the machine are trusted to whoever holds them.
    unsafe {
        match width {
            Width::Byte => Port::<u8>::new(port).read().into(),
            Width::Word => Port::<u16>::new(port).read().into(),
            Width::Long => Port::new(port).read(),
        }
    }
}

/// Writes a port, for a program that has a capability to it; what of `value` is beyond the width is dropped.
pub fn write(port: u16, width: Width, value: u32) {
    // SAFETY: as in `read`.
    unsafe {
        match width {
            Width::Byte => Port::new(port).write(value as u8),
            Width::Word => Port::new(port).write(value as u16),
            Width::Long => Port::new(port).write(value),
        }
    }
}

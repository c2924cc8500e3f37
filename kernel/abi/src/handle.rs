//! Handles: how a program names its capabilities.

/// A place in the program's capability table, and the generation of what is there.
///
/// From the lowest bit: slot (12 bits), CPU whose part of the table it is in (9), a one, generation (32). A handle is
/// below [`crate::FIRST_ERROR`], and 0 is never one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub u64);

impl Handle {
    /// Bits of a slot's number.
    pub const SLOT_BITS: u32 = 12;
    /// Bits of a CPU's number.
    pub const CPU_BITS: u32 = 9;
    /// Where the one is, and above it the generation.
    pub const LIFE_SHIFT: u32 = Self::SLOT_BITS + Self::CPU_BITS;
    /// Bits of a handle.
    pub const BITS: u32 = Self::LIFE_SHIFT + 1 + 32;
    /// Slots of one CPU's part of a table.
    pub const SLOTS: usize = 1 << Self::SLOT_BITS;

    /// Puts a handle together.
    #[must_use]
    pub const fn new(cpu: u32, slot: u32, generation: u32) -> Self {
        let place = (cpu as u64) << Self::SLOT_BITS | slot as u64;
        Self(place | ((generation as u64) << 1 | 1) << Self::LIFE_SHIFT)
    }

    /// The CPU in whose part of the table it is.
    #[must_use]
    #[inline]
    pub const fn cpu(self) -> usize {
        (self.0 >> Self::SLOT_BITS) as usize & ((1 << Self::CPU_BITS) - 1)
    }

    /// The slot in that part.
    #[must_use]
    #[inline]
    pub const fn slot(self) -> usize {
        self.0 as usize & (Self::SLOTS - 1)
    }

    /// The generation; what does not fit in 32 bits matches none.
    #[must_use]
    #[inline]
    pub const fn generation(self) -> u64 {
        self.life() >> 1
    }

    /// The generation and the one below it, as a slot in use has them side by side.
    #[must_use]
    #[inline]
    pub const fn life(self) -> u64 {
        self.0 >> Self::LIFE_SHIFT
    }
}

/// Kinds of kernel objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A thread.
    Thread = 1,
    /// Mappings and a capability table.
    AddressSpace = 2,
    /// Where a server is called.
    Endpoint = 3,
    /// Bits that one thread waits for.
    Notification = 4,
    /// The right to place threads on CPUs.
    CpuControl = 5,
    /// A range of physical memory.
    Memory = 6,
    /// Who pays for kernel memory.
    Account = 7,
    /// A caller that waits for its reply, which its server gives later: [`crate::Call::Call`] of it replies, once.
    Reply = 8,
    /// An interrupt that is bound to a notification.
    Interrupt = 9,
    /// A range of I/O ports.
    Ports = 10,
    /// An endpoint's replica on a certain CPU: a call of it is served there, from whatever CPU it is made.
    Replica = 11,
}

impl Kind {
    /// Numbers of kinds are below this.
    pub const LIMIT: usize = 12;

    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Thread,
            2 => Self::AddressSpace,
            3 => Self::Endpoint,
            4 => Self::Notification,
            5 => Self::CpuControl,
            6 => Self::Memory,
            7 => Self::Account,
            8 => Self::Reply,
            9 => Self::Interrupt,
            10 => Self::Ports,
            11 => Self::Replica,
            _ => return None,
        })
    }
}

/// What a capability allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(pub u16);

impl Rights {
    /// Endpoint, also its replica on another CPU: call. Notification: notify. Thread: join. Address space: make threads
    /// in it, grant to it, map into it. Memory: map it. I/O ports: read them. Interrupt: acknowledge it; the first one, to all of them: bind them.
    pub const USE: Self = Self(1);
    /// Notification: wait for it. Thread: control it. Endpoint: make it the pager of regions, with a badge of one's
    /// own choice.
    pub const RECEIVE: Self = Self(2);
    /// Derive other capabilities from it, and give it to others.
    pub const GRANT: Self = Self(4);
    /// Destroy the object.
    pub const DESTROY: Self = Self(8);
    /// Memory: map it writable. I/O ports: write them.
    pub const WRITE: Self = Self(16);
    /// Memory: map it executable.
    pub const EXECUTE: Self = Self(32);
    /// All of them.
    pub const ALL: Self = Self(63);

    /// Whether these rights include `other`.
    #[must_use]
    #[inline]
    pub const fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The rights that both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Handles that the first program starts with, in the first CPU's part of its table.
pub mod initial {
    use super::Handle;

    /// Its own address space.
    pub const ADDRESS_SPACE: Handle = Handle::new(0, 0, 1);
    /// Its first thread.
    pub const THREAD: Handle = Handle::new(0, 1, 1);
    /// The right to place threads on all CPUs with all priorities.
    pub const CPU_CONTROL: Handle = Handle::new(0, 2, 1);
    /// The address space of its companion, a program without threads, where it has one.
    pub const COMPANION: Handle = Handle::new(0, 3, 1);
    /// The memory of the boot archive, where it has no companion. The program is told its bytes as its third word.
    pub const ARCHIVE: Handle = COMPANION;
    /// All I/O ports.
    pub const PORTS: Handle = Handle::new(0, 4, 1);
    /// The right to bind interrupts of devices.
    pub const INTERRUPTS: Handle = Handle::new(0, 5, 1);
    /// Most capabilities to memory that there are at first.
    pub const MEMORY_RANGES: u32 = 16;

    /// The `index`th of the capabilities to all memory that the kernel did not keep, the largest first.
    #[must_use]
    pub const fn memory(index: u32) -> Handle {
        Handle::new(0, 6 + index, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_taken_apart_as_it_was_put_together() {
        let handle = Handle::new(511, 4095, u32::MAX);
        assert_eq!((handle.cpu(), handle.slot(), handle.generation()), (511, 4095, u32::MAX.into()));
        assert!(handle.0 < crate::FIRST_ERROR);
        assert_ne!(Handle::new(0, 0, 1).0, 0);
    }

    #[test]
    fn a_handle_without_its_one_has_another_life() {
        let handle = Handle::new(1, 2, 3);
        let forged = Handle(handle.0 & !(1 << Handle::LIFE_SHIFT));
        assert_eq!((forged.cpu(), forged.slot(), forged.generation()), (1, 2, 3));
        assert_ne!(forged.life(), handle.life());
    }

    #[test]
    fn bits_above_a_handle_make_its_generation_wrong() {
        let forged = Handle(Handle::new(1, 2, 3).0 | 1 << 60);
        assert_ne!(forged.generation(), 3);
    }
}

//! What goes with a message besides its words, and what the kernel says and does by messages of its own.

/// Added to the deadline of a call or to the label of a reply: the sender's [`Buffer`] lists items.
pub const ITEMS: u64 = 1 << 63;
/// Items of a message at most.
pub const MAX_ITEMS: usize = 8;
/// Bytes of a message's items at most, all together.
pub const MAX_BYTES: u64 = 64 << 10;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ItemKind {
    /// The list ends before it.
    End = 0,
    /// `length` bytes from `first` on are copied to the receiver's window for bytes, behind those of items before.
    Bytes = 1,
    /// The receiver gets a capability derived from the handle `first` with the rights `flags`, as by
    /// [`crate::Call::Grant`].
    Capability = 2,
    /// `length` pages of the memory capability `first`, from its page `second` on, are mapped in the receiver's window
    /// for pages with the access `flags` ([`crate::Access`]), behind those of items before.
    Pages = 3,
}

impl ItemKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::End,
            1 => Self::Bytes,
            2 => Self::Capability,
            3 => Self::Pages,
            _ => return None,
        })
    }
}

/// One thing that goes with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Item {
    /// An [`ItemKind`].
    pub kind: u32,
    /// Rights or access.
    pub flags: u32,
    /// An address or a handle.
    pub first: u64,
    /// A page's number.
    pub second: u64,
    /// Bytes or pages.
    pub length: u64,
}

impl Item {
    /// Bytes from `address` on.
    #[must_use]
    pub const fn bytes(address: u64, length: u64) -> Self {
        Self { kind: ItemKind::Bytes as u32, flags: 0, first: address, second: 0, length }
    }

    /// A capability derived from `handle`.
    #[must_use]
    pub const fn capability(handle: crate::Handle, rights: crate::Rights) -> Self {
        let kind = ItemKind::Capability as u32;
        Self { kind, flags: rights.0 as u32, first: handle.0, second: 0, length: 0 }
    }

    /// `count` pages of `memory` from its page `first` on.
    #[must_use]
    pub const fn pages(memory: crate::Handle, first: u64, count: u64, access: crate::Access) -> Self {
        let kind = ItemKind::Pages as u32;
        Self { kind, flags: access.0 as u32, first: memory.0, second: first, length: count }
    }
}

/// What a receiver lets in. All zero: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// Where bytes go.
    pub bytes: u64,
    /// How many at most.
    pub bytes_length: u64,
    /// Where pages are mapped; nothing may be mapped there already.
    pub pages: u64,
    /// How many at most.
    pub pages_count: u64,
    /// How many capabilities at most.
    pub capabilities: u64,
}

/// A thread's message buffer. The kernel reads `items` when the thread sends and `window` when it receives, and writes
/// `received`. It lies in one page, which is mapped writable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(512))]
pub struct Buffer {
    /// What goes with the thread's next message that says so, up to the first [`ItemKind::End`].
    pub items: [Item; MAX_ITEMS],
    /// Where things that come with messages to the thread go.
    pub window: Window,
    /// Of each item that came: the number of bytes, the new handle, or the number of pages.
    pub received: [u64; MAX_ITEMS],
}

impl Buffer {
    /// Lists nothing and lets nothing in.
    pub const EMPTY: Self = Self {
        items: [Item { kind: ItemKind::End as u32, flags: 0, first: 0, second: 0, length: 0 }; MAX_ITEMS],
        window: Window { bytes: 0, bytes_length: 0, pages: 0, pages_count: 0, capabilities: 0 },
        received: [0; MAX_ITEMS],
    };
}

const _: () = assert!(size_of::<Buffer>() == align_of::<Buffer>());

/// An exception of a thread as its handler sees it: a call with four words: the vector in the low byte and the error
/// code from bit 32 on; the address of a page fault's access; the instruction pointer; the stack pointer. The labels of the
/// answer:
pub mod exception {
    /// Go on at the instruction pointer of word 0 with the stack pointer of word 1, and words 2 and 3 in `rdi` and
    /// `rsi`.
    pub const RESUME: u64 = 0;
    /// Try the instruction again.
    pub const RETRY: u64 = 1;
    /// The thread ends, with word 0 as its status.
    pub const END: u64 = 2;
    /// Any other label: the program ends, as without a handler.
    pub const REFUSED: u64 = 3;
}

/// Words of a [`crate::Call::Call`] of I/O ports.
pub mod ports {
    /// In word 0, with the width in bytes (1, 2, 4): word 2 is written. Without it a value is read, which comes back as
    /// word 0.
    pub const WRITE: u64 = 1 << 8;
}

/// Arguments of a [`crate::Call::Create`] of an interrupt: `first` is the right to bind them
/// ([`crate::initial::INTERRUPTS`]), `second` the source, `third` a notification with the right to notify it, `fourth` the
/// CPU that takes the interrupt and, from bit 16 on, the number of the notification's bit. When the interrupt came it does
/// not come again before it was acknowledged, by a [`crate::Call::Call`] of it. A source is the number of an interrupt line
/// as the firmware counts them, or one of these.
pub mod interrupt {
    /// With the number of one of the 16 interrupts of the first PCs: the line by which it comes.
    pub const ISA: u64 = 1 << 32;
    /// A message that the device writes: [`crate::Fact::MessageAddress`] and [`crate::Fact::MessageData`] tell its driver
    /// where and what.
    pub const MESSAGE: u64 = 1 << 33;
}

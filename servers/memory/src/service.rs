//! The service as others call it: who may ask for what.

use abi::Handle;
use api::badge;
use api::memory::{Name, PAGED, paged_badge};
use rt::errno::Errno;
use rt::layout::{MAX_CPUS, OBJECT, OBJECTS};
use rt::server::Turn;
use rt::service::{Answer, OPERATION};
use rt::window::WINDOW_BYTES;

use crate::Memory;
use crate::object::{self, Made, Sharing};
use crate::operations::Caller;
use crate::outside::Outside as _;
use crate::region::{Kind, Shape};

const _: () = assert!(WINDOW_BYTES <= OBJECT && MAX_CPUS <= 1024);
const _: () = assert!(Kind::Other.badge(7) == paged_badge(7));

fn caller<'a>(turn: &Turn<'a, Memory>) -> Caller<'a> {
    Caller { process: turn.badge, replica: turn.replica }
}

fn only_root(turn: &Turn<'_, Memory>) -> Result<(), Errno> {
    if turn.badge == badge::ROOT { Ok(()) } else { Err(Errno::NotPermitted) }
}

impl api::memory::Memory for Memory {
    fn admit(&self, turn: &Turn<'_, Self>, process: u64, space: Handle) -> Result<(), Errno> {
        only_root(turn)?;
        self.0.admit(process, space)
    }

    fn dismiss(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        only_root(turn)?;
        self.0.dismiss(caller(turn), process)
    }

    fn anonymous(&self, turn: &Turn<'_, Self>, process: u64, address: u64, length: u64) -> Result<(), Errno> {
        let process = caller(turn).subject(process)?;
        let shape = Shape { kind: Kind::Anonymous, process, object: 0, start: address, length };
        self.0.make_region(caller(turn), shape)
    }

    fn create(&self, turn: &Turn<'_, Self>, owner: u64, pages: u64) -> Result<u64, Errno> {
        let owner = caller(turn).subject(owner)?;
        self.0.make_object(caller(turn), &Made { owner, pages, sharing: Sharing::Own, original: 0, pager: 0 })
    }

    fn map(
        &self,
        turn: &Turn<'_, Self>,
        process_object: u64,
        address: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let process = caller(turn).subject(process_object >> 32)?;
        self.0.map(caller(turn), process, process_object & u64::from(u32::MAX), address, length)
    }

    fn release(&self, turn: &Turn<'_, Self>, process: u64, address: u64) -> Result<(), Errno> {
        let process = caller(turn).subject(process)?;
        self.0.release(caller(turn), process, address)
    }

    fn contiguous(&self, turn: &Turn<'_, Self>, pages: u64) -> Result<Handle, Errno> {
        self.0.contiguous(caller(turn), pages)
    }

    fn free_pages(&self, _: &Turn<'_, Self>) -> Result<u64, Errno> {
        Ok(self.0.free_pages())
    }

    fn destroy(&self, turn: &Turn<'_, Self>, object: u64) -> Result<(), Errno> {
        self.0.destroy(caller(turn), object)
    }

    fn share(&self, turn: &Turn<'_, Self>, object: u64) -> Result<(), Errno> {
        self.0.share(caller(turn), object)
    }

    fn show_objects(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        only_root(turn)?;
        let length = object::OBJECTS as u64 * OBJECT;
        let shape = Shape { kind: Kind::Objects, process, object: 0, start: OBJECTS, length };
        self.0.make_region(caller(turn), shape)
    }

    fn renew(&self, turn: &Turn<'_, Self>, process: u64, address: u64) -> Result<(), Errno> {
        only_root(turn)?;
        self.0.renew(caller(turn), process, address)
    }

    fn window(&self, turn: &Turn<'_, Self>, process: u64) -> Result<u64, Errno> {
        only_root(turn)?;
        self.0.window(caller(turn), process)
    }

    fn window_of(&self, turn: &Turn<'_, Self>, process: u64) -> Result<u64, Errno> {
        if turn.badge >= badge::FIRST_USER {
            return Err(Errno::NotPermitted);
        }
        self.0.window_of(turn.badge, process)
    }

    fn copy(&self, turn: &Turn<'_, Self>, object: u64) -> Result<u64, Errno> {
        self.0.copy(caller(turn), object)
    }

    fn name(&self, turn: &Turn<'_, Self>, object: u64, name: Name) -> Result<(), Errno> {
        self.0.name(caller(turn), object, name)
    }

    fn find(&self, _: &Turn<'_, Self>, name: Name) -> Result<u64, Errno> {
        self.0.find(name)
    }

    fn paged(&self, _: &Turn<'_, Self>, _pages: u64) -> Result<u64, Errno> {
        // No capability to a pager came with it, or [`Memory::paged_by`] would have it.
        Err(Errno::Invalid)
    }

    fn provide(&self, turn: &Turn<'_, Self>, object: u64, first: u64, pages: u64) -> Result<(), Errno> {
        self.0.provide(caller(turn), object, first, pages)
    }

    fn next_object(&self, turn: &Turn<'_, Self>, last: u64) -> Result<u64, Errno> {
        self.0.next_object(caller(turn), last)
    }
}

impl Memory {
    /// Answers a request that brought a capability.
    #[cold]
    #[inline(never)]
    pub fn with_capability(&self, turn: &Turn<'_, Self>, words: [u64; 4], pager: Handle) -> Answer {
        let made = match words {
            [operation, pages, ..] if operation & OPERATION == PAGED => self.paged_by(turn, pages, pager),
            _ => Err(Errno::Invalid),
        };
        if made.is_err() {
            self.0.outside.delete(pager);
        }
        Answer::of(made, None)
    }

    fn paged_by(&self, turn: &Turn<'_, Self>, pages: u64, pager: Handle) -> Result<u64, Errno> {
        let (caller, sharing) = (caller(turn), Sharing::Own);
        let made = Made { owner: caller.process, pages, sharing, original: 0, pager: pager.0 };
        self.0.make_object(caller, &made)
    }
}

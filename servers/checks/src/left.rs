//! What there is besides processes: it must be the same when they are gone.

use abi::{Call, Fact, Handle, Kind, Paid};
use api::memory::MemoryClient;
use rt::call;
use rt::start::Block;

/// What stays in stocks for good, and differs by how far those are filled: bytes of the account, less than one address space
/// takes, and pages, the batch that the memory server gives a CPU.
const ACCOUNT_SLACK: u64 = 64 << 10;
const PAGES_SLACK: u64 = 512;
/// How long is waited for objects that are about to be freed, in nanoseconds, and the time between two looks.
const PATIENCE: u64 = 5_000_000_000;
const REST: u64 = 1_000_000;

/// Frames that programs may have more of after kills than before. They are page tables, a cache that is discarded where an
/// account has nothing left, and what says which pages a space maps, which stays until the space ends; both follow from the
/// addresses that were ever used (a list of the memory server's lies where the number of its frame says, a window at the place
/// of its object), of which there are only so many: after a hundred kills, a hundred more add next to none.
const MORE_FRAMES: u64 = 128;

/// What the account has that pays for all servers and this program, and frames that are paid for, by purpose.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    credit: u64,
    frames: [u64; Paid::ALL.len()],
}

impl Books {
    /// What stands in them now.
    pub fn now() -> Result<Self, &'static str> {
        let credit = rt::memory::balance(Handle(0)).map_err(|_| "the account tells no balance")?;
        Ok(Self { credit, frames: Paid::ALL.map(rt::memory::paid_frames) })
    }

    /// Whether they balance: to the byte, but for frames of which it is known what they are, and which are few.
    pub fn compare(&self) -> Result<(), &'static str> {
        let now = Self::now()?;
        rt::log!("{self:?} before, {now:?} after");
        let frames = |books: &Self| books.frames.iter().sum::<u64>() * abi::PAGE;
        if now.credit + frames(&now) != self.credit + frames(self) {
            return Err("the account does not balance");
        }
        if frames(&now) > frames(self) + MORE_FRAMES * abi::PAGE {
            return Err("page tables, or other tables, grow with kills");
        }
        Ok(())
    }
}

/// Kernel objects by kind that processes consist of, what the account has that pays for them, and free pages.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    objects: [u64; 3],
    account: u64,
    pages: u64,
}

fn objects() -> [u64; 3] {
    [Kind::AddressSpace, Kind::Thread, Kind::Account].map(|kind| {
        call::raw_number(Call::Info as u64, [Fact::KernelObjects as u64, kind as u64, 0, 0, 0, 0])
    })
}

impl Left {
    /// What there is now.
    pub fn now(block: &Block) -> Result<Self, &'static str> {
        let pages = MemoryClient(block.memory).free_pages().map_err(|_| "free pages are not told")?;
        let account = rt::memory::balance(Handle(0)).map_err(|_| "the account tells no balance")?;
        Ok(Self { objects: objects(), account, pages })
    }

    /// Whether there are no more kernel objects now than there were.
    pub fn compare_objects(&self, block: &Block) -> Result<(), &'static str> {
        let end = call::now() + PATIENCE;
        while objects()[..2] > self.objects[..2] && call::now() < end {
            call::sleep_until(call::now() + REST).map_err(|_| "sleep was refused")?;
        }
        let objects = objects();
        rt::log!("{self:?} before, {:?} after, at last {objects:?}", Self::now(block)?);
        if (0..objects.len()).any(|kind| objects[kind] > self.objects[kind]) {
            return Err("an address space, a thread or an account was left behind");
        }
        Ok(())
    }

    /// Whether there is as much now, but for what stocks may differ by.
    pub fn compare(&self, block: &Block) -> Result<(), &'static str> {
        self.compare_objects(block)?;
        let after = Self::now(block)?;
        if after.account + ACCOUNT_SLACK < self.account {
            return Err("the account does not balance");
        }
        if after.pages + PAGES_SLACK < self.pages {
            return Err("pages were left behind");
        }
        Ok(())
    }
}

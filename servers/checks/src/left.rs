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

/// Kinds of kernel objects that there are more and less of, and those that processes consist of.
const KINDS: [Kind; 5] =
    [Kind::AddressSpace, Kind::Thread, Kind::Account, Kind::Endpoint, Kind::Notification];
const PROCESS_KINDS: [Kind; 3] = [Kind::AddressSpace, Kind::Thread, Kind::Account];

fn count(kind: Kind) -> u64 {
    call::raw_number(Call::Info as u64, [Fact::KernelObjects as u64, kind as u64, 0, 0, 0, 0])
}

/// Frames of page tables (a cache that is discarded where an account has nothing left), and of what says which pages a space
/// maps (which stays until the space ends), that programs may have more of after kills than before. Both follow from the
/// addresses that were ever used on a CPU, of which there are only so many (a list of the memory server's lies where the number
/// of its frame says, a window at the place of its object, a content at that of its own), and most were used in the first
/// hundred kills: the next hundred add at most half as many as this, and so do the next three hundred. Of other frames there
/// are none more.
const MORE_FRAMES: u64 = 128;

/// Pages that a worker takes once it runs for the first time: the start of its stack, and most that it uses of the end.
const PAGES_OF_WORKER: u64 = 3;

/// Frames that accounts pay for, all together.
pub fn frames() -> u64 {
    Paid::ALL.map(rt::memory::paid_frames).iter().sum()
}

/// What may be otherwise after kills, beside [`MORE_FRAMES`].
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Workers of each CPU that run now and never ran before.
    pub workers: u64,
    /// The server has an account of its own, whose frames are counted with all others: what is paid for more of them does not
    /// show in the credit here.
    pub has_own_account: bool,
}

impl Allowed {
    /// Nothing.
    pub const NOTHING: Self = Self { workers: 0, has_own_account: false };
    /// A worker's stack: how many of a CPU's workers are needed at once depends on who waits for whom.
    pub const STACKS: Self = Self { workers: 1, has_own_account: false };
}

/// What there is of all that is counted: kernel objects by kind, what the account has that pays for all servers and this program,
/// frames that are paid for, by purpose, and free pages.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    objects: [u64; KINDS.len()],
    credit: u64,
    frames: [u64; Paid::ALL.len()],
    pages: u64,
}

impl Books {
    /// What stands in them now.
    pub fn now(block: &Block) -> Result<Self, &'static str> {
        let pages = MemoryClient(block.memory).free_pages().map_err(|_| "free pages are not told")?;
        let credit = rt::memory::balance(Handle(0)).map_err(|_| "the account tells no balance")?;
        let frames = Paid::ALL.map(rt::memory::paid_frames);
        Ok(Self { objects: KINDS.map(count), credit, frames, pages })
    }

    /// Whether they balance: no kernel object more, the account to the byte but for frames of which it is known what they are,
    /// and which are few, and pages to the page, but for stacks that are `allowed`.
    pub fn compare(&self, block: &Block, allowed: Allowed) -> Result<(), &'static str> {
        let end = call::now() + PATIENCE;
        let is_more = |now: &Self| (0..KINDS.len()).any(|kind| now.objects[kind] > self.objects[kind]);
        let mut now = Self::now(block)?;
        while is_more(&now) && call::now() < end {
            call::sleep_until(call::now() + REST).map_err(|_| "sleep was refused")?;
            now = Self::now(block)?;
        }
        rt::log!("{self:?} before, {now:?} after");
        let frames = |books: &Self| books.frames.iter().sum::<u64>();
        if is_more(&now) {
            return Err("a kernel object was left behind");
        }
        let all = |books: &Self| books.credit + frames(books) * abi::PAGE;
        let more =
            if allowed.has_own_account { frames(&now).saturating_sub(frames(self)) * abi::PAGE } else { 0 };
        if !(all(self)..=all(self) + more).contains(&all(&now)) {
            return Err("the account does not balance");
        }
        let more = |purpose: Paid| now.frames[purpose as usize] > self.frames[purpose as usize];
        if more(Paid::Capabilities) || more(Paid::Regions) {
            return Err("tables of capabilities, or of regions, grow with kills");
        }
        if frames(&now) > frames(self) + MORE_FRAMES {
            return Err("page tables, or what says which pages there are, grow with kills");
        }
        if now.pages.abs_diff(self.pages) > allowed.workers * u64::from(block.cpus) * PAGES_OF_WORKER {
            return Err("pages were lost, or found");
        }
        Ok(())
    }
}

/// Kernel objects that processes consist of, by kind, what the account has that pays for them, and free pages.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    objects: [u64; PROCESS_KINDS.len()],
    account: u64,
    pages: u64,
}

fn objects() -> [u64; PROCESS_KINDS.len()] {
    PROCESS_KINDS.map(count)
}

impl Left {
    /// What there is now.
    pub fn now(block: &Block) -> Result<Self, &'static str> {
        let pages = MemoryClient(block.memory).free_pages().map_err(|_| "free pages are not told")?;
        let account = rt::memory::balance(Handle(0)).map_err(|_| "the account tells no balance")?;
        Ok(Self { objects: objects(), account, pages })
    }

    /// Whether there are no more kernel objects now than there were.
    fn compare_objects(&self, block: &Block) -> Result<(), &'static str> {
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

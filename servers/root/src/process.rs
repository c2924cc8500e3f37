//! Processes: an address space with a program, the capabilities that it is given, and memory behind its regions.

use abi::{Handle, Rights, initial};
use alloc::boxed::Box;
use alloc::vec::Vec;
use api::memory::MemoryClient;
use rt::call;
use rt::layout::{ARENA, HEAP, STACK, START_BLOCK, THREAD_STACKS, THREAD_STACKS_OF_CPU, WORKER_STACKS};
use rt::memory;
use rt::service::Failure;
use rt::start::Block;

use crate::image::{self, LoadError, Loaded};
use crate::{Given, pool};

/// Why a process could not be made.
#[derive(Clone, Copy, Debug)]
pub enum SpawnError {
    /// Its program can't be loaded.
    Load(#[expect(dead_code, reason = "it is printed")] LoadError),
    /// A kernel call was refused.
    Kernel(abi::Error),
    /// A server refused.
    Server(Failure),
}

impl From<LoadError> for SpawnError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<abi::Error> for SpawnError {
    fn from(error: abi::Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<Failure> for SpawnError {
    fn from(error: Failure) -> Self {
        Self::Server(error)
    }
}

/// A process as root keeps it.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub number: u64,
    /// Its address space.
    pub space: Handle,
    /// Where its program starts.
    pub entry: u64,
    /// Pages of root's that it has.
    pub pages: Vec<u64>,
}

/// A process that is being made.
pub struct Draft {
    /// The process.
    pub process: Process,
    /// What it will find at its start.
    pub block: Box<Block>,
    /// Its memory that the pager fills with zeroes, beside heap and stacks.
    pub zeroed: Vec<(u64, u64)>,
}

/// Makes process `number` of the program `name`, without memory but what is loaded; all of it, if `is_whole`. `account` pays
/// for what the kernel keeps of it; 0 is root's.
pub fn draft(
    given: &Given,
    name: &str,
    number: u64,
    is_whole: bool,
    account: Handle,
) -> Result<Draft, SpawnError> {
    let file = given.program(name).ok_or(LoadError::BadProgram)?;
    let space = memory::create_space(account)?;
    let Loaded { entry, pages, zeroed } = image::load(name, file, space, is_whole)?;
    let block = Box::new(Block { process: number, cpus: call::cpu_count(), ..Block::NOTHING });
    let process = Process { number, space, entry, pages };
    let mut draft = Draft { process, block, zeroed };
    draft.set_text(given.text);
    Ok(draft)
}

impl Draft {
    /// Sets its arguments; what there is no room for is cut.
    pub fn set_text(&mut self, text: &str) {
        let length = text.len().min(Block::TEXT);
        self.block.text_length = length as u32;
        self.block.text[..length].copy_from_slice(&text.as_bytes()[..length]);
    }

    /// Gives it a capability to call `endpoint`, by which it is known there as `badge`.
    pub fn grant(&self, endpoint: Handle, badge: u64) -> Result<Handle, SpawnError> {
        Ok(call::grant_badged(endpoint, self.process.space, Rights::USE, badge)?)
    }

    /// Makes the memory server the pager of its regions: zeroed data, heap and `stacks`.
    pub fn give_memory(&self, memory: &MemoryClient, stacks: &[(u64, u64)]) -> Result<(), SpawnError> {
        let cpus = u64::from(self.block.cpus);
        let heap = (HEAP, cpus * ARENA);
        for &(start, length) in self.zeroed.iter().chain(stacks).chain([&heap]) {
            memory.anonymous(self.process.number, start, length)?;
        }
        Ok(())
    }

    /// Makes the memory server the pager of stacks for threads of its own.
    pub fn give_stacks(&self, memory: &MemoryClient) -> Result<(), SpawnError> {
        let length = u64::from(self.block.cpus) * THREAD_STACKS_OF_CPU;
        Ok(memory.anonymous(self.process.number, THREAD_STACKS, length)?)
    }

    /// Maps its start block. Nothing of it changes any more.
    pub fn finish(mut self) -> Result<Process, SpawnError> {
        let bytes = core::ptr::from_ref::<Block>(&self.block).cast::<u8>();
        let page = pool::take_filled(|memory| {
            // SAFETY: the block is a live object of that size, smaller than a page, whose padding does not matter.
            unsafe { core::ptr::copy_nonoverlapping(bytes, memory.as_mut_ptr(), size_of::<Block>()) };
        });
        let page = page.ok_or(LoadError::NoMemory)?;
        self.process.pages.push(page);
        let (whole, space) = (initial::memory(0), self.process.space);
        // SAFETY: the new space has nothing there.
        unsafe { memory::map(whole, page, space, START_BLOCK, 1, abi::Access::READ) }?;
        Ok(self.process)
    }
}

/// Stacks of a server with so many workers a CPU.
pub fn worker_stacks(cpus: u64, workers: u32) -> [(u64, u64); 1] {
    [(WORKER_STACKS, cpus * u64::from(workers) * STACK)]
}

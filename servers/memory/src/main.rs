//! The memory server: pager of anonymous memory and of memory objects.
//!
//! A fault is answered on the faulting CPU from what that CPU has: [`replica`] holds its frames. [`frames`] is where
//! they come from, in batches; [`region`] and [`object`] say what is where, and are only read by faults. What a
//! region was given is in logs a CPU, which go home whole when it ends. [`pager`] answers faults, [`operations`] and [`ends`]
//! all else.
//!
//! The server may end at any moment: what it knows is in [`state`] and in logs, which outlive it ([`rt::saved`]), as
//! mappings do; [`recovery`] makes sense of it. [`outside`] is what it asks the kernel for ([`kernel`]); the tests of this crate
//! have surroundings in which the server ends at each single step.
//!
//! Nothing is mapped here but the server's own few pages: what is given is mapped by the kernel, by the reply.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

mod ends;
mod frames;
mod index;
mod kept;
mod kernel;
mod log;
mod object;
mod objects;
mod operations;
mod outside;
mod pager;
mod piece;
mod recovery;
mod region;
mod replica;
mod service;
mod state;
#[cfg(test)]
mod tests;

use api::memory::Memory as _;
use rt::call::Message;
use rt::server::{Server, Turn};
use rt::service::Answer;
use rt::start::Block;
use smp::Cpu;

use kernel::Kernel;
use outside::Outside as _;
use pager::{Life, Pager};
use replica::Replica;

/// Clustered objects that it needs.
const ENTRIES: usize = 1;
rt::server!(Memory, ENTRIES);

static LIFE: Life = Life::new();

/// What all replicas share.
struct Memory(Pager<Kernel>);

impl Server for Memory {
    type Replica = &'static Replica;

    const IS_MADE_AT_ONCE: bool = true;
    const TAKES_CAPABILITIES: bool = true;

    fn prepare(block: &Block, cpu: u32) {
        kernel::make_heap(block, cpu);
    }

    fn new(block: &'static Block) -> Self {
        let outside = Kernel::new(block);
        let state = outside.state();
        let pager = Pager { outside, state, life: &LIFE, cpus: block.cpus };
        pager.begin();
        Self(pager)
    }

    fn replica(&self, cpu: Cpu<'_>) -> &'static Replica {
        self.0.outside.replica(cpu.id().index() as u32)
    }

    #[inline(always)]
    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        if message.first & region::FAULT != 0 {
            let handle = |frame| self.0.outside.handle(frame).0;
            return self.0.fault(turn.replica, message.first, message.words, handle);
        }
        self.answer(turn, message.words)
    }
}

impl Memory {
    /// Answers what is no fault. Apart, so that faults have the registers to themselves.
    #[inline(never)]
    fn answer(&self, turn: &Turn<'_, Self>, words: [u64; 4]) -> Answer {
        match rt::items::take() {
            Some(capability) => self.with_capability(turn, words, capability),
            None => self.dispatch(turn, words),
        }
    }
}

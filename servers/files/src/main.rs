//! The file server: a replicated file system in memory.
//!
//! A call is answered on the caller's CPU. What is read often and changed seldom has a copy a CPU: the attributes of
//! an inode are a replicated value of `smp` ([`inode`]), and names are remembered by each replica for as long as
//! their directory does not change ([`names`]). Descriptors are in ranges a CPU ([`descriptor`]). Contents are memory
//! objects of the memory server, which this server sees by number, and which clients can map.
//!
//! Inodes and open files are used again only as what they were, so that whoever comes late finds another file and not
//! other memory; descriptors are looked at again before a reply.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod descriptor;
mod inode;
mod names;
mod service;

use api::badge::PROCESSES;
use api::files::Files as _;
use api::memory::MemoryClient;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use rt::call::Message;
use rt::layout::OBJECT;
use rt::server::{Server, Turn};
use rt::service::Answer;
use rt::start::Block;
use smp::Cpu;

use descriptor::{OpenFiles, Process};
use inode::{Inode, Inodes};
use names::Names;

/// Files that there can be at a time.
const FILES: usize = 4096;
rt::server!(Files, FILES);

/// The processes, by number.
static PROCESS: [AtomicPtr<Process>; PROCESSES] = [const { AtomicPtr::new(ptr::null_mut()) }; PROCESSES];

/// What all replicas share.
struct Files {
    memory: MemoryClient,
    inodes: Inodes,
    root: &'static Inode,
}

/// What a CPU keeps for itself.
struct Replica {
    names: Names,
    open: OpenFiles,
}

fn process(badge: u64) -> Option<&'static Process> {
    // SAFETY: processes stay in memory for good.
    unsafe { PROCESS.get(badge as usize)?.load(Ordering::Acquire).as_ref() }
}

impl Server for Files {
    type Replica = Replica;

    fn new(block: &'static Block) -> Self {
        let inodes = Inodes::new(block.cpus);
        let mode = api::files::DIRECTORY | 0o755;
        let Some(root) = inodes.make(smp::CpuId::BOOT, mode, 0) else {
            rt::log!("files: no memory for the root directory");
            rt::call::exit(1);
        };
        Self { memory: MemoryClient(block.memory), inodes, root }
    }

    fn replica(&self, _: Cpu<'_>) -> Replica {
        Replica { names: Names::new(), open: OpenFiles::new() }
    }

    #[inline(always)]
    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        self.dispatch(turn, message.words)
    }

    #[inline(always)]
    fn window(&self, _: &Turn<'_, Self>, badge: u64) -> Option<u64> {
        Some(process(badge)?.window())
    }
}

/// Where this server sees the content of a file.
const fn content(object: u64) -> u64 {
    rt::layout::OBJECTS + object * OBJECT
}

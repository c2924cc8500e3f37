//! The process server: starts programs, waits for them, ends them, and gives processes capabilities to servers by name.
//!
//! A process belongs to the CPU that its first thread was started on, which its number tells: [`table`] has a table of
//! processes for each CPU, in saved memory, so that they outlive this server. Whoever starts, awaits or ends a process works
//! on its own CPU, on the entry of that one process; so nobody meets anybody but at the same process.
//!
//! [`image`] takes programs apart, [`stock`] has the pages that they are loaded into, a part for each CPU, with a copy of
//! what is only read. [`make`] makes a process, [`end`] takes one apart, also one that an earlier life of this server left
//! half made. [`service`] is what is asked for, [`waiters`] are those who wait for an end, [`names`] knows the servers.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod end;
mod image;
mod make;
mod names;
mod service;
mod stock;
mod table;
mod waiters;

use core::cell::Cell;

use abi::Handle;
use alloc::vec::Vec;
use api::badge::{self, FIRST_USER};
use api::files::FileClient;
use api::memory::MemoryClient;
use api::process::Processes as _;
use rt::call::{self, Message};
use rt::layout::object_address;
use rt::server::{Server, Turn};
use rt::service::{Answer, until_answered};
use rt::start::Block;

use image::Program;
use names::Names;
use stock::{Stock, Texts};
use table::Tables;
use waiters::{Places, Waiters};

rt::server!(Processes, 1);

/// What all replicas share; nothing of it changes but what is saved.
struct Processes {
    block: &'static Block,
    tables: Tables,
    stock: Stock,
    places: Places,
    programs: Vec<Program>,
    names: Names,
    memory: MemoryClient,
    /// The memory server and the file server, called as root: they do for no other what this server asks for.
    memory_as_root: MemoryClient,
    files_as_root: FileClient,
}

/// How far a CPU is with what an earlier life of the server left half done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    NotBegun,
    UnderWay,
    Done,
}

/// A CPU's part.
struct Replica {
    recovery: Cell<Recovery>,
    /// Where the next free entry of this CPU's table is looked for.
    next: Cell<usize>,
    texts: Texts,
    waiters: Waiters,
}

/// What root gave this server to work with: words of its start block.
struct Given<'a>(&'a Block);

impl Given<'_> {
    /// Bytes of the boot archive.
    const fn archive_bytes(&self) -> usize {
        self.0.words[0] as usize
    }

    /// The memory server's endpoint, without a badge.
    const fn memory(&self) -> Handle {
        Handle(self.0.words[1])
    }

    /// The file server's.
    const fn files(&self) -> Handle {
        Handle(self.0.words[2])
    }

    /// The memory server's address space, to give it capabilities.
    const fn memory_space(&self) -> Handle {
        Handle(self.0.words[3])
    }

    /// Pages for programs.
    const fn pages(&self) -> Handle {
        self.0.ranges[1]
    }

    /// Root, which knows the servers.
    const fn root(&self) -> Handle {
        self.0.processes
    }
}

/// This server can't work: says why, and ends.
fn give_up(what: &str, why: impl core::fmt::Debug) -> ! {
    rt::log!("process: {what}: {why:?}");
    call::exit(1)
}

impl Server for Processes {
    type Replica = Replica;

    fn new(block: &'static Block) -> Self {
        let given = Given(block);
        let as_root = |endpoint| {
            call::mint(endpoint, abi::Rights::USE, badge::ROOT)
                .unwrap_or_else(|error| give_up("no capability to a server", error))
        };
        let programs = image::all(block.ranges[0], given.archive_bytes())
            .unwrap_or_else(|error| give_up("the boot archive can't be read", error));
        let tables = Tables::open(block.cpus);
        let stock = Stock::new(given.pages(), block.cpus)
            .unwrap_or_else(|error| give_up("the pages for programs can't be mapped", error));
        let names = Names::new(given.root());
        let memory_as_root = names.own(names::MEMORY_AS_ROOT, || as_root(given.memory()));
        let files_as_root = names.own(names::FILES_AS_ROOT, || as_root(given.files()));
        Self {
            block,
            tables,
            stock,
            places: Places::new(),
            programs,
            names,
            memory: MemoryClient(block.memory),
            memory_as_root: MemoryClient(memory_as_root),
            files_as_root: FileClient(files_as_root),
        }
    }

    fn replica(&self, cpu: smp::Cpu<'_>) -> Replica {
        let cpu = cpu.id().index() as u32;
        Replica {
            recovery: Cell::new(Recovery::NotBegun),
            next: Cell::new(0),
            texts: self.stock.find_texts(cpu, &self.tables, &self.programs),
            waiters: Waiters::new(),
        }
    }

    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        if turn.replica.recovery.get() != Recovery::Done {
            self.recover(turn);
        }
        self.dispatch(turn, message.words)
    }

    fn window(&self, _: &Turn<'_, Self>, badge: u64) -> Option<u64> {
        let object = if badge < FIRST_USER {
            // Root, which asks once; nobody else below the first user calls this server.
            until_answered(|| self.memory.window_of(badge)).ok()?
        } else {
            self.tables.find(badge)?.window()
        };
        (object != 0).then_some(object_address(object))
    }
}

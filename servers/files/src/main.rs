//! The file server: the file system of the library [`files`], for the kernel's processes.
//!
//! A call is answered on the caller's CPU by that CPU's replica. Contents are memory objects of the memory server, which
//! this server sees by number, and which clients can map.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

mod service;

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use api::badge::PROCESSES;
use api::files::{FSTAT, Files as _};
use api::memory::{MemoryClient, PROVIDED, RESERVE};
use files::descriptor::Process;
use files::saved::{CpuPart, SharedPart};
use files::{At, FileSystem, NUMBERS, Outside, Replica};
use rt::archive;
use rt::call::{self, Message};
use rt::errno::Errno;
use rt::layout::{OBJECT, object_address};
use rt::saved::{Part, Saved};
use rt::server::{Server, Turn};
use rt::service::{Answer, Failure, OPERATION, SLOT_SHIFT, until_answered, until_done};
use rt::start::{self, Block};
use rt::window::Slot;
use smp::{Cpu, CpuId};
use tar_no_std::TarArchiveRef;

rt::server!(Files, NUMBERS);

/// What part of the memory that is free when the server starts contents can have: 1 in so many.
const SHARE: u64 = 2;

/// How long is waited between two looks for what another worker does, in nanoseconds.
const REST: u64 = 20_000;

/// What is below this in the boot archive is there at first.
const FOLDER: &str = "files/";

/// The processes, by number.
static PROCESS: [AtomicPtr<Process>; PROCESSES] = [const { AtomicPtr::new(ptr::null_mut()) }; PROCESSES];

/// What all replicas share.
struct Files {
    system: FileSystem<Objects>,
}

/// Contents as memory objects.
struct Objects(MemoryClient);

impl Outside for Objects {
    const LARGEST: u64 = OBJECT;

    fn capacity(&self) -> Result<u64, Errno> {
        until_answered(|| self.0.free_pages()).map(|pages| pages / SHARE).map_err(refused)
    }

    fn now(&self) -> u64 {
        call::now()
    }

    fn make_content(&self) -> Result<u64, Errno> {
        until_answered(|| self.0.create(0, OBJECT / abi::PAGE)).map_err(refused)
    }

    fn provide(&self, number: u64, first: u64, pages: u64) -> Result<(), Errno> {
        let is_much = pages > PROVIDED;
        // What is refused should not have taken all that there is before.
        if is_much && until_answered(|| self.0.free_pages()).map_err(refused)? < pages + RESERVE {
            return Err(Errno::NoSpace);
        }
        (0..pages).step_by(PROVIDED as usize).try_for_each(|done| {
            let made = until_answered(|| self.0.provide(number, first + done, PROVIDED.min(pages - done)));
            made.map_err(|_| Errno::NoSpace)
        })
    }

    fn end_content(&self, number: u64) {
        if let Err(failure) = until_done(|| self.0.destroy(number), Errno::NoEntry) {
            rt::log!("files: the content of a file stays: {failure:?}");
        }
    }

    #[inline(always)]
    fn content(&self, number: u64) -> *mut u8 {
        content(number) as *mut u8
    }

    fn next_content(&self, last: u64) -> Option<u64> {
        until_answered(|| self.0.next_object(last)).ok()
    }

    fn rest(&self) {
        if call::sleep_until(call::now() + REST).is_err() {
            call::yield_now();
        }
    }

    fn shared_part(&self) -> &'static SharedPart {
        // SAFETY: the manifest says that there is saved memory; this part is a `SharedPart` and nothing else.
        unsafe { saved(Part::Shared) }
    }

    fn cpu_part(&self, cpu: CpuId) -> &'static CpuPart {
        // SAFETY: as above, of a CPU.
        unsafe { saved(Part::Cpu(cpu.index() as u32)) }
    }
}

/// A part of what is saved. What an earlier life was in the midst of making is as good as what it kept.
///
/// # Safety
/// As of [`rt::saved::open`].
unsafe fn saved<T: Saved>(part: Part) -> &'static T {
    // SAFETY: the caller's.
    let opened = unsafe { rt::saved::open::<T>(part) };
    let Some(opened) = opened else {
        rt::log!("files: what was saved is of another version");
        call::exit(1);
    };
    opened.keep();
    opened.saved
}

#[inline(always)]
fn process(badge: u64) -> Option<&'static Process> {
    // SAFETY: processes stay in memory for good.
    unsafe { PROCESS.get(badge as usize)?.load(Ordering::Acquire).as_ref() }
}

/// Where this server sees an object.
const fn content(object: u64) -> u64 {
    object_address(object)
}

/// Why the memory server refused, as callers are told.
fn refused(failure: Failure) -> Errno {
    match failure {
        Failure::Refused(errno) => errno,
        Failure::Kernel(_) => Errno::NoMemory,
    }
}

impl Files {
    /// Makes what the boot archive has below `files/`, before there is any process that could see it come.
    fn fill(&self, turn: &Turn<'_, Self>) -> Result<(), Errno> {
        if self.system.is_filled() {
            return Ok(());
        }
        let block = start::block();
        let Ok(archive) = archive::map(block.ranges[0], block.words[0] as usize) else {
            rt::log!("files: the boot archive can't be mapped");
            return Err(Errno::NoMemory);
        };
        let archive = TarArchiveRef::new(archive).map_err(|_| Errno::Invalid)?;
        let at = At { cpu: turn.cpu, replica: turn.replica };
        for entry in archive.entries() {
            let name = entry.filename();
            if let Some(path) = name.as_str().ok().and_then(|name| name.strip_prefix(FOLDER)) {
                self.system.fill(at, path.as_bytes(), entry.data())?;
            }
        }
        self.system.is_filled_now();
        Ok(())
    }

    /// fstat of a file whose attributes this CPU has, straight from its copy into the reply: the most frequent call.
    #[inline(always)]
    fn fstat_at_once(&self, turn: &Turn<'_, Self>, words: [u64; 4]) -> Option<Answer> {
        let process = process(turn.badge)?;
        let place = process.place(u32::try_from(words[1]).ok()?)?;
        let file = place.load(Ordering::Acquire);
        // SAFETY: open files stay in memory for good.
        let inode = unsafe { file.as_ref() }?.inode().ok()?;
        // SAFETY: a process that is known here has its window there.
        let slot =
            unsafe { Slot::new(process.window.load(Ordering::Relaxed), (words[0] >> SLOT_SHIFT) as u32) };
        let words = inode.at_once(turn.cpu, |index, word| slot.write_word(index, word))?;
        // If it was closed meanwhile by another thread, what was read may be another file's.
        (place.load(Ordering::Acquire) == file).then_some(Answer { label: 0, words })
    }

    /// Out of the way of [`Files::fstat_at_once`], whose registers it would take: what it is given is put into memory only
    /// for it.
    #[inline(never)]
    fn serve_any(&self, turn: Turn<'_, Self>, words: [u64; 4]) -> Answer {
        self.dispatch(&turn, words)
    }
}

impl Server for Files {
    type Replica = Replica;

    fn new(block: &'static Block) -> Self {
        match FileSystem::new(Objects(MemoryClient(block.memory)), block.cpus as usize) {
            Ok(system) => {
                for (number, known) in system.processes() {
                    PROCESS[*number].store(ptr::from_ref(*known).cast_mut(), Ordering::Release);
                }
                Self { system }
            }
            Err(error) => {
                rt::log!("files: no file system: {error:?}");
                call::exit(1);
            }
        }
    }

    fn replica(&self, cpu: Cpu<'_>) -> Replica {
        self.system.replica(cpu.id())
    }

    #[inline(always)]
    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        if message.words[0] & OPERATION == FSTAT
            && let Some(answer) = self.fstat_at_once(turn, message.words)
        {
            return answer;
        }
        self.serve_any(*turn, message.words)
    }

    #[inline(always)]
    fn window(&self, _: &Turn<'_, Self>, badge: u64) -> Option<u64> {
        Some(process(badge)?.window.load(Ordering::Relaxed))
    }
}

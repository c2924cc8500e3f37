//! The beginning of a file system: what an earlier life left is found and made whole, and everything that is not kept is
//! made from what is. On memory of zeroes that is an empty file system.
//!
//! What was under way is done first ([`crate::saved`]). What nothing leads to is what was being made, or had just ended:
//! files without a name and a descriptor, open files without a descriptor, contents of no file. All that is given back.
//!
//! It can end at any moment itself; the next life does it again.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use api::files::DIRECTORY;
use rt::errno::Errno;
use smp::CpuId;

use crate::descriptor::Process;
use crate::directory;
use crate::inode::{Found, Inodes, Padded, ROOT, Wish};
use crate::lock::Lock;
use crate::open::OpenFile;
use crate::outside::Outside;
use crate::room::Room;
use crate::saved::{self, CpuPart, KeptFile, KeptName};
use crate::spare::{Pile, Returned};
use crate::{FileSystem, Replica};

/// Type and rights of the root.
const ROOT_MODE: u32 = DIRECTORY | 0o755;

/// What a CPU can use again.
#[derive(Default)]
pub struct Left {
    files: Vec<&'static KeptFile>,
    names: Vec<&'static KeptName>,
    open: Vec<&'static OpenFile>,
}

/// The files that there are, by number.
type Files = BTreeMap<u64, Found>;
/// Processes by number.
type Processes = Vec<(usize, &'static Process)>;

fn value(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

/// Finds the processes. Those that are not there have nothing any more.
fn find_processes(outside: &impl Outside, parts: &'static [&'static CpuPart]) -> Processes {
    for (part, cpu) in parts.iter().zip(0..) {
        part.open.used().iter().for_each(|file| file.begin_anew(cpu));
    }
    let mut processes = Processes::new();
    for (number, kept) in outside.shared_part().processes.iter().enumerate() {
        if value(&kept.is_there) != 0 {
            processes.push((number, Process::new(number, kept, parts)));
        } else if kept.cpus.iter().any(|cpus| value(cpus) != 0) {
            for (cpu, part) in parts.iter().enumerate().filter(|(cpu, _)| kept.has_table(*cpu)) {
                outside.step();
                part.tables[number]
                    .places()
                    .for_each(|place| place.store(ptr::null_mut(), Ordering::Relaxed));
                kept.loses_table(cpu);
            }
        }
    }
    processes
}

/// The open file that is kept at a place.
fn open_file(place: &AtomicPtr<OpenFile>) -> Option<&'static OpenFile> {
    // SAFETY: what is kept there are open files, which stay where they are in all lives.
    unsafe { place.load(Ordering::Relaxed).as_ref() }
}

/// The numbers of the files that a name or a descriptor leads to, and of the root.
fn reached(parts: &[&'static CpuPart], processes: &Processes) -> BTreeSet<u64> {
    let names = parts.iter().flat_map(|part| part.names.used());
    let mut reached: BTreeSet<u64> = names.map(|name| value(&name.file)).chain([ROOT]).collect();
    for (_, process) in processes {
        process.take_all(|place| reached.extend(open_file(place).map(OpenFile::number)));
    }
    reached.remove(&0);
    reached
}

/// Finds those files; each has one use too many. The others are given back.
fn find_files(
    outside: &impl Outside,
    inodes: &Inodes,
    parts: &[&'static CpuPart],
    reached: &BTreeSet<u64>,
    left: &mut [Left],
) -> Result<Files, Errno> {
    let store = |place: &AtomicU64, value| {
        outside.step();
        place.store(value, Ordering::Release);
    };
    let mut files = Files::new();
    for ((part, left), cpu) in parts.iter().zip(left).zip(0..) {
        let near = CpuId::new(cpu).unwrap_or(CpuId::BOOT);
        for kept in part.files.used() {
            let number = value(&kept.number);
            if reached.contains(&number) {
                files.insert(number, inodes.known(near, kept, None)?);
                continue;
            }
            if number != 0 {
                store(&kept.number, 0);
            }
            left.files.push(kept);
        }
    }
    if let alloc::collections::btree_map::Entry::Vacant(root) = files.entry(ROOT) {
        let fresh = || parts.first()?.files.fresh();
        let wish = Wish { mode: ROOT_MODE, now: outside.now(), parent: None };
        root.insert(inodes.make(CpuId::BOOT, wish, (&Pile::default(), fresh), store)?);
    }
    Ok(files)
}

/// Enters the names, each of which is a use of its file; returns the numbers of those that have any.
fn enter_names(parts: &[&'static CpuPart], files: &Files, left: &mut [Left]) -> BTreeSet<u64> {
    let mut named = BTreeSet::from([ROOT]);
    let mut buffer = [0; 256];
    for ((part, left), cpu) in parts.iter().zip(left).zip(0..) {
        for kept in part.names.used() {
            kept.belongs_to(cpu);
            let (file, directory) =
                (files.get(&value(&kept.file)), files.get(&value(&kept.directory)).copied());
            let names = directory.and_then(|directory| Some((directory, directory.directory()?)));
            let (Some(file), Some((directory, names))) = (file, names) else {
                kept.file.store(0, Ordering::Relaxed);
                left.names.push(kept);
                continue;
            };
            let name = kept.read(&mut buffer);
            let part = names.part(directory::hash(directory.number, name));
            if let Ok(mut held) = part.hold(directory.number) {
                held.begin(value(&directory.inode.kept.mtime));
                held.insert(name, *file, kept);
            }
            file.keep();
            named.insert(file.number);
            match file.directory() {
                Some(own) => *own.parent.lock() = Some(directory),
                None => file.inode.change(|attributes| attributes.nlink += 1),
            }
        }
    }
    named
}

/// Enters the descriptors, each of which is a use of its open file, which is one of its file.
fn enter_descriptors(parts: &[&'static CpuPart], processes: &Processes, files: &Files, left: &mut [Left]) {
    for (_, process) in processes {
        process.take_all(|place| {
            let find = |number| files.get(&number).copied();
            if !open_file(place).is_some_and(|file| file.found_descriptor(find)) {
                place.store(ptr::null_mut(), Ordering::Relaxed);
            }
        });
    }
    for (part, left) in parts.iter().zip(left) {
        left.open.extend(part.open.used().iter().filter(|file| file.is_closed()));
    }
}

/// Takes the one use too many from the files, and ends those that nothing leads to.
fn end_unused(inodes: &Inodes, files: &mut Files, named: &BTreeSet<u64>) {
    files.retain(|number, file| {
        if *number == ROOT {
            return true;
        }
        if let (Some(names), false) = (file.directory(), named.contains(number)) {
            let mut parts = names.try_hold_all().unwrap_or_default();
            parts.iter_mut().for_each(|part| part.end(value(&file.inode.kept.mtime)));
            file.inode.change(|attributes| attributes.nlink = 0);
        }
        inodes.leave(file.inode).is_none()
    });
}

impl<O: Outside> FileSystem<O> {
    /// The file system for so many CPUs that an earlier life left, or an empty one.
    ///
    /// # Errors
    /// [`Errno::NoMemory`], or why the capacity is not known.
    pub fn new(outside: O, cpus: usize) -> Result<Self, Errno> {
        let numbers = (0..cpus).filter_map(CpuId::new);
        let parts: Vec<_> = numbers.map(|cpu| outside.cpu_part(cpu)).collect();
        let parts: &'static [&'static CpuPart] = Vec::leak(parts);
        let shared = outside.shared_part();
        parts.iter().for_each(|part| saved::redo(&outside, part));
        if value(&shared.capacity) == 0 {
            shared.capacity.store(outside.capacity()?, Ordering::Release);
        }
        let processes = find_processes(&outside, parts);
        let reached = reached(parts, &processes);
        let inodes = Inodes::new(cpus);
        // Before any file takes a number that it needs.
        let mut room = Room::new(&inodes.slots, value(&shared.capacity))?;
        let mut left: Vec<Left> = (0..cpus).map(|_| Left::default()).collect();
        let mut files = find_files(&outside, &inodes, parts, &reached, &mut left)?;
        let named = enter_names(parts, &files, &mut left);
        enter_descriptors(parts, &processes, &files, &mut left);
        end_unused(&inodes, &mut files, &named);
        let contents: BTreeSet<u64> = files.values().map(|file| value(&file.inode.kept.content)).collect();
        let mut last = 0;
        while let Some(content) = outside.next_content(last) {
            if !contents.contains(&content) {
                outside.end_content(content);
            }
            last = content;
        }
        // The root is not counted.
        room.begin(files.values().map(|file| value(&file.inode.kept.paid)).sum(), files.len() as u64 - 1);
        let root = files.get(&ROOT).copied().ok_or(Errno::Invalid)?;
        let in_use: Box<[_]> = (0..cpus).map(|_| Padded(AtomicU64::new(0))).collect();
        let left = left.into_iter().map(|left| Lock::new(Some(left))).collect();
        let moves = Lock::new(());
        let (returned_open, returned_names) = (Returned::new(cpus), Returned::new(cpus));
        Ok(Self {
            outside,
            inodes,
            room,
            root,
            moves,
            in_use,
            returned_open,
            returned_names,
            parts,
            shared,
            processes,
            left,
        })
    }

    /// The processes that an earlier life knew, by number.
    pub fn processes(&self) -> &[(usize, &'static Process)] {
        &self.processes
    }

    /// What CPU `cpu` keeps for itself. Once for each.
    pub fn replica(&self, cpu: CpuId) -> Replica {
        let left = self.left.get(cpu.index()).and_then(|left| left.lock().take()).unwrap_or_default();
        Replica {
            open: Pile::new(left.open),
            spare_files: Pile::new(left.files),
            spare_names: Pile::new(left.names),
            ..Replica::default()
        }
    }
}

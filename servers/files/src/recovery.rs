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
use core::sync::atomic::{AtomicU64, Ordering};

use api::files::DIRECTORY;
use rt::errno::Errno;
use smp::CpuId;

use crate::descriptor::Process;
use crate::directory;
use crate::inode::{Found, Inodes, Padded, ROOT, Spare};
use crate::lock::Lock;
use crate::open::{OpenFile, OpenFiles};
use crate::outside::Outside;
use crate::room::Room;
use crate::saved::{self, CpuPart, KeptFile, KeptName};
use crate::{FileSystem, Pile, Replica};

/// Type and rights of the root.
const ROOT_MODE: u32 = DIRECTORY | 0o755;

/// What a CPU can use again.
#[derive(Default)]
pub struct Left {
    files: Vec<&'static KeptFile>,
    names: Vec<&'static KeptName>,
    open: Vec<&'static OpenFile>,
    spare: Spare,
}

/// The files that there are, by number.
type Files = BTreeMap<u64, Found>;

fn value(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

/// Finds the files; each has one use too many.
fn find_files(
    outside: &impl Outside,
    inodes: &Inodes,
    parts: &[&'static CpuPart],
    left: &mut [Left],
) -> Result<Files, Errno> {
    let mut files = Files::new();
    for ((part, left), cpu) in parts.iter().zip(left).zip(0..) {
        let near = CpuId::new(cpu).unwrap_or(CpuId::BOOT);
        for kept in part.files.used() {
            match value(&kept.number) {
                0 => left.files.push(kept),
                number => drop(files.insert(number, inodes.known(near, kept, None)?)),
            }
        }
    }
    if let alloc::collections::btree_map::Entry::Vacant(root) = files.entry(ROOT) {
        let store = |place: &AtomicU64, value| {
            outside.step();
            place.store(value, Ordering::Release);
        };
        let keep = || parts.first()?.files.fresh();
        let what = (ROOT_MODE, outside.now());
        root.insert(inodes.make(CpuId::BOOT, &Spare::default(), what, None, keep, store)?);
    }
    Ok(files)
}

/// Enters the names, each of which is a use of its file; returns the numbers of those that have any.
fn enter_names(parts: &[&'static CpuPart], files: &Files, left: &mut [Left]) -> BTreeSet<u64> {
    let mut named = BTreeSet::from([ROOT]);
    let mut buffer = [0; 256];
    for (part, left) in parts.iter().zip(left) {
        for kept in part.names.used() {
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

/// Finds the processes with their descriptors, each of which is a use of its open file, which is one of its file.
fn find_processes(
    outside: &impl Outside,
    parts: &'static [&'static CpuPart],
    files: &Files,
    left: &mut [Left],
) -> Vec<(usize, &'static Process)> {
    parts.iter().flat_map(|part| part.open.used()).for_each(OpenFile::begin_anew);
    let mut processes = Vec::new();
    for (number, kept) in outside.shared_part().processes.iter().enumerate() {
        if value(&kept.is_there) == 0 {
            continue;
        }
        let process = Process::new(number, kept, parts);
        process.take_all(|place| {
            // SAFETY: what is kept there are open files, which stay where they are in all lives.
            let file = unsafe { place.load(Ordering::Relaxed).as_ref() };
            if !file.is_some_and(|file| file.found_descriptor(|number| files.get(&number).copied())) {
                place.store(ptr::null_mut(), Ordering::Relaxed);
            }
        });
        processes.push((number, process));
    }
    for (part, left) in parts.iter().zip(left) {
        left.open.extend(part.open.used().iter().filter(|file| file.is_closed()));
    }
    processes
}

/// Takes the one use too many from the files, and ends those that nothing leads to.
fn end_unused(inodes: &Inodes, files: &mut Files, named: &BTreeSet<u64>, left: &Left) {
    files.retain(|number, file| {
        if *number == ROOT {
            return true;
        }
        if let (Some(names), false) = (file.directory(), named.contains(number)) {
            let mut parts = names.try_hold_all().unwrap_or_default();
            parts.iter_mut().for_each(|part| part.end(value(&file.inode.kept.mtime)));
            file.inode.change(|attributes| attributes.nlink = 0);
        }
        inodes.leave(&left.spare, file.inode).is_none()
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
        let inodes = Inodes::new(cpus);
        let mut left: Vec<Left> = (0..cpus).map(|_| Left::default()).collect();
        let mut files = find_files(&outside, &inodes, parts, &mut left)?;
        let named = enter_names(parts, &files, &mut left);
        let processes = find_processes(&outside, parts, &files, &mut left);
        end_unused(&inodes, &mut files, &named, left.first().ok_or(Errno::Invalid)?);
        let contents: BTreeSet<u64> = files.values().map(|file| value(&file.inode.kept.content)).collect();
        let mut last = 0;
        while let Some(content) = outside.next_content(last) {
            if !contents.contains(&content) {
                outside.end_content(content);
            }
            last = content;
        }
        let paid = files.values().map(|file| value(&file.inode.kept.paid)).sum();
        // The root is not counted.
        let room = Room::new(&inodes.slots, value(&shared.capacity), paid, files.len() as u64 - 1)?;
        let root = files.get(&ROOT).copied().ok_or(Errno::Invalid)?;
        let in_use: Box<[_]> = (0..cpus).map(|_| Padded(AtomicU64::new(0))).collect();
        let left = left.into_iter().map(|left| Lock::new(Some(left))).collect();
        let moves = Lock::new(());
        Ok(Self { outside, inodes, room, root, moves, in_use, parts, shared, processes, left })
    }

    /// The processes that an earlier life knew, by number.
    pub fn processes(&self) -> &[(usize, &'static Process)] {
        &self.processes
    }

    /// What CPU `cpu` keeps for itself. Once for each.
    pub fn replica(&self, cpu: CpuId) -> Replica {
        let left = self.left.get(cpu.index()).and_then(|left| left.lock().take()).unwrap_or_default();
        Replica {
            open: OpenFiles::new(left.open),
            spare: left.spare,
            spare_files: Pile::new(left.files),
            spare_names: Pile::new(left.names),
            ..Replica::default()
        }
    }
}

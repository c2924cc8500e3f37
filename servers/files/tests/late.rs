//! What comes late does nothing to others: a request whose process was ended meanwhile, or whose descriptor was closed while
//! it waited.

mod common;

use api::files::{CREATE, READ_WRITE, WRITE_ONLY};
use common::host::{Moment, at_next, forget_planned, is_all_done};
use common::{Host, Life, data};
use rt::errno::Errno;

const MAKE: u32 = CREATE | READ_WRITE;
/// Numbers of processes.
const ONE: usize = 20;
const OTHER: usize = 21;

#[test]
fn what_a_process_opens_while_it_is_ended_is_not_the_next_ones() {
    // At each of its stores.
    for stores in 0.. {
        let Life { system, at } = Life::new(&Host::default(), 2);
        let process = system.attach(at[0], ONE, 0, None, None).unwrap();
        let ends = at[0];
        (0..stores).for_each(|_| at_next(Moment::Storing, || {}));
        at_next(Moment::Storing, move || {
            system.detach(ends, process);
            system.attach(ends, ONE, 0, Some(process), None).unwrap();
        });
        let opened = system.open(at[1], process, b"/secret", MAKE, 0o600);
        if !is_all_done() {
            assert!(opened.is_ok() && stores > 5, "{opened:?} after {stores} stores");
            forget_planned();
            return;
        }
        for descriptor in 0..512 {
            let seen = system.fstat(at[0], process, descriptor);
            assert_eq!(seen, Err(Errno::BadDescriptor), "the next process begins with {descriptor}");
        }
    }
}

#[test]
fn a_process_that_was_ended_opens_nothing_and_the_next_life_does_not_know_it() {
    let host = Host::default();
    let Life { system, at } = Life::new(&host, 1);
    let process = system.attach(at[0], ONE, 0, None, None).unwrap();
    let late = system.open(at[0], process, b"/a", MAKE, 0).unwrap();
    // It is ended when it is not there any more, but before its descriptors are closed.
    host.end_after(0);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| system.detach(at[0], process)));
    assert!(ended.is_err());
    host.end_after(common::host::NEVER);
    host.forget(ONE);
    let Life { system, at } = Life::new(&host, 1);
    let victim = system.attach(at[0], OTHER, 0, None, None).unwrap();
    let own = system.open(at[0], victim, b"/victim", MAKE, 0o600).unwrap();
    let next = system.attach(at[0], ONE, 0, None, None).unwrap();
    assert_eq!(system.fstat(at[0], next, late), Err(Errno::BadDescriptor), "it has what another one opened");
    assert!(system.fstat(at[0], victim, own).is_ok());
    system.detach(at[0], next);
    assert_eq!(system.open(at[0], next, b"/a", 0, 0), Err(Errno::NoProcess));
}

#[test]
fn a_write_whose_file_ended_while_it_waited_changes_no_other() {
    for is_at_place in [true, false] {
        let Life { system, at } = Life::new(&Host::default(), 1);
        let at = at[0];
        let process = system.attach(at, ONE, 0, None, None).unwrap();
        let victim = system.attach(at, OTHER, 0, None, None).unwrap();
        let descriptor = system.open(at, process, b"/mine", MAKE, 0o644).unwrap();
        at_next(Moment::Blocked, move || {
            system.close(at, process, descriptor).unwrap();
            system.unlink(at, b"/mine").unwrap();
            system.open(at, victim, b"/victim", MAKE, 0o600).unwrap();
        });
        let mut bytes = *b"intruder";
        let written = if is_at_place {
            system.pwrite(at, process, descriptor, 0, data(&mut bytes))
        } else {
            system.write(at, process, descriptor, data(&mut bytes))
        };
        assert!(is_all_done());
        assert_eq!(written, Err(Errno::BadDescriptor));
        assert_eq!(system.stat(at, b"/victim").unwrap().size, 0, "what was written is in another file");
        // Nor does what was made for it stay.
        assert_eq!(system.outside.contents(), 0);
    }
}

#[test]
fn a_write_whose_descriptor_was_closed_while_it_waited_moves_no_other_open_file() {
    let Life { system, at } = Life::new(&Host::default(), 1);
    let at = at[0];
    let process = system.attach(at, ONE, 0, None, None).unwrap();
    let other = system.attach(at, OTHER, 0, None, None).unwrap();
    let descriptor = system.open(at, process, b"/file", MAKE, 0o644).unwrap();
    at_next(Moment::Blocked, move || {
        system.close(at, process, descriptor).unwrap();
        // The same open file again, of the same file, but another process's.
        assert_eq!(system.open(at, other, b"/file", READ_WRITE, 0), Ok(descriptor));
    });
    assert_eq!(system.write(at, process, descriptor, data(&mut [1; 8])), Err(Errno::BadDescriptor));
    assert_eq!(system.seek(at, other, descriptor, 0, api::files::FROM_CURRENT), Ok(0));
}

#[test]
fn a_read_whose_descriptor_was_closed_meanwhile_returns_nothing() {
    let Life { system, at } = Life::new(&Host::default(), 1);
    let at = at[0];
    let process = system.attach(at, ONE, 0, None, None).unwrap();
    let descriptor = system.open(at, process, b"/mine", MAKE, 0o644).unwrap();
    system.pwrite(at, process, descriptor, 0, data(&mut [7; 8])).unwrap();
    at_next(Moment::Copying, move || system.close(at, process, descriptor).unwrap());
    let mut bytes = [1; 8];
    assert_eq!(system.pread(at, process, descriptor, 0, data(&mut bytes)), Err(Errno::BadDescriptor));
    assert_eq!(bytes, [0; 8]);
}

#[test]
fn what_is_closed_while_another_process_inherits_it_is_not_inherited() {
    let Life { system, at } = Life::new(&Host::default(), 1);
    let at = at[0];
    let parent = system.attach(at, ONE, 0, None, None).unwrap();
    let other = system.attach(at, OTHER, 0, None, None).unwrap();
    system.open(at, parent, b"/opened", MAKE, 0o644).unwrap();
    // While a file is being opened it is nobody else's.
    at_next(Moment::Storing, || {});
    at_next(Moment::Storing, move || {
        let child = system.attach(at, ONE + OTHER, 0, None, Some(parent)).unwrap();
        assert!(system.fstat(at, child, 0).is_ok());
        assert_eq!(child.get(1).err(), Some(Errno::BadDescriptor));
    });
    system.open(at, parent, b"/being-opened", MAKE, 0o644).unwrap();
    assert!(is_all_done());
    assert_eq!(system.fstat(at, other, 0), Err(Errno::BadDescriptor));
}

#[test]
fn a_map_of_what_was_closed_while_it_waited_is_refused() {
    let Life { system, at } = Life::new(&Host::default(), 1);
    let at = at[0];
    let process = system.attach(at, ONE, 0, None, None).unwrap();
    let descriptor = system.open(at, process, b"/mine", MAKE, 0o644).unwrap();
    at_next(Moment::Blocked, move || {
        system.close(at, process, descriptor).unwrap();
        system.unlink(at, b"/mine").unwrap();
    });
    let shown = system.map(at, process, descriptor, |_| panic!("what was ended is shown"));
    assert_eq!(shown, Err(Errno::BadDescriptor));
    assert_eq!(system.outside.contents(), 0);
}

#[test]
fn what_is_open_for_one_thing_only_is_not_mapped() {
    let Life { system, at } = Life::new(&Host::default(), 1);
    let at = at[0];
    let process = system.attach(at, ONE, 0, None, None).unwrap();
    for flags in [CREATE, CREATE | WRITE_ONLY] {
        let descriptor = system.open(at, process, b"/file", flags, 0o644).unwrap();
        let shown = system.map(at, process, descriptor, |_| panic!("a map can be read and written"));
        assert_eq!(shown, Err(Errno::Access));
    }
}

#[test]
fn the_map_of_a_process_that_was_ended_shows_the_next_one_nothing() {
    let Life { system, at } = Life::new(&Host::default(), 2);
    let process = system.attach(at[0], ONE, 0, None, None).unwrap();
    let descriptor = system.open(at[0], process, b"/mine", MAKE, 0o644).unwrap();
    let ends = at[0];
    at_next(Moment::Blocked, move || {
        system.detach(ends, process);
        system.attach(ends, ONE, 0, Some(process), None).unwrap();
    });
    let shown = system.map(at[1], process, descriptor, |_| panic!("it is shown to the next one"));
    assert!(shown.is_err());
}

#[test]
fn who_ends_a_process_waits_until_what_it_maps_is_mapped() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static IS_SHOWN: AtomicBool = AtomicBool::new(false);
    let machine = smp::host::Machine::new(2);
    let system = files::FileSystem::new(Host::default(), 2).unwrap();
    let (is_showing, system) = (std::sync::Barrier::new(2), &system);
    machine.run(|cpu| {
        let replica = system.replica(cpu.id());
        let at = files::At { cpu, replica: &replica };
        static PROCESS: std::sync::OnceLock<&'static files::descriptor::Process> = std::sync::OnceLock::new();
        if cpu.id().index() == 0 {
            let process = PROCESS.get_or_init(|| system.attach(at, ONE, 0, None, None).unwrap());
            let descriptor = system.open(at, process, b"/mine", MAKE, 0o644).unwrap();
            let show = |_| {
                is_showing.wait();
                std::thread::sleep(std::time::Duration::from_millis(50));
                IS_SHOWN.store(true, Ordering::SeqCst);
                Ok(())
            };
            assert_eq!(system.map(at, process, descriptor, show), Ok(()));
        } else {
            is_showing.wait();
            system.detach(at, PROCESS.get().unwrap());
            assert!(
                IS_SHOWN.load(Ordering::SeqCst),
                "its number is another one's while it is shown something"
            );
        }
    });
}

#[test]
fn a_content_that_is_read_elsewhere_when_its_file_ends_ends_too() {
    let machine = smp::host::Machine::new(2);
    let system = files::FileSystem::new(Host::default(), 2).unwrap();
    let (is_reading, system) = (std::sync::Arc::new(std::sync::Barrier::new(2)), &system);
    let opened = std::sync::OnceLock::new();
    machine.run(|cpu| {
        let replica = system.replica(cpu.id());
        let at = files::At { cpu, replica: &replica };
        if cpu.id().index() == 0 {
            let process = system.attach(at, ONE, 0, None, None).unwrap();
            let descriptor = system.open(at, process, b"/mine", MAKE, 0o644).unwrap();
            system.pwrite(at, process, descriptor, 0, data(&mut [1; 8])).unwrap();
            opened.set(process).ok();
            let is_reading = is_reading.clone();
            at_next(Moment::Copying, move || {
                is_reading.wait();
                std::thread::sleep(std::time::Duration::from_millis(50));
            });
            let _ = system.pread(at, process, descriptor, 0, data(&mut [0; 8]));
        } else {
            is_reading.wait();
            system.unlink(at, b"/mine").unwrap();
            system.detach(at, opened.get().unwrap());
        }
    });
    assert_eq!(system.outside.contents(), 0);
}

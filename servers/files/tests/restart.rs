//! What goes on where it was when the server has another life.

mod common;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use api::files::{CREATE, DIRECTORY_ONLY, READ_WRITE};
use common::host::{Ended, Moment, at_next};
use common::{Host, Life, data, process, some_names};

const NAMES: usize = 600;
/// Bytes of names that are read at a time: few names.
const FEW: usize = 70;

#[test]
fn whoever_reads_a_directory_over_a_restart_finds_all_names_that_were_there_all_the_time() {
    let host = Host::default();
    let mut seen = BTreeSet::new();
    let Life { system, at } = Life::new(&host, 1);
    let reader = process(system, at[0]);
    let path = |name: usize| format!("/f{name:03}");
    for name in 0..NAMES {
        let made = system.open(at[0], reader, path(name).as_bytes(), CREATE | READ_WRITE, 0o644).unwrap();
        system.close(at[0], reader, made).unwrap();
    }
    // So that those that stay would be at other places if they were entered anew.
    (0..NAMES / 2).for_each(|name| system.unlink(at[0], path(name).as_bytes()).unwrap());
    // A name that stands for another file is there all the time, too.
    system.rename(at[0], path(NAMES - 2).as_bytes(), path(NAMES - 1).as_bytes()).unwrap();
    let descriptor = system.open(at[0], reader, b"/", DIRECTORY_ONLY, 0).unwrap();
    for _ in 0..NAMES / 30 {
        seen.extend(some_names(system, reader, descriptor, FEW).unwrap());
    }
    assert!(!seen.is_empty() && seen.len() < NAMES / 4, "{} are known before", seen.len());
    let Life { system, .. } = Life::new(&host, 1);
    let (_, reader) = system.processes()[0];
    loop {
        let more = some_names(system, reader, descriptor, FEW).unwrap();
        if more.is_empty() {
            break;
        }
        seen.extend(more);
    }
    let stayed = (NAMES / 2..NAMES - 2).chain([NAMES - 1]);
    let expected: BTreeSet<_> = stayed.map(|name| (format!("f{name:03}"), false)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_write_for_which_there_is_no_memory_is_not_made_again_by_the_next_life() {
    let host = Host::default();
    let Life { system, at } = Life::new(&host, 1);
    let writer = process(system, at[0]);
    let file = system.open(at[0], writer, b"/file", CREATE | READ_WRITE, 0o644).unwrap();
    system.pwrite(at[0], writer, file, 0, data(&mut [1; 8])).unwrap();
    // The pager refuses a page: that is the server's end.
    at_next(Moment::Touching, || resume_unwind(Box::new(Ended)));
    let written = catch_unwind(AssertUnwindSafe(|| system.pwrite(at[0], writer, file, 0, data(&mut [2; 8]))));
    assert!(written.is_err());
    let Life { system, at } = Life::new(&host, 1);
    let (_, writer) = system.processes()[0];
    let mut bytes = [0; 8];
    assert_eq!(system.pread(at[0], writer, file, 0, data(&mut bytes)), Ok(8));
    assert_eq!(bytes, [1; 8], "the next life would touch that page again, and end, too");
}

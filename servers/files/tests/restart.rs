//! What goes on where it was when the server has another life.

mod common;

use std::collections::BTreeSet;

use api::files::{CREATE, DIRECTORY_ONLY, READ_WRITE};
use common::{Host, Life, process, some_names};

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

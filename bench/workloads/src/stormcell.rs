//! What of the workloads the Stormcell guest has so far. The host skips the rest. The guest compares its own
//! workers with this list when it is compiled, so that the two cannot differ.
use crate::table::Mode;
use crate::table::number::*;

const MT: &[Mode] = &[Mode::Mt];
const MP: &[Mode] = &[Mode::Mp];
const BOTH: &[Mode] = &Mode::ALL;

/// Workloads by number, and the modes in which they are there: one line each.
const PRESENT: &[(u8, &[Mode])] = &[
    (NULL_SYSCALL, MT),
    (PPC, BOTH),
    (PAGE_FAULT, BOTH),
    (PAGE_FAULT_ANON, BOTH),
    (FSTAT, BOTH),
    (FSTAT_SHARED, BOTH),
    (THREAD_CREATE, BOTH),
    (MUNMAP, MT),
    (IPC_REMOTE, MT),
    (FILE_OPEN, BOTH),
    (PROCESS_CREATE, MP),
    (PIPE, MP),
    (FILE_READ, BOTH),
    (MUTEX, MT),
    (NOTIFY, MT),
    (CAPABILITY, MT),
    (PRIVATE_COUNTER, MT),
    (SHARED_COUNTER, MT),
    (SMP_DEREF, MT),
    (SMP_COUNTER, MT),
    (SMP_ACCOUNT, MT),
    (SMP_POOL, MT),
    (SMP_MAILBOX, MT),
    (SMP_RETIRE, MT),
    (SMP_CALL, MT),
    (SMP_SHOOTDOWN, MT),
];

/// The variants that the kernel takes as `variant=`: the baseline, and each ablation.
pub const VARIANTS: &[&str] = &["baseline", "biglock", "onehome", "sharedpool", "sharedpt", "broadcast"];

/// Whether the guest has the workload `number` in `mode`.
#[must_use]
pub const fn has(number: u8, mode: Mode) -> bool {
    let mut i = 0;
    while i < PRESENT.len() {
        let (present, modes) = PRESENT[i];
        let mut j = 0;
        while j < modes.len() {
            if present == number && modes[j] as u8 == mode as u8 {
                return true;
            }
            j += 1;
        }
        i += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Workload;

    #[test]
    fn every_entry_is_of_the_table_and_in_a_mode_that_it_is_defined_in() {
        for &(number, modes) in PRESENT {
            let workload = Workload::by_number(number).unwrap();
            assert!(modes.iter().all(|mode| workload.has(*mode)), "{}", workload.name);
            assert_eq!(PRESENT.iter().filter(|(other, _)| *other == number).count(), 1);
        }
    }
}

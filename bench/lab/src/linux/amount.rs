//! How much is measured of a workload on Linux, and the guest memory that this takes.
use workloads::Workload;
use workloads::table::{MUNMAP_PAGES, PAGE, number};

/// Operations of a worker where nothing speaks for another number: millions of cycles a worker, so that the
/// scheduler's ticks (each 8 million cycles of every CPU, some thousand instructions) are spread evenly enough over
/// runs.
const OPS: u64 = 2000;
/// The fewest that the contract allows for Linux.
pub const FEWEST: u64 = 200;
/// The same where an operation costs tens of thousands of instructions, and more with each CPU.
const EXPENSIVE_OPS: u64 = 200;
/// Unmappings of all workers together: whoever has the address space's lock keeps it until a worker that sleeps on
/// it is handed it after two ticks, in which some 500 operations pass. This is 30 such turns.
const UNMAPPINGS: u64 = 16_000;
/// The fewest and the most of a worker.
const FEWEST_UNMAPPINGS: u64 = 500;
const MOST_UNMAPPINGS: u64 = OPS;

/// Memory of the guest in MiB: a base, and what each worker takes beside what it prepares.
const BASE_MEMORY_MIB: u64 = 512;
const WORKER_MEMORY_MIB: u64 = 32;
const PAGES_PER_MIB: u64 = (1 << 20) / PAGE as u64;
/// Workers prepare up to four times the operations, and take no more than half of the free memory.
const PREPARED: u64 = 4;
const MEMORY_PART: u64 = 2;

/// Operations of a worker of `workload` on `cpus` CPUs.
#[must_use]
pub fn ops(workload: &Workload, cpus: u32) -> u64 {
    match workload.number {
        number::THREAD_CREATE | number::PROCESS_CREATE => EXPENSIVE_OPS,
        number::MUNMAP => (UNMAPPINGS / u64::from(cpus)).clamp(FEWEST_UNMAPPINGS, MOST_UNMAPPINGS),
        _ => OPS,
    }
}

/// Memory in MiB that workers on `cpus` CPUs need to prepare `ops` operations each of `workloads`, one after the
/// other.
pub fn memory<'w>(cpus: u32, ops: u64, workloads: impl Iterator<Item = &'w Workload>) -> u64 {
    let pages = ops.saturating_mul(workloads.map(prepared_pages).max().unwrap_or(0));
    BASE_MEMORY_MIB + u64::from(cpus) * (WORKER_MEMORY_MIB + MEMORY_PART * pages / PAGES_PER_MIB)
}

/// Pages that workers prepare for each operation asked for.
fn prepared_pages(workload: &Workload) -> u64 {
    match workload.number {
        number::PAGE_FAULT | number::PAGE_FAULT_ANON => PREPARED,
        // Only as many again: what is used up is mapped anew piece by piece.
        number::MUNMAP => 2 * MUNMAP_PAGES.unsigned_abs(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_name(name: &str) -> &'static Workload {
        Workload::by_name(name).unwrap()
    }

    #[test]
    fn no_workload_gets_fewer_operations_than_the_contract_allows() {
        for workload in &workloads::table::ALL {
            for cpus in [1, 8, 255] {
                assert!(ops(workload, cpus) >= FEWEST, "{} at {cpus}", workload.name);
            }
        }
    }

    #[test]
    fn unmappings_of_all_workers_stay_about_the_same() {
        let all = |cpus: u32| u64::from(cpus) * ops(by_name("munmap"), cpus);
        assert_eq!([all(8), all(16), all(32)], [UNMAPPINGS; 3]);
        assert_eq!(ops(by_name("munmap"), 1), MOST_UNMAPPINGS);
    }

    #[test]
    fn memory_grows_with_what_is_prepared_only() {
        let of = |name: &str, cpus, ops| memory(cpus, ops, [by_name(name)].into_iter());
        assert!(of("page_fault", 2, 200) > of("page_fault", 1, 200));
        assert!(of("munmap", 8, 2000) > of("munmap", 8, 200) + 2000);
        assert_eq!(of("fstat", 8, 2000), of("fstat", 8, 200));
    }
}

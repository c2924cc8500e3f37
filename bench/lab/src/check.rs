//! Whether a measured entry is what was asked for. A figure that fails here is never recorded.
use model::report::Region;

use crate::guest_line::Told;
use crate::system::Boot;

/// Checks one entry of `boot`: what the guest says of it, and what the instrument saw (`None` where the guest
/// times itself).
///
/// # Errors
/// One line that says what is wrong.
pub fn entry(boot: &Boot, told: &Told, region: Option<&Region>) -> Result<(), String> {
    let line = &told.line;
    let workers = boot.cpus;
    let ops = boot.ops * u64::from(workers);
    if !line.ok {
        return Err("the guest says that it failed".into());
    }
    if line.workers != workers || line.entered != workers {
        return Err(format!("{} of {workers} workers entered the region", line.entered));
    }
    if line.all_ops < ops {
        return Err(format!("the guest did {} operations of {ops}", line.all_ops));
    }
    if let (Some(wanted), Some(faults)) = (told.entry.workload.faults_per_op, line.faults) {
        faults_are(faults, u64::from(wanted) * ops, "the guest's kernel")?;
    }
    match region {
        Some(region) => instrument(boot, told, region),
        None if line.tsc_per_op.is_none() => Err("the guest gave no times".into()),
        None => Ok(()),
    }
}

/// Checks what the instrument saw.
fn instrument(boot: &Boot, told: &Told, region: &Region) -> Result<(), String> {
    let workload = told.entry.workload;
    let ops = boot.ops * u64::from(boot.cpus);
    if region.workload != workload.number {
        return Err(format!("the region is of workload {}, not {}", region.workload, workload.number));
    }
    if region.workers != boot.cpus || region.ops.len() != boot.cpus as usize {
        return Err(format!("the instrument saw {} workers of {}", region.workers, boot.cpus));
    }
    if !region.balanced {
        return Err("markers are not balanced: a worker entered without leaving, or worked outside".into());
    }
    if let Some(worker) = region.ops.iter().position(|&done| done != boot.ops) {
        return Err(format!("CPU {worker} marked {} operations of {}", region.ops[worker], boot.ops));
    }
    let counted = region.cycles_per_op[crate::record::summary::COUNT];
    if counted != ops as f64 {
        return Err(format!("{counted} operations were timed of {ops}"));
    }
    if let (Some(wanted), Some(faults)) = (workload.faults_per_op, region.total.faults) {
        faults_are(faults, u64::from(wanted) * ops, "the instrument")?;
    }
    Ok(())
}

fn faults_are(faults: u64, wanted: u64, by: &str) -> Result<(), String> {
    if faults == wanted {
        return Ok(());
    }
    Err(format!("{by} counted {faults} page faults, the workload is defined by {wanted}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::guest_line;
    use crate::qemu::Accel;
    use workloads::{Entry, Mode, Workload};

    /// A boot of one entry on two CPUs with 10 operations each.
    pub fn boot(workload: &str) -> Boot {
        let workload = Workload::by_name(workload).unwrap();
        Boot {
            cpus: 2,
            entries: vec![Entry { workload, mode: Mode::Mt }],
            ops: 10,
            warmup: 1,
            seed: 0,
            variant: "baseline".into(),
            accel: Accel::Tcg,
        }
    }

    /// What a guest and an instrument without fault report for that boot.
    pub fn good(boot: &Boot) -> (Told, Region) {
        let entry = boot.entries[0];
        let mut outcome = guest_line::tests::outcome(entry, boot.cpus, boot.ops);
        let ops = boot.ops * u64::from(boot.cpus);
        outcome.faults = Some(ops * u64::from(entry.workload.faults_per_op.unwrap_or(0)));
        let mut region = Region {
            workload: entry.workload.number,
            workers: boot.cpus,
            balanced: true,
            ops: vec![boot.ops; boot.cpus as usize],
            cycles_per_op: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, ops as f64],
            ..Region::default()
        };
        region.total.faults = outcome.faults;
        (guest_line::read(&outcome.to_string()).unwrap(), region)
    }

    #[test]
    fn a_sound_entry_passes() {
        let boot = boot("page_fault");
        let (told, region) = good(&boot);
        assert_eq!(entry(&boot, &told, Some(&region)), Ok(()));
    }

    /// A change that makes a sound report unsound, and a word of the complaint.
    type Fault = (fn(&mut Told, &mut Region), &'static str);

    #[test]
    fn each_fault_is_found() {
        let faults: [Fault; 10] = [
            (|told, _| told.line.ok = false, "failed"),
            (|told, _| told.line.entered = 1, "1 of 2 workers"),
            (|told, _| told.line.all_ops = 19, "19 operations"),
            (|told, _| told.line.faults = Some(21), "21 page faults"),
            (|_, region| region.workload = 4, "workload 4"),
            (|_, region| region.workers = 1, "1 workers"),
            (|_, region| region.balanced = false, "balanced"),
            (|_, region| region.ops[1] = 9, "CPU 1 marked 9"),
            (|_, region| region.cycles_per_op[7] = 19.0, "19 operations were timed"),
            (|_, region| region.total.faults = Some(19), "19 page faults"),
        ];
        let boot = boot("page_fault");
        for (spoil, word) in faults {
            let (mut told, mut region) = good(&boot);
            spoil(&mut told, &mut region);
            let error = entry(&boot, &told, Some(&region)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_guest_that_times_itself_must_give_times() {
        let boot = boot("fstat");
        let (mut told, _) = good(&boot);
        assert!(entry(&boot, &told, None).is_err());
        told.line.tsc_per_op = Some([1.0; 8]);
        assert_eq!(entry(&boot, &told, None), Ok(()));
    }
}

//! From what guest and instrument report of an entry to its record.
use model::report::Region;

use crate::guest_line::Told;
use crate::qemu::Accel;
use crate::record::{Record, SCHEMA};
use crate::sweep::Plan;
use crate::system::Boot;

/// The part of waits that may expire before a point is suspect: one in this many.
const SUSPECT_PART: u64 = 100;

/// The record of a checked entry; slowdowns are filled in when all points of a run are there.
pub(crate) fn record(
    plan: &Plan<'_>,
    boot: &Boot,
    told: &Told,
    region: Option<&Region>,
    repeat: u32,
) -> Record {
    let ops = boot.ops * u64::from(boot.cpus);
    let per_op = |count: u64| count as f64 / ops as f64;
    let total = region.map(|region| &region.total);
    let marks = plan.system.marks_kernel_events();
    let beyond = |bytes: i64| {
        let all = told.line.all_ops.max(1) as f64;
        bytes as f64 / all - told.entry.workload.bytes_per_op as f64
    };
    let clock = if region.is_some() { "model" } else { "tsc" };
    Record {
        schema: SCHEMA,
        run: plan.context.run.clone(),
        ts: String::new(),
        git: plan.context.git.clone(),
        dirty: plan.context.dirty,
        rustc: plan.context.rustc.clone(),
        host: plan.context.host.clone(),
        qemu: plan.context.qemu.clone(),
        accel: plan.accel.to_string(),
        clock: clock.into(),
        profile: None,
        system: plan.system.name().into(),
        system_version: Some(plan.system.version()),
        variant: plan.variant.into(),
        workload: told.entry.workload.name.into(),
        mode: told.entry.mode.name().into(),
        cpus: boot.cpus,
        workers: told.line.workers,
        repeat,
        ops,
        cycles_per_op: region.map(|r| r.cycles_per_op).or(told.line.tsc_per_op).unwrap_or_default(),
        insns_user_per_op: total.map(|t| per_op(t.insns_user)),
        insns_kernel_per_op: total.map(|t| per_op(t.insns_kernel)),
        insns_server_per_op: total.filter(|_| marks).map(|t| per_op(t.insns_server)),
        transfers_user_per_op: total.map(|t| per_op(t.transfers_user)),
        transfers_kernel_per_op: total.map(|t| per_op(t.transfers_kernel)),
        transfers_string_per_op: total.map(|t| per_op(t.transfers_string)),
        faults_per_op: total.map_or(told.line.faults, |t| t.faults).map(per_op),
        ipis_per_op: total.map(|t| per_op(t.ipis)),
        ipi_deliveries_per_op: total.filter(|_| marks).map(|t| per_op(t.ipi_deliveries)),
        locks_contended_per_op: total.filter(|_| marks).map(|t| per_op(t.locks_contended)),
        grace_periods: told.line.grace_periods,
        mem_growth_bytes_per_op: told.line.mem_growth_bytes.map(beyond),
        slowdown: None,
        slowdown_median: None,
        waits: region.map(|region| region.waits),
        expired_waits: region.map(|region| region.expired_waits),
        suspect: region.is_some_and(|region| region.expired_waits * SUSPECT_PART > region.waits),
        oversubscribed: oversubscribed(plan.accel, boot.cpus, plan.context.host.cores),
    }
}

/// Whether vCPUs take turns on physical cores while their time is taken: only the model's clock does not mind.
/// Where the number of cores is unknown this is assumed.
fn oversubscribed(accel: Accel, cpus: u32, cores: Option<u32>) -> bool {
    accel == Accel::Kvm && cores.is_none_or(|cores| cpus > cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hardware_virtualisation_is_oversubscribed() {
        assert!(!oversubscribed(Accel::Tcg, 255, Some(1)));
        assert!(!oversubscribed(Accel::Kvm, 2, Some(2)));
        assert!(oversubscribed(Accel::Kvm, 3, Some(2)));
        assert!(oversubscribed(Accel::Kvm, 1, None));
    }
}

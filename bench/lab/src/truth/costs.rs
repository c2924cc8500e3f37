//! Each cost of the contract's table, from a loop around that event alone: what an operation costs beyond
//! its instructions.
use anyhow::{Context, Result};
use model::profile::Profile;
use model::report::Region;

use super::runner::{Boot, Runner, median, operations, within};

/// How far a cost may be off.
const PART: f64 = 0.02;
/// Operations of a loop; the guest has lines for this many.
const OPS: u32 = 400;
/// Workload number of the loop that wakes the other CPU by IPI.
const IPI_WAKE: u8 = 239;

fn boot(set: &[&str]) -> Boot {
    Boot { set: set.iter().map(ToString::to_string).collect(), ..Boot::new("costs", 2, OPS) }
}

/// Cycles of an operation beyond its instructions.
fn beyond_instructions(region: &Region) -> f64 {
    let total = &region.total;
    (total.cycles - total.insns_user - total.insns_kernel) as f64 / operations(region)
}

/// Workload numbers of `bench/truth`, what each loop is around, and what that costs.
fn table(profile: &Profile) -> [(u8, &'static str, u32); 29] {
    let c = &profile.costs;
    [
        (210, "syscall, sysret", c.syscall + c.sysret),
        (211, "syscall, iretq", c.syscall + c.iretq),
        (212, "interrupt entry, iretq", c.entry + c.iretq),
        (213, "interrupt entry, sysret", c.entry + c.sysret),
        (214, "write of CR3", c.write_cr3),
        (215, "write of CR0", c.write_cr0),
        (216, "clts", c.write_cr0),
        (217, "invlpg", c.invlpg),
        (218, "swapgs", c.swapgs),
        (219, "wrfsbase", c.swapgs),
        (220, "rdgsbase", c.swapgs),
        (221, "wrmsr", c.wrmsr),
        (222, "rdmsr", c.rdmsr),
        (223, "APIC write", c.apic),
        (224, "APIC read", c.apic),
        (225, "pause", c.pause),
        (226, "fxsave", c.xsave),
        (227, "fxrstor", c.xsave),
        (228, "xsave", c.xsave),
        (229, "xrstor", c.xsave),
        (230, "locked increment", c.locked),
        (231, "xchg with memory", c.locked),
        (232, "write of the interrupt command", c.apic + c.ipi_send),
        (233, "first touch", c.first_touch),
        (234, "store to a line of another CPU", c.transfer),
        (235, "load of a line of another CPU", c.transfer),
        (236, "store across two lines of another CPU", 2 * c.transfer),
        (237, "string store to a line of another CPU", c.string_line),
        (238, "string store to an own page", 0),
    ]
}

fn find(regions: &[Region], workload: u8) -> Result<&Region> {
    regions.iter().find(|r| r.workload == workload).with_context(|| format!("no loop {workload}"))
}

/// Each fixed cost is that of the table, within 2 %.
///
/// # Errors
/// Names the first event that costs something else.
pub fn fixed(runner: &Runner) -> Result<String> {
    let regions = runner.regions(&boot(&[]))?;
    let table = table(&Profile::default());
    for (workload, event, cost) in table {
        let region = find(&regions, workload)?;
        within(event, beyond_instructions(region), f64::from(cost), PART)?;
    }
    // A string instruction of 512 iterations counts as one: few instructions an operation.
    let string = find(&regions, 238)?;
    let insns = string.total.insns_kernel as f64 / operations(string);
    anyhow::ensure!(insns < 12.0, "a string instruction counts as {insns} instructions");
    Ok(format!("{} events", table.len()))
}

/// Workload numbers of loops whose instructions are counted by hand, and how many there are in an operation.
const COUNTED: [(u8, f64); 2] = [(240, 10.0), (241, 1000.0)];

/// A loop of n instructions, none of which moves a line, is counted as n instructions and costs n cycles.
///
/// # Errors
/// The loop's length and what was counted.
pub fn instructions(runner: &Runner) -> Result<String> {
    let regions = runner.regions(&boot(&[]))?;
    for (workload, length) in COUNTED {
        let region = find(&regions, workload)?;
        let [min, q1, median, _, q3, max, ..] = region.cycles_per_op;
        // The first operation has the way to the loop in place of its end.
        let first = |cycles: f64| (cycles - length).abs() <= 10.0;
        anyhow::ensure!(
            [q1, median, q3] == [length; 3] && first(min) && first(max),
            "{length} instructions cost {min} to {max} cycles, median {median}"
        );
        let counted = region.total.insns_kernel as f64 / operations(region);
        within("counted instructions", counted, length, 0.005)?;
    }
    Ok("10 and 1000 instructions cost 10 and 1000 cycles".to_owned())
}

/// With two sockets, a line costs more from the other one.
///
/// # Errors
/// Names the access that costs something else.
pub fn across_sockets(runner: &Runner) -> Result<String> {
    let regions = runner.regions(&boot(&["sockets:2"]))?;
    let remote = f64::from(Profile::default().costs.transfer_remote);
    within("remote store", beyond_instructions(find(&regions, 234)?), remote, PART)?;
    within("remote load", beyond_instructions(find(&regions, 235)?), remote, PART)?;
    Ok(format!("{remote} cycles"))
}

/// A halted CPU runs a delivery after the IPI that woke it: twice the delivery, so much longer the wait.
///
/// # Errors
/// Both figures.
pub fn ipi_delivery(runner: &Runner) -> Result<String> {
    let delivery = Profile::default().costs.ipi_delivery;
    let doubled = format!("ipi_delivery:{}", 2 * delivery);
    let short = median(find(&runner.regions(&boot(&[]))?, IPI_WAKE)?);
    let long = median(find(&runner.regions(&boot(&[&doubled]))?, IPI_WAKE)?);
    within("delivery", long - short, f64::from(delivery), PART)?;
    Ok(format!("{short:.0} and {long:.0} cycles"))
}

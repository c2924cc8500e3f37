//! What CPUs cost each other: nothing where nothing is shared, the queue at the line where something is.
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use model::profile::Profile;
use model::report::Region;

use super::runner::{Boot, Runner, mean, median, transfers, within};

const OPS: u32 = 500;
/// CPU counts of the contended counter.
const SHARED_CPUS: [u32; 4] = [4, 8, 16, 32];
/// Most CPUs of the private counter.
const PRIVATE_CPUS: [u32; 4] = [2, 8, 16, 32];
/// Most that a private counter may slow down.
const FLAT: f64 = 1.02;

/// A private counter costs the same on any number of CPUs.
///
/// # Errors
/// The CPU count and its slowdown.
pub fn private_counter(runner: &Runner) -> Result<String> {
    let base = mean(&runner.region(&Boot::new("private_counter", 1, OPS))?);
    let mut worst: f64 = 1.0;
    for cpus in PRIVATE_CPUS {
        let slowdown = mean(&runner.region(&Boot::new("private_counter", cpus, OPS))?) / base;
        ensure!(slowdown <= FLAT, "private_counter slows down by {slowdown:.3} on {cpus} CPUs");
        worst = worst.max(slowdown);
    }
    Ok(format!("slowdown at most {worst:.3}"))
}

/// A counter that all increment costs a transfer for each CPU.
///
/// # Errors
/// The CPU count and its median.
pub fn shared_counter(runner: &Runner) -> Result<String> {
    let transfer = f64::from(Profile::default().costs.transfer);
    let mut medians = Vec::new();
    for cpus in SHARED_CPUS {
        let region = runner.region(&Boot::new("shared_counter", cpus, OPS))?;
        within(&format!("median on {cpus} CPUs"), median(&region), transfer * f64::from(cpus), 0.05)?;
        medians.push(format!("{:.0}", median(&region)));
    }
    Ok(format!("medians {}", medians.join(", ")))
}

/// Two CPUs that increment a word in turn move its line at each increment: twice a round trip.
///
/// # Errors
/// The figure.
pub fn alternate(runner: &Runner) -> Result<String> {
    let region = runner.region(&Boot::new("alternate", 2, 1000))?;
    within("transfers a round trip", 2.0 * transfers(&region), 2.0, 0.01)?;
    Ok(format!("{:.3} transfers", 2.0 * transfers(&region)))
}

/// Where each CPU waits by loads and passes on by a store, each load and each store moves the line.
///
/// # Errors
/// The figure.
pub fn handoff(runner: &Runner) -> Result<String> {
    let region = runner.region(&Boot::new("handoff", 2, 1000))?;
    within("transfers a round trip", 2.0 * transfers(&region), 4.0, 0.01)?;
    Ok(format!("{:.3} transfers", 2.0 * transfers(&region)))
}

/// A line that all only read stays where it is.
///
/// # Errors
/// The figure.
pub fn read_only(runner: &Runner) -> Result<String> {
    let region = runner.region(&Boot::new("read_only", 8, OPS))?;
    let moved = transfers(&region);
    ensure!(moved == 0.0, "{moved} transfers an operation");
    Ok("0 transfers".to_owned())
}

/// Two words of one line, each of another CPU: the line moves, and the report shows both words.
///
/// # Errors
/// What the report shows instead.
pub fn false_sharing(runner: &Runner) -> Result<String> {
    let region = runner.region(&Boot::new("false_sharing", 2, OPS))?;
    let moved = transfers(&region);
    ensure!(moved > 1.0, "only {moved} transfers an operation");
    let Some(line) = region.lines.first() else { anyhow::bail!("no line is reported") };
    ensure!(line.bytes == 0xffff, "bytes {:#x} instead of two words", line.bytes);
    let pairs: Vec<(u32, u32)> = line.pairs.iter().map(|&(a, b, _)| (a, b)).collect();
    ensure!(pairs.contains(&(0, 1)) && pairs.contains(&(1, 0)), "moved between {pairs:?}");
    Ok(format!("{moved:.2} transfers, bytes {:#x}", line.bytes))
}

/// CPU counts of the locks.
const LOCK_CPUS: [u32; 3] = [4, 8, 16];
/// Instructions from a holder of the MCS lock to the next: 30 in the critical section, and those that give it up and see
/// that.
const MCS_INSTRUCTIONS: u32 = 45;

/// Cycles from one holder of a lock to the next on [`LOCK_CPUS`].
fn handoff_costs(runner: &Runner, name: &'static str, set: &[String]) -> Result<[f64; 3]> {
    let cost = |cpus: u32| -> Result<f64> {
        let boot = Boot { set: set.to_vec(), ..Boot::new(name, cpus, 200) };
        Ok(mean(&runner.region(&boot)?) / f64::from(cpus))
    };
    Ok([cost(LOCK_CPUS[0])?, cost(LOCK_CPUS[1])?, cost(LOCK_CPUS[2])?])
}

/// The cost of handing a ticket lock on grows with those who wait; that of an MCS lock does not.
///
/// A hand-over of the MCS lock takes at least the store that releases the waiter, the waiter's load, both of which move its
/// line, and [`MCS_INSTRUCTIONS`]: 245 cycles. An operation moves six lines in all; the other four (the tail, the link to
/// who waits before, and that one's line, which comes back to it) are moved by those who come, while others hold the lock,
/// if enough wait. So with many CPUs the figure is the least one, and with fewer it is larger: 446 with two. That it falls
/// below 245 with many is the price of a large quantum: a waiter whose clock is behind may see the release some 20 cycles
/// early. With a quantum of 100 it is 245 at 16 CPUs.
///
/// # Errors
/// The figures.
pub fn locks(runner: &Runner) -> Result<String> {
    let least = 2.0 * f64::from(Profile::default().costs.transfer) + f64::from(MCS_INSTRUCTIONS);
    let ticket = handoff_costs(runner, "ticket_lock", &[])?;
    let mcs = handoff_costs(runner, "mcs_lock", &[])?;
    let exact = handoff_costs(runner, "mcs_lock", &["quantum:100".to_owned()])?;
    let text = format!(
        "ticket {ticket:.0?}, MCS {mcs:.0?}, MCS with a small quantum {exact:.0?} on {LOCK_CPUS:?} CPUs"
    );
    ensure!(ticket[1] > 1.3 * ticket[0] && ticket[2] > 1.3 * ticket[1], "ticket does not grow: {text}");
    ensure!(mcs[2] < 1.1 * mcs[0] && mcs[1] < 1.1 * mcs[0], "MCS grows: {text}");
    ensure!(mcs.iter().all(|&cost| cost > 0.8 * least), "MCS costs less than it can: {text}");
    let near = |&cost: &f64| (0.95 * least..1.15 * least).contains(&cost);
    ensure!(exact.iter().all(near), "MCS is not near {least}: {text}");
    Ok(text)
}

/// Within its tenure a CPU that loaded a word gets to its compare-exchange, though a jump lies between: two transfers an
/// operation, one for the load and one for the store. Without tenure others take the line in between, and it tries again.
///
/// # Errors
/// The transfers with and without tenure.
pub fn tenure(runner: &Runner) -> Result<String> {
    let boot = |set: &str| Boot { set: vec![set.to_owned()], ..Boot::new("compare_apart", 8, OPS) };
    let usual = runner.region(&boot(&format!("tenure:{}", Profile::default().order.tenure)))?;
    let none = runner.region(&boot("tenure:0"))?;
    let text = format!(
        "{:.2} transfers and {:.0} cycles, {:.2} and {:.0} without",
        transfers(&usual),
        mean(&usual),
        transfers(&none),
        mean(&none)
    );
    within("transfers an operation", transfers(&usual), 2.0, 0.05)?;
    ensure!(transfers(&none) > 1.2 * transfers(&usual), "tenure changes little: {text}");
    ensure!(mean(&none) > 1.2 * mean(&usual), "tenure changes little: {text}");
    Ok(text)
}

/// CPUs that are halted change nobody's figure by more than 1 %.
///
/// # Errors
/// Both figures.
pub fn halted(runner: &Runner) -> Result<String> {
    for name in ["private_counter", "shared_counter"] {
        let alone = runner.region(&Boot::new(name, 4, OPS))?;
        let beside = runner.region(&Boot { workers: 4, ..Boot::new(name, 12, OPS) })?;
        within(name, median(&beside), median(&alone), 0.01)?;
        within(name, insns(&beside), insns(&alone), 0.01)?;
    }
    Ok("8 halted beside 4 at work".to_owned())
}

fn insns(region: &Region) -> f64 {
    (region.total.insns_user + region.total.insns_kernel) as f64
}

/// The same point measured five times, while another process keeps a CPU of the host busy.
///
/// # Errors
/// The smallest and the largest figure.
pub fn repeatable(runner: &Runner) -> Result<String> {
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while busy.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let result = agree(runner, "shared_counter").and_then(|a| Ok((a, agree(runner, "private_counter")?)));
        busy.store(false, Ordering::Relaxed);
        let (shared, private) = result?;
        Ok(format!("spread of medians: shared {shared:.2} %, private {private:.2} %"))
    })
}

/// Spread of five medians in percent, after checking medians and instructions.
fn agree(runner: &Runner, name: &'static str) -> Result<f64> {
    let boot = Boot::new(name, 8, OPS);
    let regions = (0..5).map(|_| runner.region(&boot)).collect::<Result<Vec<_>>>()?;
    let spread = |value: fn(&Region) -> f64| {
        let values: Vec<f64> = regions.iter().map(value).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        100.0 * (high / low - 1.0)
    };
    let (cycles, instructions) = (spread(median), spread(insns));
    ensure!(cycles <= 5.0, "{name}: medians differ by {cycles:.2} %");
    ensure!(instructions <= 2.0, "{name}: instructions differ by {instructions:.2} %");
    Ok(cycles)
}

//! The gate: compares a run with a baseline by the registry of metrics ([`metrics`]).
pub mod metrics;

/// Where the baseline is, in the repository: records, with their explanations beside them.
pub const BASELINE: &str = "results/baseline.jsonl";

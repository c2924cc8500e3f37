//! `bench --record`: appends a summary of a run to the history.
use anyhow::Result;
use lab::gate::metrics::Registry;
use lab::history::{self, FILE, Revisions};
use lab::record::Record;

use crate::build::root;

/// Appends the summary of `records` to the repository's history.
pub fn append(records: &[Record]) -> Result<()> {
    let registry = Registry::load(root())?;
    let entries = history::summarise(records, &registry, &Revisions::of(root()));
    history::append(&root().join(FILE), &entries)?;
    println!("{} summaries appended to {FILE}: commit it", entries.len());
    Ok(())
}

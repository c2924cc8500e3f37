//! A partial run that is taken up again: its records are kept, and what is missing is measured as a part of it.
use std::path::{Path, PathBuf};

use anyhow::Result;
use lab::exit::bad_input;
use lab::record::{self, Record};
use lab::why::{self, Why};

use super::Target;

/// What a partial run brought.
pub struct Resumed {
    /// Its records, to which more are written.
    pub path: PathBuf,
    /// What is in it.
    pub records: Vec<Record>,
    /// Explanations of its points.
    pub whys: Vec<Why>,
}

impl Resumed {
    /// Reads the records in `path`.
    pub fn load(path: &Path) -> Result<Resumed> {
        let records = record::read(path)
            .map_err(|error| bad_input(format!("--resume: {error:#}; give the records of a partial run")))?;
        if records.is_empty() {
            let path = path.display();
            return Err(bad_input(format!("--resume {path}: there is no record; leave the option out")));
        }
        Ok(Resumed { path: path.to_owned(), whys: why::read(path), records })
    }

    /// Makes what `targets` will bring a part of this run. Only the same source under the same compiler can be.
    pub(super) fn join(&self, targets: &mut [Target]) -> Result<()> {
        let first = &self.records[0];
        for target in targets.iter_mut() {
            target.context.run.clone_from(&first.run);
            let (system, now) = (target.system.name(), &target.context);
            let Some(then) = self.records.iter().find(|record| record.system == system) else { continue };
            let version = Some(target.system.version());
            let same = [
                ("commit", &then.git, &now.git),
                ("compiler", &then.rustc, &now.rustc),
                ("QEMU", &then.qemu, &now.qemu),
            ];
            for (what, then, now) in same {
                if then != now {
                    return Err(differs(what, then.as_deref(), now.as_deref()));
                }
            }
            if !self.records.iter().any(|record| record.system == system && record.system_version == version)
            {
                return Err(differs(system, then.system_version.as_deref(), version.as_deref()));
            }
        }
        Ok(())
    }
}

fn differs(what: &str, then: Option<&str>, now: Option<&str>) -> anyhow::Error {
    let (then, now) = (then.unwrap_or("unknown"), now.unwrap_or("unknown"));
    bad_input(format!("--resume: the run began with {what} {then}, here is {now}; begin a new run"))
}

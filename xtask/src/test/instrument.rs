//! Cases of the measuring instrument: its truth tests, which boot a guest whose costs are known.
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use lab::truth::{self, Runner};

use super::cases::Case;
use super::guest::Lab;
use super::summary::Report;
use crate::bench::programs;
use crate::build;
use crate::toolchain::Toolchain;

/// Builds what the truth tests need when the first of them runs.
pub struct Tools {
    toolchain: Toolchain,
    runner: OnceLock<Result<Runner, String>>,
}

impl Tools {
    fn runner(&self, lab: &Lab) -> Result<&Runner, String> {
        let built = self.runner.get_or_init(|| {
            let build = || {
                let (plugin, guest) = (programs::plugin()?, build::truth(&self.toolchain)?);
                anyhow::Ok(Runner { plugin, guest, folder: lab.folder().clone() })
            };
            build().map_err(|error| format!("{error:#}"))
        });
        built.as_ref().map_err(Clone::clone)
    }
}

/// All cases.
pub fn cases(toolchain: &Toolchain) -> Vec<Case> {
    let tools = Arc::new(Tools { toolchain: toolchain.clone(), runner: OnceLock::new() });
    truth::CASES.iter().map(|&case| Case::truth(case, Arc::clone(&tools))).collect()
}

/// Runs the case `name`.
pub fn run(name: &str, case: truth::Case, tools: &Tools, lab: &Lab) -> Report {
    let start = Instant::now();
    let result = tools.runner(lab).map_err(anyhow::Error::msg).and_then(case.check);
    let (passed, note, why) = match result {
        Ok(note) => (1, Some(note), Vec::new()),
        Err(error) => (0, None, vec![format!("{error:#}")]),
    };
    Report { name: name.to_owned(), passed, failed: 1 - passed, elapsed: start.elapsed(), note, why }
}

//! Where records come from, and whether they say something of the tree that is here.
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use lab::record::Record;

/// What the figures depend on: what is measured and what measures.
const MEASURED: [&str; 6] = ["kernel", "smp", "servers", "bench", "Cargo.lock", "xtask/src/programs.rs"];
/// How many digits of a commit are told.
const DIGITS: usize = 10;

/// The run and the commit of `records`, for people.
pub fn told(records: &[Record]) -> String {
    let all = |what: fn(&Record) -> String| {
        let values: BTreeSet<String> = records.iter().map(what).collect();
        values.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let run = all(|record| record.run.clone());
    format!("run {run}, {}", all(|record| commit(record.git.as_deref(), record.dirty)))
}

fn commit(git: Option<&str>, dirty: Option<bool>) -> String {
    let Some(git) = git else { return "an unknown commit".to_owned() };
    let git: String = git.chars().take(DIGITS).collect();
    match dirty {
        Some(true) => format!("commit {git} with changes that no commit has"),
        _ => format!("commit {git}"),
    }
}

/// Why `records` may say nothing of the tree in `root`; none if it measures the same source.
pub fn doubt(records: &[Record], root: &Path) -> Option<String> {
    let states: BTreeSet<(Option<&str>, Option<bool>)> =
        records.iter().map(|record| (record.git.as_deref(), record.dirty)).collect();
    let of = |(git, dirty): (Option<&str>, Option<bool>)| {
        let source = git.map_or(Source::Unknown, |git| Source::since(git, root));
        judge(&commit(git, dirty), dirty, source)
    };
    states.into_iter().find_map(of)
}

/// How the measured source of a tree differs from a commit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Same,
    Changed,
    /// Git does not know the commit.
    Unknown,
}

impl Source {
    /// What changed from the commit `git` to the work tree in `root`.
    fn since(git: &str, root: &Path) -> Source {
        let ask = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(root).args(arguments).arg("--").args(MEASURED);
            command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
        };
        let code = ask(&["diff", "--quiet", git]).and_then(|output| output.status.code());
        // Files that git does not know yet are no difference to it.
        let new = || {
            ask(&["ls-files", "--others", "--exclude-standard"])
                .is_none_or(|output| !output.stdout.is_empty())
        };
        match code {
            Some(0) if !new() => Source::Same,
            Some(0 | 1) => Source::Changed,
            _ => Source::Unknown,
        }
    }
}

fn judge(commit: &str, dirty: Option<bool>, source: Source) -> Option<String> {
    match (source, dirty) {
        (Source::Same, Some(false)) => None,
        (Source::Same, _) => Some(format!("is of {commit}, which may not be what is here")),
        (Source::Changed, _) => Some(format!("is of {commit}, and what is measured has changed since")),
        (Source::Unknown, _) => Some(format!("is of {commit}, which this repository does not know")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(folder).args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn only_a_change_of_what_is_measured_makes_a_run_another_trees() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), text).unwrap();
        };
        git(root, &["init", "-q"]);
        write("kernel/a.rs", "1");
        write("docs/a.md", "1");
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "one"]);
        let first = git(root, &["rev-parse", "HEAD"]);
        assert_eq!(Source::since(&first, root), Source::Same);
        write("docs/a.md", "2");
        git(root, &["commit", "-qam", "two"]);
        assert_eq!(Source::since(&first, root), Source::Same, "documents are not measured");
        write("kernel/b.rs", "new");
        assert_eq!(Source::since(&first, root), Source::Changed, "not even known to git");
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "three"]);
        assert_eq!(Source::since(&first, root), Source::Changed);
        assert_eq!(Source::since("0123456789012345678901234567890123456789", root), Source::Unknown);
    }

    #[test]
    fn a_run_of_this_source_is_beyond_doubt_and_no_other() {
        assert_eq!(judge("c", Some(false), Source::Same), None);
        for (dirty, source) in [
            (Some(true), Source::Same),
            (None, Source::Same),
            (Some(false), Source::Changed),
            (Some(false), Source::Unknown),
        ] {
            assert!(judge("c", dirty, source).is_some(), "{dirty:?} {source:?}");
        }
        assert_eq!(
            commit(Some("0123456789abcdef"), Some(true)),
            "commit 0123456789 with changes that no commit has"
        );
        assert_eq!(commit(None, None), "an unknown commit");
    }
}

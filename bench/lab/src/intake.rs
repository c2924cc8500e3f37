//! Records that somebody gives: whatever is good in a file is kept, and each line that is not is named with its
//! number, so that a run that was cut off is not lost and nothing is left out in silence.
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::exit::bad_input;
use crate::record::{Record, SCHEMA};

/// A line that is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The file.
    pub file: PathBuf,
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}: {}", self.file.display(), self.line, self.why)
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Intake {
    /// The good records, in order.
    pub records: Vec<Record>,
    /// The others.
    pub bad: Vec<BadLine>,
}

/// Reads the records in `path`.
///
/// # Errors
/// Bad input: there is no such file, or no record in it.
pub fn read(path: &Path) -> Result<Intake> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        bad_input(format!("{name}: {error}; give a file of records (cargo xtask bench writes them)"))
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut intake = Intake::default();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match one(line) {
            Ok(record) => intake.records.push(record),
            Err(why) => intake.bad.push(BadLine { file: path.to_owned(), line: index + 1, why }),
        }
    }
    if intake.records.is_empty() {
        let why = intake
            .bad
            .first()
            .map_or_else(|| "it is empty".to_owned(), |bad| format!("line {}: {}", bad.line, bad.why));
        return Err(bad_input(format!(
            "{name}: no record in it ({why}); give a file that cargo xtask bench wrote"
        )));
    }
    Ok(intake)
}

fn one(line: &str) -> Result<Record, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| {
        if error.is_eof() { "cut off in the middle".to_owned() } else { format!("no JSON: {error}") }
    })?;
    match value.get("schema").and_then(Value::as_u64) {
        Some(schema) if schema == u64::from(SCHEMA) => {}
        Some(other) => return Err(format!("schema {other}; this program reads schema {SCHEMA}")),
        None => return Err("no record: it has no schema".to_owned()),
    }
    serde_json::from_value(value).map_err(|error| format!("no record: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};
    use crate::record::tests::sample;

    fn file(lines: &[String]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        (folder, path)
    }

    #[test]
    fn the_good_are_kept_and_the_bad_are_named_with_their_lines() {
        let good = serde_json::to_string(&sample("fstat", 2, 0, 100.0)).unwrap();
        let lines = [
            good.clone(),
            good[..good.len() / 2].to_owned(),
            String::new(),
            good.replacen("\"schema\":1", "\"schema\":2", 1),
            good.replacen("\"cpus\":2", "\"cpus\":\"two\"", 1),
            "{}".to_owned(),
            "cycles: many".to_owned(),
            good.clone(),
        ];
        let (_folder, path) = file(&lines);
        let intake = read(&path).unwrap();
        assert_eq!(intake.records.len(), 2);
        let bad: Vec<(usize, &str)> = intake.bad.iter().map(|bad| (bad.line, bad.why.as_str())).collect();
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5, 6, 7]);
        for ((_, why), word) in bad.iter().zip(["cut off", "schema 2", "cpus", "no schema", "no JSON"]) {
            // A wrong type is told without the field's name by some parsers: the value at least is in it.
            assert!(why.contains(word) || why.contains("two"), "{why}");
        }
        assert!(intake.bad[1].to_string().ends_with("r.jsonl line 4: schema 2; this program reads schema 1"));
    }

    #[test]
    fn a_file_without_a_record_is_bad_input() {
        let (_folder, path) = file(&["{\"schema\":2}".to_owned()]);
        for (path, words) in [(path.as_path(), "schema 2"), (Path::new("/nonexistent"), "give a file")] {
            let error = read(path).unwrap_err();
            assert_eq!(code_of(&error), Exit::BadInput);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

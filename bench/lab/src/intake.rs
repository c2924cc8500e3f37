//! Records that somebody gives: whatever is good in a file is kept, and each line that is not is named with its
//! number, so that a run that was cut off is not lost and nothing is left out in silence.
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::de::DeserializeOwned;
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
    let (records, bad) = lines(path, &bytes, |text| with_schema(text, "record"));
    let intake = Intake { records, bad };
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

/// What `read` makes of each line of `bytes`, which are those of the file `path`, in order; and the lines of which it
/// makes nothing. Empty lines are neither.
pub(crate) fn lines<T>(
    path: &Path,
    bytes: &[u8],
    read: impl Fn(&str) -> Result<T, String>,
) -> (Vec<T>, Vec<BadLine>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_| "no text: it is not UTF-8".to_owned());
        match text.and_then(&read) {
            Ok(one) => good.push(one),
            Err(why) => bad.push(BadLine { file: path.to_owned(), line: index + 1, why }),
        }
    }
    (good, bad)
}

/// The JSON value in `line`.
pub(crate) fn json(line: &str) -> Result<Value, String> {
    serde_json::from_str(line).map_err(|error| {
        if error.is_eof() { "cut off in the middle".to_owned() } else { format!("no JSON: {error}") }
    })
}

/// The `what` in `line`, if it is of the schema that this program reads.
pub(crate) fn with_schema<T: DeserializeOwned>(line: &str, what: &str) -> Result<T, String> {
    let value = json(line)?;
    match value.get("schema").and_then(Value::as_u64) {
        Some(schema) if schema == u64::from(SCHEMA) => {}
        Some(other) => return Err(format!("schema {other}; this program reads schema {SCHEMA}")),
        None => return Err(format!("no {what}: it has no schema")),
    }
    serde_json::from_value(value).map_err(|error| format!("no {what}: {error}"))
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
    fn a_line_that_is_no_text_is_named_and_never_read_as_another() {
        let good = serde_json::to_string(&sample("fstat", 2, 0, 100.0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        // A byte that is no text, inside a name, would make another name if it were replaced.
        let spoilt: Vec<u8> =
            good.replacen("fstat", "fst?t", 1).bytes().map(|b| if b == b'?' { 0xff } else { b }).collect();
        std::fs::write(&path, [good.as_bytes(), b"\r\n", &spoilt, b"\n\n", good.as_bytes()].concat())
            .unwrap();
        let intake = read(&path).unwrap();
        assert_eq!(intake.records.len(), 2);
        assert_eq!((intake.bad.len(), intake.bad[0].line), (1, 2));
        assert!(intake.bad[0].why.contains("UTF-8"), "{}", intake.bad[0]);
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

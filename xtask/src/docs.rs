//! Tests that the documentation says what is: links lead somewhere, files that it names exist, what it says to be in a
//! file is there, and commands are understood.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::build::root;
use crate::cli;

/// A page: its path from the root, and its text.
type Page = (PathBuf, String);

/// Every page of the documentation.
fn pages() -> Vec<Page> {
    let listed = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let paths = listed.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let pages: Vec<Page> = [root().join("README.md")]
        .into_iter()
        .chain(paths)
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root()).unwrap().to_owned(), text)
        })
        .collect();
    assert!(pages.len() > 5, "the documentation is not where it was");
    pages
}

/// What stands between `open` and the next `close`, with what follows it, each time.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close))
}

/// The targets of a page's links that are files of the repository, with the text behind each.
fn links((path, text): &Page) -> impl Iterator<Item = (PathBuf, &str, &str)> {
    let folder = root().join(path.parent().unwrap_or(Path::new("")));
    between(text, "](", ")").filter(|(target, _)| !target.starts_with("http")).map(move |(target, behind)| {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() { root().join(path) } else { folder.join(file) };
        (file, anchor, behind)
    })
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The lines of code blocks, and all other lines with what stands in backticks in them.
fn code(text: &str) -> (Vec<&str>, Vec<&str>) {
    let parts: Vec<&str> = text.split("```").collect();
    let blocks = parts.iter().skip(1).step_by(2).flat_map(|block| block.lines().skip(1)).collect();
    let inline = parts.iter().step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect();
    (blocks, inline)
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in &pages() {
        for (file, wanted, _) in links(page) {
            count += 1;
            let there = file.exists();
            let headings = || fs::read_to_string(&file).unwrap_or_default();
            if !there
                || !(wanted.is_empty()
                    || headings().lines().any(|line| line.starts_with('#') && anchor(line) == wanted))
            {
                broken.push(format!("{}: {}#{wanted}", page.0.display(), file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(count > 30, "only {count} links were found");
}

#[test]
fn what_is_named_behind_a_link_to_a_source_file_is_in_it() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in &pages() {
        for (file, _, behind) in links(page) {
            let source = file.extension().is_some_and(|ending| ending == "rs" || ending == "s");
            let Some(name) = behind.trim_start().strip_prefix('`').and_then(|rest| rest.split('`').next())
            else {
                continue;
            };
            if source {
                count += 1;
                if !fs::read_to_string(&file).unwrap_or_default().contains(name) {
                    wrong.push(format!("{}: {name} is not in {}", page.0.display(), file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 5, "only {count} names were found");
}

#[test]
fn files_that_are_named_exist() {
    const ENDINGS: [&str; 7] = [".rs", ".toml", ".md", ".s", ".json", ".svg", ".sh"];
    let folders: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let mut missing = Vec::new();
    for (path, text) in &pages() {
        for name in code(text).1 {
            let (folder, _) = name.split_once('/').unwrap_or_default();
            let file =
                ENDINGS.iter().any(|ending| name.ends_with(ending)) && !name.contains(char::is_whitespace);
            // What a person names themselves is in capitals; what is made by commands is in target/ or named by a run.
            let made = folder == "target" || name.contains("NAME") || name.contains("RUN");
            if file && folders.contains(folder) && !made && !root().join(name).exists() {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn commands_are_understood() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (path, text) in &pages() {
        let (blocks, inline) = code(text);
        for line in blocks.into_iter().chain(inline) {
            // A comment behind the command, or a note that more of it follows.
            let line = line.split("  #").next().unwrap_or_default().trim();
            let Some(rest) = line.strip_prefix("cargo xtask ") else { continue };
            count += 1;
            if let Err(error) = cli::understands(&words(rest)) {
                wrong.push(format!("{}: {line}: {error}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 30, "only {count} commands were found");
}

/// The words of a command line; quotation marks keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn what_is_wrong_would_be_found() {
    assert_eq!(anchor("## The lab, day by day"), "the-lab-day-by-day");
    assert!(cli::understands(&words("gate --no-such-option")).is_err());
    assert_eq!(words("run --cmdline \"a b\" -- c"), ["run", "--cmdline", "a b", "--", "c"]);
    let page = (PathBuf::from("docs/x.md"), "[a](../nowhere.rs) `f`".to_owned());
    assert!(links(&page).all(|(file, _, behind)| !file.exists() && behind == " `f`"));
    assert_eq!(code("a `b` c\n```sh\nd\n```\n`e`"), (vec!["d"], vec!["b", "e"]));
}

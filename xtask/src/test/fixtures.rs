//! Files that tests make: boot archives with something wrong in them.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::guest::Lab;
use crate::archive;
use crate::programs::PROGRAMS;

/// Where a cut archive ends: within the first program.
const CUT_ARCHIVE: usize = 700;
/// Name and path of each bad archive.
pub fn bad_archives(lab: &Lab) -> Result<Vec<(&'static str, PathBuf)>> {
    let good = fs::read(&lab.image.archive).context("reading the boot archive")?;
    let first = PROGRAMS.first().context("no program to spoil")?.bin;
    let entry = |bytes: &[u8]| archive::bytes(&[(format!("bin/{first}"), bytes.to_vec())]);
    let mut reader = tar::Archive::new(&*good);
    let mut program = Vec::new();
    for file in reader.entries()? {
        let mut file = file?;
        if file.path()?.ends_with(first) {
            std::io::copy(&mut file, &mut program)?;
        }
    }
    let cut = &program[..program.len() / 2];
    let table = [
        ("archive-empty", Vec::new()),
        ("archive-corrupt", b"this is no archive\n".repeat(100)),
        ("archive-cut", good[..CUT_ARCHIVE.min(good.len())].to_vec()),
        ("archive-other", archive::bytes(&[("bin/unknown".to_owned(), program.clone())])?),
        ("program-cut", entry(cut)?),
        ("program-script", entry(b"#!/bin/sh\n")?),
    ];
    let mut paths = Vec::new();
    for (name, bytes) in table {
        let path = lab.folder().join(format!("{name}.tar"));
        fs::write(&path, bytes)?;
        paths.push((name, path));
    }
    Ok(paths)
}

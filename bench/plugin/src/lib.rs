//! The machine model as a QEMU TCG plugin.
//!
//! `api` declares the part of QEMU's plugin interface that is used, `arguments` reads what stands after
//! the plugin's name, `callbacks` turns QEMU's events into the model's, `output` writes the report and the
//! progress file, `preload` lets QEMU's timers follow modelled time when the same file is preloaded. All
//! `unsafe` code of the instrument is here; what the events mean is in the crate `model`.
mod api;
mod arguments;
mod callbacks;
mod output;
mod pages;
mod preload;

use api::{Info, PluginId};
use std::ffi::{CStr, c_char, c_int};

/// The version of the plugin interface that this file is written for.
// SAFETY: no other object that QEMU loads defines this name; QEMU looks it up in each plugin by itself.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = api::VERSION;

/// QEMU's entry into the plugin: reads the arguments, builds the machine, registers the callbacks.
/// Returns 0, or -1 after one line on standard error, upon which QEMU ends.
///
/// # Safety
/// `info` points to QEMU's description of itself, and `argv` to `argc` C strings.
// SAFETY: as for `qemu_plugin_version`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's obligation: `info` is valid while this function runs.
    let info = unsafe { &*info };
    let count = usize::try_from(argc).unwrap_or(0);
    let texts = (0..count).map(|i| {
        // SAFETY: the caller's obligation: `argv` holds `argc` pointers to C strings.
        unsafe { CStr::from_ptr(*argv.add(i)) }.to_string_lossy().into_owned()
    });
    match install(id, info, texts.collect()) {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("error: machine model: {message}");
            -1
        }
    }
}

fn install(id: PluginId, info: &Info, texts: Vec<String>) -> Result<(), String> {
    if info.min_version > api::VERSION {
        return Err(format!(
            "this QEMU wants plugin interface {} or later, the plugin has {}",
            info.min_version,
            api::VERSION
        ));
    }
    if !info.system_emulation {
        return Err("needs a full system emulator, such as qemu-system-x86_64".into());
    }
    if info.target() != "x86_64" {
        return Err(format!("needs an x86_64 guest, not {}", info.target()));
    }
    let arguments = arguments::parse(&texts)?;
    let cpus = u32::try_from(info.max_vcpus).map_err(|_| "QEMU names no CPU count".to_string())?;
    api::load()?;
    callbacks::start(id, cpus, arguments.options)?;
    output::start(arguments.out, arguments.progress);
    Ok(())
}

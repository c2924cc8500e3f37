//! QEMU's plugin interface, version 1, as far as it is used here, declared from its documentation. The
//! functions are looked up in the running process, so that the file can also be preloaded into programs
//! that are not QEMU, and so that a missing one is an error message.
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// The version of the interface.
pub const VERSION: c_int = 1;
/// Callbacks that read and write no registers.
pub const NO_REGISTERS: c_int = 0;
/// Callbacks for reads and writes of memory.
pub const READ_WRITE: c_int = 3;

/// QEMU's name of this plugin.
pub type PluginId = u64;
/// What QEMU tells of an access: opaque.
pub type MemInfo = u32;

/// QEMU's description of itself.
#[repr(C)]
pub struct Info {
    target_name: *const c_char,
    /// Lowest interface version that this QEMU takes.
    pub min_version: c_int,
    /// Its own interface version.
    pub current_version: c_int,
    /// A whole system is emulated.
    pub system_emulation: bool,
    /// CPUs at the start.
    pub smp_vcpus: c_int,
    /// CPUs that there can be.
    pub max_vcpus: c_int,
}

impl Info {
    /// The guest's architecture.
    pub fn target(&self) -> String {
        // SAFETY: QEMU fills the structure, whose name is a C string that lives as long as QEMU.
        unsafe { CStr::from_ptr(self.target_name) }.to_string_lossy().into_owned()
    }
}

/// A translated block during its translation.
pub enum Tb {}
/// One instruction of it.
pub enum Insn {}
/// Where an access went.
pub enum HwAddr {}

/// Callback of a vCPU event.
pub type VcpuCallback = extern "C" fn(PluginId, c_uint);
/// Callback of a translation.
pub type TranslationCallback = extern "C" fn(PluginId, *mut Tb);
/// Callback of an execution.
pub type ExecCallback = extern "C" fn(c_uint, *mut c_void);
/// Callback of an access.
pub type MemCallback = extern "C" fn(c_uint, MemInfo, u64, *mut c_void);
/// Callback of QEMU's end.
pub type ExitCallback = extern "C" fn(PluginId, *mut c_void);

/// Declares the functions' table and its loading by name.
macro_rules! functions {
    ($($name:ident: $symbol:literal, $type:ty;)*) => {
        /// The functions of the interface.
        pub struct Functions { $(pub $name: $type,)* }

        fn find_all() -> Result<Functions, String> {
            // SAFETY: each name is looked up in QEMU, whose function of that name has the type given here
            // in all versions that accept interface version 1.
            Ok(Functions { $($name: unsafe { std::mem::transmute::<*mut c_void, $type>(find($symbol)?) },)* })
        }
    };
}

functions! {
    on_vcpu_idle: c"qemu_plugin_register_vcpu_idle_cb", unsafe extern "C" fn(PluginId, VcpuCallback);
    on_vcpu_resume: c"qemu_plugin_register_vcpu_resume_cb", unsafe extern "C" fn(PluginId, VcpuCallback);
    on_translation: c"qemu_plugin_register_vcpu_tb_trans_cb",
        unsafe extern "C" fn(PluginId, TranslationCallback);
    on_exit: c"qemu_plugin_register_atexit_cb", unsafe extern "C" fn(PluginId, ExitCallback, *mut c_void);
    on_block: c"qemu_plugin_register_vcpu_tb_exec_cb",
        unsafe extern "C" fn(*mut Tb, ExecCallback, c_int, *mut c_void);
    on_insn: c"qemu_plugin_register_vcpu_insn_exec_cb",
        unsafe extern "C" fn(*mut Insn, ExecCallback, c_int, *mut c_void);
    on_memory: c"qemu_plugin_register_vcpu_mem_cb",
        unsafe extern "C" fn(*mut Insn, MemCallback, c_int, c_int, *mut c_void);
    block_length: c"qemu_plugin_tb_n_insns", unsafe extern "C" fn(*const Tb) -> usize;
    block_insn: c"qemu_plugin_tb_get_insn", unsafe extern "C" fn(*const Tb, usize) -> *mut Insn;
    insn_data: c"qemu_plugin_insn_data", unsafe extern "C" fn(*const Insn) -> *const u8;
    insn_size: c"qemu_plugin_insn_size", unsafe extern "C" fn(*const Insn) -> usize;
    insn_address: c"qemu_plugin_insn_vaddr", unsafe extern "C" fn(*const Insn) -> u64;
    access_shift: c"qemu_plugin_mem_size_shift", unsafe extern "C" fn(MemInfo) -> c_uint;
    access_is_store: c"qemu_plugin_mem_is_store", unsafe extern "C" fn(MemInfo) -> bool;
    hwaddr: c"qemu_plugin_get_hwaddr", unsafe extern "C" fn(MemInfo, u64) -> *mut HwAddr;
    hwaddr_is_io: c"qemu_plugin_hwaddr_is_io", unsafe extern "C" fn(*const HwAddr) -> bool;
    hwaddr_physical: c"qemu_plugin_hwaddr_phys_addr", unsafe extern "C" fn(*const HwAddr) -> u64;
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

fn find(name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: `name` is a C string; the default handle searches the whole process.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() {
        return Err(format!(
            "this QEMU has no function {}: it is built without plugins",
            name.to_string_lossy()
        ));
    }
    Ok(address)
}

/// Looks the functions up.
pub fn load() -> Result<(), String> {
    let functions = find_all()?;
    FUNCTIONS.get_or_init(|| functions);
    Ok(())
}

/// The functions, or `None` before [`load`].
#[inline]
pub fn get() -> Option<&'static Functions> {
    FUNCTIONS.get()
}

//! The machine model as a QEMU TCG plugin.

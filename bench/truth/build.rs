//! Links the bare-metal image by its own script; host builds (lints) need none.
fn main() {
    println!("cargo:rerun-if-changed=truth.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets the package's folder");
        println!("cargo:rustc-link-arg-bins=-T{folder}/truth.ld");
    }
}

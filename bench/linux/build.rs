//! Links `minimal` statically and without the C library: its entry point is all that it is.
fn main() {
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bin=minimal={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}

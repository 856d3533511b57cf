//! The programs of this crate show their `getrandom` to the dynamic linker: who looks the system's up by name must find theirs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=getrandom");
}

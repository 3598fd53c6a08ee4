//! Build script: puts the price table and, for the command, the built filter module where `include_bytes!` finds them.

#![expect(clippy::expect_used, reason = "a build script reports by failing")]

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));

    // The command carries the filter inside itself. `make build` builds the module first; a plain `cargo build`
    // without it still works, and the command then says what to run instead of starting.
    let module = root.join("target/wasm32-wasip1/wasm/tollgate.wasm");
    println!("cargo:rerun-if-changed={}", module.display());
    let bytes = fs::read(&module).unwrap_or_default();
    fs::write(out.join("tollgate.wasm"), bytes).expect("OUT_DIR is writable");
}

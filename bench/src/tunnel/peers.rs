//! The peers' programs: rathole is installed here when it is absent.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

const VERSION: &str = "0.5.0";

/// rathole's binary, of `target/peers`; built from the registry the first time, which takes minutes.
pub(super) fn rathole() -> anyhow::Result<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers"));
    let binary = root.join("bin/rathole");
    if binary.is_file() {
        return Ok(binary);
    }
    eprintln!("rathole {VERSION} is being built into {}", root.display());
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    // Without its lock file: a crate in there is refused by today's compiler. `tls` links the system's
    // OpenSSL, and wants its headers (libssl-dev).
    install.args(["install", "rathole", "--version", VERSION, "--no-default-features"]);
    install.args(["--features", "server,client,tls,noise", "--root"]).arg(root);
    let done =
        install.env("CARGO_TARGET_DIR", root.join("build")).status().context("cargo does not start")?;
    ensure!(done.success(), "cargo install rathole failed; it needs pkg-config and libssl-dev");
    Ok(binary)
}

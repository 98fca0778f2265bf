//! The reference page: every key of the file, as Markdown.

use std::fmt::Write;

use crate::explain::{blocks, default, header, takes, words};
use crate::fields::as_toml;
use crate::key::{Block, Key};
use crate::protocol;

/// The reference page of the config file, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# The config file\n\n\
         TOML. Unknown keys are refused; `tieline check` tells every problem at once.\n\
         Durations are written `\"1h30m\"` (d, h, m, s, ms), rates `\"10/s\"` (s, m, h), shares `\"20%\"`.\n\
         Relative paths start at the file's own folder.\n",
    );
    for block in blocks().into_iter().filter(|block| !block.path.is_empty()) {
        section(&mut page, block);
    }
    page
}

fn section(page: &mut String, block: &Block) {
    let _ = write!(page, "\n## `{}`\n\n{}\n", header(block), block.meaning);
    for key in block.keys {
        entry(page, key);
    }
}

fn entry(page: &mut String, key: &Key) {
    let _ = write!(page, "\n### `{}`\n\n{}\n\n", key.name, key.meaning);
    let _ = writeln!(page, "- Takes {}.", takes(&key.kind));
    for word in words(&key.kind) {
        let _ = writeln!(page, "  - `\"{}\"`: {}", word.word, word.meaning);
    }
    let _ = writeln!(page, "- Default: {}", default(key));
    if !key.protocols.is_empty() {
        let _ = writeln!(page, "- For protocol {}.", protocol::quoted(key.protocols));
    }
    let _ = writeln!(page, "- Example: `{} = {}`", key.name, as_toml(key.example));
}

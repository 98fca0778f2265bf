//! `tieline explain KEY`: what a key means, in plain text.

use std::fmt::Write;

use crate::fields::{as_toml, lacks};
use crate::key::{Absent, Block, Key, Kind, Later};
use crate::keys::FILE;
use crate::protocol;
use crate::suggest::{self, nearest};

/// A key that nothing describes. `Display` is one line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{key}\" is no key of the config file{}", suggest::tail(hint))]
pub struct UnknownKey {
    /// What was asked for.
    pub key: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

/// Explains the key or block `path`: `listener.*.bind`, `listener.web.bind`, `listener.bind` or
/// `[listener.NAME]`.
///
/// # Errors
/// [`UnknownKey`] if there is no such key, with the nearest one there is.
pub fn explain(path: &str) -> Result<String, UnknownKey> {
    let plain: String = path.trim().chars().filter(|c| !matches!(c, '[' | ']')).collect();
    let segments: Vec<_> = plain.split('.').collect();
    match find(&FILE, &segments) {
        Some(Found::Key(block, key)) => Ok(key_text(block, key)),
        Some(Found::Block(block)) => Ok(block_text(block)),
        Some(Found::Later(later)) => Ok(lacks(later) + "\n"),
        None => Err(UnknownKey { key: path.into(), hint: meant(&plain) }),
    }
}

/// Every block, outer before inner, in the order of the reference page.
pub(crate) fn blocks() -> Vec<&'static Block> {
    let mut blocks: Vec<&'static Block> = vec![&FILE];
    let mut next = 0;
    while next < blocks.len() {
        let inner: Vec<_> = blocks[next].keys.iter().filter_map(|key| key.kind.block()).collect();
        next += 1;
        blocks.splice(next..next, inner);
    }
    blocks
}

/// The path of `key` in `block`: `listener.*.bind`.
pub(crate) fn path_of(block: &Block, key: &Key) -> String {
    if block.path.is_empty() { key.name.into() } else { format!("{}.{}", block.path, key.name) }
}

enum Found {
    Key(&'static Block, &'static Key),
    Block(&'static Block),
    Later(&'static Later),
}

fn find(block: &'static Block, segments: &[&str]) -> Option<Found> {
    let (name, rest) = segments.split_first()?;
    let Some(key) = block.key(name) else {
        return block.later.iter().find(|later| later.name == *name).map(Found::Later);
    };
    match (key.kind, key.kind.block(), rest) {
        // A list or an alternative is worth its own text; a plain table is its keys.
        (Kind::Table(block) | Kind::Named(block), _, []) => Some(Found::Block(block)),
        (_, _, []) => Some(Found::Key(block, key)),
        // The user's own name, a star or NAME may stand before the keys, or be left out.
        (Kind::Named(inner), _, [own]) => find(inner, rest).or_else(|| named(inner, own)),
        (Kind::Named(inner), _, [_, below @ ..]) => find(inner, rest).or_else(|| find(inner, below)),
        (_, Some(inner), _) => find(inner, rest),
        _ => None,
    }
}

/// `block` under the user's own name for it, unless that is rather a key of it mistyped, or left without its
/// table.
fn named(block: &'static Block, own: &str) -> Option<Found> {
    if matches!(own, "*" | "NAME") {
        return Some(Found::Block(block));
    }
    let within = |inner: &&'static Block| inner.path.starts_with(block.path);
    let keys = blocks().into_iter().filter(within).flat_map(|inner| inner.keys).map(|key| key.name);
    nearest(own, keys).is_none().then_some(Found::Block(block))
}

/// The key that a mistyped path, or a bare name, probably means.
fn meant(path: &str) -> Option<String> {
    let known: Vec<_> =
        blocks().into_iter().flat_map(|block| block.keys.iter().map(|key| path_of(block, key))).collect();
    let last = path.rsplit('.').next().unwrap_or(path);
    let same_name = known.iter().filter(|known| known.rsplit('.').next() == Some(last));
    let same_name: Vec<_> = same_name.map(|known| format!("\"{known}\"")).collect();
    if !same_name.is_empty() && !path.is_empty() {
        return Some(format!("did you mean {}?", same_name.join(" or ")));
    }
    let plain = |known: &String| known.replace(".*", "");
    let near = nearest(path, known.iter().map(String::as_str)).map(str::to_string).or_else(|| {
        let plains: Vec<_> = known.iter().map(plain).collect();
        nearest(path, plains.iter().map(String::as_str)).map(str::to_string)
    });
    near.map(|near| format!("did you mean \"{near}\"?"))
}

fn key_text(block: &'static Block, key: &'static Key) -> String {
    let mut text = format!("{}\n  {}\n\n", path_of(block, key), key.meaning);
    let _ = writeln!(text, "  Takes:    {}", takes(&key.kind));
    let _ = writeln!(text, "  Default:  {}", default(key));
    if !key.protocols.is_empty() {
        let _ = writeln!(text, "  Protocol: {}", protocol::quoted(key.protocols));
    }
    for word in words(&key.kind) {
        let _ = writeln!(text, "    {:<16}{}", format!("\"{}\"", word.word), word.meaning);
    }
    let _ =
        writeln!(text, "\n  Example:\n    {}\n    {} = {}", header(block), key.name, as_toml(key.example));
    text
}

fn block_text(block: &'static Block) -> String {
    let mut text = format!("{}\n  {}\n\n", header(block), block.meaning);
    let width = block.keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
    for key in block.keys {
        let _ = writeln!(text, "  {:width$}  {}", key.name, key.meaning);
    }
    text + &format!("\n  More: tieline explain {}.{}\n", block.path, block.keys[0].name)
}

/// The line of the file that begins `block`: `[listener.NAME.limits]`.
pub(crate) fn header(block: &Block) -> String {
    let path = block.path.replace('*', "NAME");
    if is_repeated(block) { format!("[[{path}]]") } else { format!("[{path}]") }
}

/// Whether `block` stands in the file once for each item of an array.
fn is_repeated(block: &Block) -> bool {
    let within =
        |kind: &Kind| matches!(kind, Kind::List(_)) && kind.block().is_some_and(|it| it.path == block.path);
    blocks().iter().flat_map(|block| block.keys).any(|key| within(&key.kind))
}

/// What a key takes, for people: its kind, its unit and its range.
pub(crate) fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Duration { least } if least.is_zero() => "a duration: ms, s, m, h, d, like \"1h30m\"".into(),
        Kind::Duration { least } => {
            let least = tieline_base::format_duration(*least);
            format!("a duration of at least {least}: ms, s, m, h, d, like \"1h30m\"")
        }
        Kind::Size { least, most } if least.0 == 0 && most.0 == u64::MAX => {
            "a size: B, KiB, MiB, GiB, TiB, like \"64KiB\"".into()
        }
        Kind::Size { least, most } => {
            format!("a size from {least} to {most}: B, KiB, MiB, GiB, TiB, like \"64KiB\"")
        }
        Kind::Conditions(_) => format!("{}; \"*\" for any value", kind.expected()),
        Kind::Rate => "a rate: per s, m or h, like \"10/s\"".into(),
        Kind::ByteRate => "a rate of bytes: B, KiB, MiB or GiB per s, like \"10MiB/s\"".into(),
        Kind::Protocol => protocol::quoted(protocol::SERVED),
        Kind::Either(kinds) => kinds.iter().map(takes).collect::<Vec<_>>().join(", or "),
        Kind::List(item) => format!("an array, each item {}", takes(item)),
        Kind::OneOrMore(item) => format!("{}; or an array of such", takes(item)),
        kind => kind.expected(),
    }
}

/// What holds where `key` is left out, for people.
pub(crate) fn default(key: &Key) -> String {
    match key.absent {
        Absent::Refused => "none; it must be written".into(),
        Absent::Is(value) => as_toml(value),
        Absent::Means(sentence) => format!("left out: {sentence}"),
    }
}

/// The words that `kind` takes, if it takes words.
pub(crate) fn words(kind: &Kind) -> Vec<crate::words::Word> {
    match kind {
        Kind::Words(words) => words.to_vec(),
        Kind::Either(kinds) => kinds.iter().flat_map(words).collect(),
        _ => Vec::new(),
    }
}

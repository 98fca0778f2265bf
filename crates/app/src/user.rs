//! `tieline user password NAME`: what is kept of a password, made where it is typed.

use std::fs::OpenOptions;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tieline_config::Config;
use tieline_wire::postgres::scram::ITERATIONS;

use crate::logging::{print, say};
use crate::passwords;

/// What can be done about users.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// The verifier of a password, which is typed or comes by the standard input, as a block of the config
    Password(PasswordArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PasswordArgs {
    /// The name that the user logs in by
    name: String,
    /// How often the password is hashed; each login costs the client as much
    #[arg(long, value_name = "COUNT", default_value_t = ITERATIONS,
        value_parser = clap::value_parser!(u32).range(4096..=10_000_000))]
    iterations: u32,
    /// Append the block to the config file instead of printing it
    #[arg(long)]
    write: bool,
    /// The config file that `--write` appends to
    #[arg(short, long, value_name = "FILE", default_value = "tieline.toml")]
    config: PathBuf,
}

/// The longest password that is read: more than any client sends.
const PASSWORD_MAX: u64 = 1_024;

/// Does `verb`.
///
/// # Errors
/// Why it did not work, and what to do, in one line.
pub(crate) fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    let Verb::Password(args) = verb;
    let password = ask(&args.name)?;
    let iterations = NonZeroU32::new(args.iterations).unwrap_or(NonZeroU32::MIN);
    let block = block(&args.name, &passwords::verifier(password.as_bytes(), iterations).to_text())?;
    if args.write {
        append(&args, &block)?;
        say(&format!("{}: [user.{}] added; `tieline reload` applies it", args.config.display(), args.name));
    } else {
        print(&block);
    }
    Ok(ExitCode::SUCCESS)
}

/// The block that makes `name` a user, held against what the config takes.
fn block(name: &str, verifier: &str) -> anyhow::Result<String> {
    // Quoted where it needs to be; a name that needs more than that is none.
    let key = if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() };
    let block = format!("[user.{key}]\nverifier = \"{verifier}\"\n");
    let read = Config::parse("", &block);
    let is_user = read.is_ok_and(|checked| checked.config.live.users.iter().any(|user| user.name == name));
    if !is_user {
        bail!(
            "\"{}\" is no name; a name has 1 to 64 letters, digits, dots, hyphens and underscores",
            name.escape_debug()
        );
    }
    Ok(block)
}

fn append(args: &PasswordArgs, block: &str) -> anyhow::Result<()> {
    let file = args.config.display();
    let checked = Config::load(&args.config);
    let checked =
        checked.map_err(|problems| anyhow::anyhow!("{file} has errors already: {}", problems[0]))?;
    if let Some(user) = checked.config.live.users.iter().find(|user| user.name == args.name) {
        let verifier = block.lines().nth(1).unwrap_or_default();
        bail!(
            "{file}:{}: user \"{}\" is there already; put this in its place: {verifier}",
            user.place.line,
            user.name
        );
    }
    let mut opened = OpenOptions::new().append(true).open(&args.config).with_context(|| file.to_string())?;
    opened.write_all(format!("\n{block}").as_bytes()).with_context(|| file.to_string())
}

/// The password: typed twice at a terminal, else the first line of the standard input. Never an argument,
/// which every process of the machine may see.
fn ask(name: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let mut line = String::new();
        stdin.lock().take(PASSWORD_MAX).read_line(&mut line).context("the standard input")?;
        return usable(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let password = typed(&format!("Password of {}: ", name.escape_debug()))?;
    if typed("The same again: ")? != password {
        bail!("the two differ; nothing was written");
    }
    usable(password)
}

fn usable(password: String) -> anyhow::Result<String> {
    if password.is_empty() {
        bail!("the password is empty; type one, or send it by the standard input");
    }
    Ok(password)
}

/// A line typed at the terminal, of which nothing is shown.
fn typed(prompt: &str) -> anyhow::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").context("the terminal")?;
    terminal.write_all(prompt.as_bytes())?;
    let _quiet = Quiet::begin()?;
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        terminal.read_exact(&mut byte)?;
        match byte[0] {
            b'\r' | b'\n' => break,
            // Ctrl-C and Ctrl-D.
            3 | 4 => {
                terminal.write_all(b"\n")?;
                bail!("given up; nothing was written");
            }
            // Backspace takes a character, which may have several bytes.
            8 | 127 => while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            // Ctrl-U takes all.
            21 => line.clear(),
            byte if line.len() < PASSWORD_MAX as usize => line.push(byte),
            _ => {}
        }
    }
    terminal.write_all(b"\n")?;
    String::from_utf8(line).context("the password is not UTF-8")
}

/// While it lives the terminal shows nothing of what is typed, and interrupts come as bytes: nobody is left
/// with a terminal that stays so.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("the terminal")?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).context("the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Should it fail there is no terminal any more.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::block;

    const VERIFIER: &str = "md50123456789abcdef0123456789abcdef";

    #[test]
    fn a_name_becomes_a_block_or_is_refused() {
        assert_eq!(block("ana", VERIFIER).unwrap(), format!("[user.ana]\nverifier = \"{VERIFIER}\"\n"));
        assert!(block("ana.b", VERIFIER).unwrap().starts_with("[user.\"ana.b\"]\n"));
        for name in ["", "a b", "a]\nx = 1\n[user.b", "ä", "\""] {
            assert!(block(name, VERIFIER).is_err(), "{name:?}");
        }
    }
}

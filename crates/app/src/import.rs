//! `tieline import`: an equivalent config of what other tools are told, and what has no equivalent.

mod counts;
#[cfg(test)]
mod coverage;
mod globals;
mod ini;
mod lookup;
mod notes;
mod pgbouncer;
mod secrets;
mod shares;
mod tls;
mod write;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::logging::{print, say};

/// Whose files are read.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// A config that does what this pgbouncer.ini says; what has no equivalent is told line by line
    Pgbouncer(PgbouncerArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PgbouncerArgs {
    /// The pgbouncer.ini
    file: PathBuf,
    /// The users and their passwords; left out: what `auth_file` names, if it can be read
    #[arg(long, value_name = "FILE")]
    userlist: Option<PathBuf>,
    /// A folder that passwords are written to, one file for each, readable by you alone; left out: they are
    /// left out
    #[arg(long, value_name = "FOLDER")]
    passwords: Option<PathBuf>,
}

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Does `verb`: the config goes to the standard output, what it lacks to the standard error.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    let Verb::Pgbouncer(args) = verb;
    let file = args.file.display().to_string();
    let mut included = |name: &str| include(&args.file, Path::new(name));
    let ini::Read { settings, wrong, lines } = ini::parse(&file, &read(&args.file)?, &mut included);
    let mut notes = notes::Notes::of(lines);
    wrong.into_iter().for_each(|(line, why)| notes.tell(line, why));
    let userlist = userlist(&args, &settings, &mut notes)?;
    let mut secrets = secrets::Secrets::of(userlist, args.passwords.as_deref(), &mut notes);
    let config = pgbouncer::import(&settings, &mut secrets, &mut notes);
    secrets.write().context("passwords")?;
    print(&write::toml(&config, &file));
    notes.lines().iter().for_each(|line| say(line));
    Ok(ExitCode::SUCCESS)
}

/// The file that `main` includes as `name`: from here, as PgBouncer does it, or else from beside `main`.
fn include(main: &Path, name: &Path) -> Result<(String, String), String> {
    let beside = main.parent().unwrap_or(Path::new("")).join(name);
    let path = if name.exists() { name.to_owned() } else { beside };
    let text = read(&path).map_err(|error| format!("{error:#}"))?;
    Ok((path.display().to_string(), text))
}

fn read(path: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The users that the arguments or the settings name, and where they stand.
fn userlist(
    args: &PgbouncerArgs,
    settings: &[ini::Setting],
    notes: &mut notes::Notes,
) -> anyhow::Result<ini::Userlist> {
    let named = settings.iter().find(|it| it.section == "pgbouncer" && it.key == "auth_file");
    let text = match (&args.userlist, named) {
        (Some(path), _) => (path.clone(), read(path)?),
        (None, Some(named)) => {
            let path = args.file.parent().unwrap_or(Path::new("")).join(&named.value);
            match read(&path) {
                Ok(text) => (path, text),
                Err(error) => {
                    notes.tell(
                        named.line,
                        format!("auth_file cannot be read ({error:#}): no users; say --userlist FILE"),
                    );
                    return Ok(Default::default());
                }
            }
        }
        (None, None) => return Ok(Default::default()),
    };
    let (users, wrong) = ini::userlist(&text.1);
    let file = text.0.display().to_string();
    wrong
        .into_iter()
        .for_each(|line| notes.tell_of(&file, line, "is no user; a line is \"name\" \"password\"".into()));
    Ok(ini::Userlist { file, users })
}

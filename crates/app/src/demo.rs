//! `tieline demo`: everything embedded, nothing to configure.
//!
//! The server is the real one, obeying a config that is written into the demo's folder; only the services and
//! the clients that keep them busy are made up here. Each part of the demo adds its services, its piece of
//! the config, its lines of the introduction and its traffic; [`demo::echo`](echo) is the smallest.

mod database;
mod echo;
mod site;
mod web;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use tieline_base::Address;
use tieline_config::Config;

use crate::args::DemoArgs;
use crate::house::House;
use crate::logging::say;
use crate::run;

/// Where the demo keeps its config, its admin socket and its token; the default of `server.data` too, so that
/// `tieline ls` in the same folder finds it.
const FOLDER: &str = "tieline-data";

/// Runs the demo until Ctrl-C.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let (echo, web, site) = (echo::Echo::start()?, web::Web::start()?, site::Site::start()?);
    let database = database::Database::start();
    let parts = [echo.config(), web.config(), database.config(), site.config()];
    let file = write_config(&parts, &[web.document()])?;
    let checked = Config::load(&file).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the demo's config is refused: {}", lines.join("; "))
    })?;
    run::serve(&file, checked, |house| {
        site.link_up(house);
        introduce(house, &echo, &web, &database, &site);
        if !args.quiet {
            echo.traffic(house);
            web.traffic(house);
            database.traffic(house);
            site.traffic(house);
        }
    })
}

/// Writes the config that `parts` make together, and `documents` beside it, each with its name.
fn write_config(parts: &[String], documents: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let folder = Path::new(FOLDER);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the folder {FOLDER}"))?;
    let text = format!(
        r#"# Written by `tieline demo`. Copy it, change it, and start it with `tieline run -c FILE`.
[server]
data = "."
access_log = "off"
log = "warn"

[admin]
listen = "{}"
{}"#,
        free_or_any("127.0.0.1:7070"),
        parts.concat()
    );
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        anyhow::Ok(file)
    };
    documents.iter().try_for_each(|(name, text)| write(name, text).map(drop))?;
    write("demo.toml", &text)
}

/// `wanted`, or any free port where another program has it, by TCP or, as QUIC does, by UDP.
fn free_or_any(wanted: &str) -> String {
    match (TcpListener::bind(wanted), UdpSocket::bind(wanted)) {
        (Ok(_), Ok(_)) => wanted.into(),
        _ => "127.0.0.1:0".into(),
    }
}

fn introduce(
    house: &House,
    echo: &echo::Echo,
    web: &web::Web,
    database: &database::Database,
    site: &site::Site,
) {
    let admin = house.admin_address().map_or("off".into(), ToString::to_string);
    say(&format!(
        "Tieline demo: {FOLDER}/demo.toml says all of it.

{}{}{}{}  admin API  http://{admin}/api/v1/connections   /metrics   /api/v1/openapi.json
  token      {}

Try next, in another terminal in this folder:

{}{}{}{}
  (not installed yet? write `cargo run --release --` for `tieline`)

Ctrl-C drains.",
        web.what_there_is(house),
        echo.what_there_is(house),
        database.what_there_is(house),
        site.what_there_is(house),
        house.token_file().display(),
        web.what_to_try(house),
        database.what_to_try(house),
        echo.what_to_try(house),
        site.what_to_try(house),
    ));
}

/// A line of what can be tried: a command, and what comes of it.
fn tried(command: &str, what: &str) -> String {
    format!("  {command:<46} {what}").trim_end().to_owned() + "\n"
}

/// Where the listener `name` is bound to.
fn listener(house: &House, name: &str) -> Option<Address> {
    let snapshot = house.server().snapshot();
    let (bound, _) = snapshot.listeners.get(name)?.doors.first()?;
    Some(bound.address().clone())
}

/// [`listener`] as it is shown.
fn shown(house: &House, name: &str) -> String {
    listener(house, name).map_or("off".into(), |address| address.to_string())
}

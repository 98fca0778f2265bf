//! `tieline connect`: services of far sites, by the standard input and output or at local addresses.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context, bail};
use clap::Args;
use tieline_base::Address;
use tieline_config::{LogFormat, LogLevel};
use tieline_transport::Io;
use tieline_transport::tls::CertificateFiles;
use tieline_tunnel::{AGENT_PREFIX, ConnectError, EnrolError, Person, PersonToken, Proxy, UserLink};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::agent::server_address;
use crate::logging::{self, say};
use crate::proxy;

mod flows;
mod forward;
mod state;
mod stdio;

use forward::Forward;

/// What is to be reached, as whom, and where it is to be had.
#[derive(Args, Debug)]
pub(crate) struct ConnectArgs {
    /// AGENT/SERVICE, or AGENT/SERVICE=ADDRESS to have it at a local address: port, host:port or unix:/path;
    /// udp:port or udp:host:port for datagrams.
    /// One alone without an address is joined to the standard input and output
    #[arg(value_name = "AGENT/SERVICE[=ADDRESS]", required = true)]
    services: Vec<String>,
    /// The local address of the one service that is named
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// What for, in a few words; told to those who have to agree, where somebody has to
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// Local addresses may be ones that other machines reach
    #[arg(long)]
    expose: bool,
    /// The server's listener of protocol "tunnel": host:port, or https://host [env: TIELINE_SERVER] [default:
    /// what stands before the token in its file]
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// The file that holds what `tieline token create` printed [env: TIELINE_TOKEN, the token itself]
    /// [default: ~/.config/tieline/token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The file of a certificate that somebody the server believes has made of you, in PEM, in place of a
    /// token [env: TIELINE_CERTIFICATE]
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    certificate: Option<PathBuf>,
    /// The file of its private key, in PEM [env: TIELINE_KEY] [default: the file of the certificate]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The file of the authority that the server is believed by, where no token names it: `agents/ca.crt` of
    /// the server's data folder [env: TIELINE_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Tell on the standard error what becomes of each connection to the server
    #[arg(short, long)]
    verbose: bool,
}

/// No file of a token is longer.
const FILE_MAX: u64 = 4_096;

/// What a shell shows of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Reaches what `args` name until it is over.
///
/// # Errors
/// Why nothing could be begun, in one line.
pub(crate) fn run(args: &ConnectArgs) -> anyhow::Result<ExitCode> {
    if args.verbose {
        logging::start(LogLevel::Info, LogFormat::Text);
    }
    let (work, bound) = work(args)?;
    let (server, proof) = credentials(args)?;
    let proxy = proxy::from_environment(&server)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let wish = Wish { work, why: args.why.as_str().into() };
    let code = runtime.block_on(async {
        let mut stop = Stop::listen()?;
        // Both arms may be dropped: nothing is kept of one who has not proved himself.
        let proved = tokio::select! {
            proved = proved(&server, proxy, proof) => proved,
            code = stop.code() => return anyhow::Ok(code),
        };
        match proved {
            Ok(person) => Ok(person.link(async |link| served(link, &wish, bound, &mut stop).await).await?),
            Err(error) => Ok(unproved(&error)),
        }
    })?;
    // A thread may wait for the standard input, which nothing else can end.
    std::process::exit(i32::from(code));
}

/// What may end it from outside: the keyboard, or ssh when it needs its `ProxyCommand` no more.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> io::Result<Stop> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hang_up] = kinds.map(signal);
        Ok(Stop([interrupt?, terminate?, hang_up?]))
    }

    /// Waits for one. May be dropped at any time.
    async fn code(&mut self) -> u8 {
        let Stop([interrupt, terminate, hang_up]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        INTERRUPTED
    }
}

/// What is wanted, and what for.
struct Wish {
    work: Work,
    why: Rc<str>,
}

/// Opens a stream to `service`, and tells on the standard error whom that waits for.
async fn opened(link: &UserLink, service: &str, why: &str) -> Result<Io, ConnectError> {
    let told = RefCell::new(String::new());
    // It is told again when the link goes on over another connection.
    let tell = |text: &str| {
        if told.replace(text.into()) != text {
            say(&format!("waiting for approval: {text}"));
        }
    };
    let opened = link.open(service, why, tell).await?;
    if !told.borrow().is_empty() {
        say(&format!("approved: {service} is open"));
    }
    Ok(opened)
}

/// What is to be done with a link.
enum Work {
    /// The one service, by the standard input and output.
    Stdio(String),
    /// Several at local addresses.
    Forwards,
}

/// What `args` ask for; local addresses are bound at once, so that whoever waits for them finds them.
fn work(args: &ConnectArgs) -> anyhow::Result<(Work, Vec<Forward>)> {
    if let (Some(address), [service]) = (&args.listen, &args.services[..]) {
        let service = named(service)?;
        return Ok((Work::Forwards, vec![Forward::bind(service, address, args.expose)?]));
    }
    if args.listen.is_some() {
        bail!("--listen is for one service; write AGENT/SERVICE=ADDRESS for each of several");
    }
    if let [only] = &args.services[..]
        && let (service, None) = split(only)
    {
        return Ok((Work::Stdio(named(service)?.into()), Vec::new()));
    }
    let forward = |text: &String| match split(text) {
        (service, Some(address)) => Forward::bind(named(service)?, address, args.expose),
        (_, None) => {
            bail!("{}: of several services each needs an address: {text}=ADDRESS", text.escape_debug())
        }
    };
    let bound: anyhow::Result<Vec<_>> = args.services.iter().map(forward).collect();
    Ok((Work::Forwards, bound?))
}

/// A service, and behind it the address that it is to be at. What stands before the slash may be labels,
/// which have signs of equality of their own.
fn split(text: &str) -> (&str, Option<&str>) {
    let slash = text.find('/').unwrap_or(0);
    match text[slash..].split_once('=') {
        Some((service, address)) => (&text[..slash + service.len()], Some(address)),
        None => (text, None),
    }
}

fn named(text: &str) -> anyhow::Result<&str> {
    match format!("{AGENT_PREFIX}{text}").parse() {
        Ok(Address::Agent(_) | Address::Group(_)) => Ok(text),
        _ => bail!(
            "\"{}\" is no service; write AGENT/SERVICE, like plant-7/ssh, or KEY=VALUE/SERVICE for any agent \
             of that label",
            text.escape_debug()
        ),
    }
}

/// What somebody proves himself by.
enum Proof {
    Token(PersonToken),
    /// And the authority that the server is believed by.
    Certificate(CertificateFiles, PathBuf),
}

async fn proved(server: &Address, proxy: Option<Proxy>, proof: Proof) -> Result<Person, EnrolError> {
    match proof {
        Proof::Token(token) => Person::prove(server, proxy, &token).await,
        Proof::Certificate(files, ca) => Person::show(server, proxy, files, &ca).await,
    }
}

fn credentials(args: &ConnectArgs) -> anyhow::Result<(Address, Proof)> {
    // What the arguments name goes before what the environment does.
    let told = set("TIELINE_CERTIFICATE").filter(|_| args.token_file.is_none());
    let Some(chain) = args.certificate.clone().or(told) else {
        if args.key.is_some() || args.ca.is_some() {
            bail!("--key and --ca mean nothing without --certificate");
        }
        let (server, token) = by_token(args)?;
        return Ok((server, Proof::Token(token)));
    };
    let key = args.key.clone().or_else(|| set("TIELINE_KEY")).unwrap_or_else(|| chain.clone());
    let Some(ca) = args.ca.clone().or_else(|| set("TIELINE_CA")) else {
        bail!("by which authority is the server believed? write --ca FILE, its `agents/ca.crt`");
    };
    own(&key, &std::fs::metadata(&key).with_context(|| key.display().to_string())?)?;
    let told = || std::env::var("TIELINE_SERVER").ok().filter(|server| !server.is_empty());
    let Some(server) = args.server.clone().or_else(told) else {
        bail!("which server? write --server HOST:PORT");
    };
    Ok((server_address(&server)?, Proof::Certificate(CertificateFiles { chain, key }, ca)))
}

/// What the environment says, if anything.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The server and the token: never from the arguments, which every process of the machine may see.
fn by_token(args: &ConnectArgs) -> anyhow::Result<(Address, PersonToken)> {
    let own = || std::env::var("TIELINE_TOKEN").ok().filter(|token| !token.is_empty());
    let text = match (&args.token_file, own()) {
        (Some(file), _) => kept(file)?,
        (None, Some(token)) => token,
        (None, None) => kept(&usual_file()?)?,
    };
    let (before, token) = match text.trim().rsplit_once(char::is_whitespace) {
        Some((server, token)) => (Some(server.trim().to_owned()), token),
        None => (None, text.trim()),
    };
    let told = || std::env::var("TIELINE_SERVER").ok().filter(|server| !server.is_empty());
    let Some(server) = args.server.clone().or_else(told).or(before) else {
        bail!("which server? write --server HOST:PORT, or put it before the token in its file");
    };
    Ok((server_address(&server)?, PersonToken::parse(token)?))
}

fn usual_file() -> anyhow::Result<PathBuf> {
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let folder = folder.context("no token: write --token-file FILE")?;
    Ok(folder.join("tieline/token"))
}

/// What is in the file of a token, which is nobody else's business.
fn kept(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let opened = File::open(file).with_context(|| {
        format!(
            "{name}: no token; save there what `tieline token create` printed, or write --token-file FILE"
        )
    })?;
    let metadata = opened.metadata().with_context(|| name.to_string())?;
    own(file, &metadata)?;
    let mut text = String::new();
    opened.take(FILE_MAX).read_to_string(&mut text).with_context(|| name.to_string())?;
    Ok(text)
}

/// Whether nobody else can read `file`.
fn own(file: &Path, metadata: &Metadata) -> anyhow::Result<()> {
    let name = file.display();
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        bail!("{name} can be read by others, and what it holds is a secret; `chmod 600 {name}`");
    }
    Ok(())
}

async fn served(link: UserLink, wish: &Wish, bound: Vec<Forward>, stop: &mut Stop) -> u8 {
    let terminal = std::io::stderr().is_terminal();
    let telling = state::tell(link.clone(), terminal);
    let working = async {
        match &wish.work {
            Work::Stdio(service) => match stdio::join(&link, service, &wish.why).await {
                Ok(()) => Ok(()),
                Err(error) => Err((service.clone(), error)),
            },
            Work::Forwards => forward::all(Rc::new(link.clone()), wish.why.clone(), bound).await,
        }
    };
    // All arms may be dropped: the first only tells, and never ends; the link is ended in order afterwards.
    tokio::select! {
        never = telling => match never {},
        code = stop.code() => code,
        done = working => match done {
            Ok(()) => 0,
            Err((service, error)) => {
                say(&format!("tieline: {service}: {error}"));
                code_of(&error)
            }
        },
    }
}

/// What the shell is told.
fn code_of(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Broken(_) => 1,
        ConnectError::Refused(_) => 3,
        ConnectError::Unreachable(_) => 4,
        ConnectError::Killed => 5,
        ConnectError::Expired(_) | ConnectError::Idle(_) => 6,
    }
}

fn unproved(error: &EnrolError) -> u8 {
    say(&format!("tieline: {error}"));
    match error {
        EnrolError::Unreachable { .. } | EnrolError::Late(_) => 4,
        EnrolError::Refused(_) => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(services: &[&str], listen: Option<&str>) -> ConnectArgs {
        ConnectArgs {
            services: services.iter().map(|&service| service.into()).collect(),
            listen: listen.map(Into::into),
            why: String::new(),
            expose: false,
            server: None,
            token_file: None,
            certificate: None,
            key: None,
            ca: None,
            verbose: false,
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_told_from_slips() {
        let done = |services: &[&str], listen| work(&args(services, listen));
        assert!(matches!(done(&["a/ssh"], None), Ok((Work::Stdio(service), _)) if service == "a/ssh"));
        assert!(
            matches!(done(&["a/ssh"], Some("127.0.0.1:0")), Ok((Work::Forwards, bound)) if bound.len() == 1)
        );
        let several = done(&["a/ssh=0", "a/db=127.0.0.1:0", "a/dns=udp:0", "a/ntp=udp:[::1]:0"], None);
        assert!(matches!(several, Ok((Work::Forwards, bound)) if bound.len() == 4));
        let group = done(&["site=berlin/ssh"], None);
        assert!(matches!(group, Ok((Work::Stdio(service), _)) if service == "site=berlin/ssh"));
        let placed = done(&["site=berlin,role=edge/db=127.0.0.1:0"], None);
        assert!(matches!(placed, Ok((Work::Forwards, bound)) if bound.len() == 1));
        for (services, listen, words) in [
            (&["site=/ssh"][..], None, "is no service"),
            (&["ssh"], None, "is no service"),
            (&["a/ssh", "a/db"], None, "each needs an address"),
            (&["a/ssh=0", "a/db=0"], Some("0"), "--listen is for one service"),
            (&["a/ssh=0.0.0.0:0"], None, "--expose"),
            (&["a/ssh=example.com:1"], None, "is no address of this machine"),
            (&["a/dns=udp:0.0.0.0:0"], None, "--expose"),
            (&["a/dns=udp:unix:/x"], None, "udp: stands before a port"),
        ] {
            let error = done(services, listen).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(error.contains(words), "{services:?}: {error}");
        }
    }

    #[test]
    fn a_token_that_others_can_read_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "gate.test:1 tlu1_x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(kept(&file).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(kept(&file).unwrap(), "gate.test:1 tlu1_x");
    }
}

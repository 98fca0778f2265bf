//! A far site: `tieline agent run`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use tieline_base::Clock;

use crate::process::{Launch, Process, WAYS_OUT};
use crate::program::{finish, program};
use crate::tieline::Tieline;

/// A running agent, alone in a temporary directory.
pub struct Agent {
    process: Option<Process>,
    directory: TempDir,
    binary: PathBuf,
    /// What it runs under, as `["ip", "netns", "exec", "far"]`.
    tool: Vec<String>,
}

impl Agent {
    /// Joins the server as `name` through `at`, and runs with `offers`, as the lines of its config file. It
    /// is not waited for: it links up when it can.
    ///
    /// # Panics
    /// With what was said, if it cannot join.
    #[track_caller]
    pub fn join(server: &Tieline, name: &str, at: SocketAddr, offers: &str) -> Agent {
        Agent::join_labelled(server, name, &[], at, offers)
    }

    /// As [`Agent::join`], labelled with `labels`.
    ///
    /// # Panics
    /// As [`Agent::join`].
    #[track_caller]
    pub fn join_labelled(
        server: &Tieline,
        name: &str,
        labels: &[&str],
        at: SocketAddr,
        offers: &str,
    ) -> Agent {
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let token = server.cli(["agent", "token", name].into_iter().chain(labels));
        let token = token.expect("tieline agent token");
        Agent::redeem(&Tieline::binary(), &[], &token, at, offers)
    }

    /// [`Agent::join`] with a given binary, and under a tool, as `["ip", "netns", "exec", "far"]`.
    ///
    /// # Panics
    /// With what was said, if it cannot join.
    #[track_caller]
    pub fn join_under(
        binary: &Path,
        tool: &[&str],
        server: &Tieline,
        name: &str,
        at: SocketAddr,
        offers: &str,
    ) -> Agent {
        let token = server.cli(["agent", "token", name]).expect("tieline agent token");
        Agent::redeem(binary, tool, &token, at, offers)
    }

    #[track_caller]
    fn redeem(binary: &Path, tool: &[&str], printed: &str, at: SocketAddr, offers: &str) -> Agent {
        let token = printed.split_whitespace().last().expect("a token").to_owned();
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let at_text = at.to_string();
        let words = ["agent", "join", &at_text, &token, "--folder", "me"];
        finish(command(binary, tool).args(words).current_dir(directory.path())).expect("tieline agent join");
        let tool = tool.iter().map(|&word| word.to_owned()).collect();
        let mut agent = Agent { process: None, directory, binary: binary.to_owned(), tool };
        agent.offer(at, offers);
        agent.start();
        agent
    }

    /// Writes what it offers anew; it is not told.
    ///
    /// # Panics
    /// If its directory is gone.
    pub fn offer(&self, at: SocketAddr, offers: &str) {
        let config = format!("[agent]\nserver = \"{at}\"\nfolder = \"me\"\n{offers}");
        fs::write(self.directory.path().join("agent.toml"), config).expect("our own directory is writable");
    }

    /// Runs it, again or for the first time, without waiting for anything.
    #[track_caller]
    pub fn start(&mut self) {
        let tool: Vec<&str> = self.tool.iter().map(String::as_str).collect();
        let launch = Launch::under(&tool, "agent", self.binary.clone(), self.directory.path());
        self.process = Some(launch.args(["agent", "run"]).spawn());
    }

    /// An agent that does not run yet, with a copy of all that this one has.
    pub fn copy(&self) -> Agent {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        for name in ["agent.toml", "me/agent.pem", "me/ca.crt"] {
            let to = directory.path().join(name);
            fs::create_dir_all(to.parent().expect("a file is in a folder")).expect("it is writable");
            fs::copy(self.directory.path().join(name), to).expect("a file of the agent");
        }
        Agent { process: None, directory, binary: self.binary.clone(), tool: self.tool.clone() }
    }

    /// Gives it, while it does not run, the certificate that it would have were it `age` old, and lets the
    /// server know it as that.
    ///
    /// # Panics
    /// If `server` does not know `name`.
    pub fn age(&self, server: &Tieline, name: &str, age: Duration) {
        let file = self.directory.path().join("me/agent.pem");
        let agents = server.data().join("agents");
        let since = Clock::wall().duration_since(UNIX_EPOCH).expect("it is later than 1970") - age;
        let mut known = server.known_agent(name);
        known["good"][0]["since"] = since.as_secs().into();
        known["good"][0]["until"] = (since + LIFETIME).as_secs().into();
        let serial = known["good"][0]["serial"].as_str().expect("a serial number").to_owned();
        server.set_known_agent(name, &known);
        let pem = fs::read_to_string(&file).expect("the agent's certificate");
        let key = format!("{KEY}{}", pem.split_once(KEY).expect("the agent's key").1);
        let authority = fs::read_to_string(agents.join("ca.crt")).expect("the authority");
        let ca = fs::read_to_string(agents.join("ca.key")).expect("the authority's key");
        let made = aged(name, &serial, since, &key, &ca);
        fs::write(&file, format!("{made}{authority}{key}")).expect("the agent's folder is writable");
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent runs")
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the agent runs").pid()
    }

    /// Its working directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn command(binary: &Path, tool: &[&str]) -> Command {
    let mut command = match tool.split_first() {
        None => Command::new(binary),
        Some((first, options)) => {
            let mut command = Command::new(program(first));
            command.args(options).arg(binary);
            command
        }
    };
    for name in WAYS_OUT {
        command.env_remove(name);
    }
    command
}

const KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// For how long an agent links up by a certificate.
const LIFETIME: Duration = Duration::from_secs(86_400);

/// For how long it may renew it after that.
const GRACE: Duration = Duration::from_secs(7 * 86_400);

/// A certificate as the server issued it, `since` 1970.
fn aged(name: &str, serial: &str, since: Duration, key: &str, ca: &str) -> String {
    let mut own = CertificateParams::default();
    own.distinguished_name = DistinguishedName::new();
    own.distinguished_name.push(DnType::CommonName, "Tieline agents");
    let issuer = Issuer::new(own, KeyPair::from_pem(ca).expect("the authority's key"));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let pairs = serial.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    let serial: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uri = format!("agent:{name}").try_into().expect("ASCII");
    params.subject_alt_names.push(SanType::URI(uri));
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (since - Duration::from_secs(300));
    params.not_after = epoch + since + LIFETIME + GRACE;
    let key = KeyPair::from_pem(key).expect("the agent's key");
    params.signed_by(&key, &issuer).expect("a certificate").pem()
}

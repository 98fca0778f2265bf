//! Conversations written down: what a client sends, and how far it reads before it goes on.
//!
//! A script begins with `== its name`. Each line is one step of the client `a`, or of another one whose
//! letter stands before a colon:
//!
//! ```text
//! Q sql                      Query
//! P name[(oid,..)] sql       Parse; a dash stands for the name that is empty
//! B portal stmt [value ..]   Bind; `null` is null; `|1` at the end asks for binary results
//! D S|P name, C S|P name     Describe, Close
//! E portal rows              Execute
//! S, H, X                    Sync, Flush, Terminate
//! d text, c, f why           CopyData (with its line's end), CopyDone, CopyFail
//! F function [value ..]      FunctionCall
//! raw bytes                  anything; \x00 and \n are what they are in Rust
//! start k=v ..               a StartupMessage of 3.0 with these parameters, instead of a login of its own
//! connect                    connects and sends nothing yet
//! < Z Z, < eof               sends what was gathered, and reads up to messages of these types in turn
//! cancel, cancel wrong       a CancelRequest with this client's key, or with another
//! active text                waits until the server sleeps in a query that holds this text, or has slept
//! direct sql                 runs SQL on the server itself
//! reset                      closes with a reset
//! ```
//!
//! `{x*1000}` is a thousand times x. Everything up to the next `<` goes out in one piece, or in pieces, as
//! the [`Manner`] says. In the end each client that still lives asks whether all is well, and leaves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{PATIENCE, wait_until};

use crate::house::Server;

/// A conversation.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) steps: Vec<(char, Step)>,
    /// Who the clients are that log in by themselves.
    pub(crate) users: &'static [(char, &'static str)],
}

/// One step of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Read(Vec<u8>),
    ReadToEnd,
    Connect,
    Start(Vec<u8>),
    Cancel { right: bool },
    Active(String),
    Direct(String),
    Reset,
}

/// How a script is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// What is sent together goes out in one piece, as from most clients.
    Whole,
    /// Each byte goes out by itself.
    ByteByByte,
    /// In one piece, while somebody else sees to it that a pooler's client goes from server to server.
    Stirred,
}

/// What each client heard.
pub(crate) type Transcript = BTreeMap<char, Vec<String>>;

/// A client that hears nothing for so long never will.
const STUCK: Duration = Duration::from_secs(15);

impl Script {
    /// The scripts of one file.
    ///
    /// # Panics
    /// At a line that is no step.
    pub(crate) fn read(text: &str) -> Vec<Script> {
        let mut scripts: Vec<Script> = Vec::new();
        for line in text.lines().map(str::trim_start) {
            if let Some(name) = line.strip_prefix("== ") {
                scripts.push(Script { name: name.to_owned(), steps: Vec::new(), users: &[] });
            } else if !line.is_empty() && !line.starts_with('#') {
                let script = scripts.last_mut().expect("a script begins with its name");
                let (client, words) = whose(line);
                script.steps.push((client, step(&expanded(words))));
            }
        }
        scripts
    }

    /// Plays it against `address`; `server` is what stands behind.
    pub(crate) fn play(&self, address: SocketAddr, server: &Server, manner: Manner) -> Transcript {
        let (users, clients) = (self.users, BTreeMap::new());
        let stirrer = (manner == Manner::Stirred).then(|| {
            let stirrer = Conversation::log_in(address, "postgres", "postgres");
            (stirrer, false)
        });
        let mut play = Play { address, server, manner, users, clients, heard: BTreeMap::new(), stirrer };
        for (name, step) in &self.steps {
            play.step(*name, step);
        }
        play.end();
        play.heard.into_iter().map(|(name, heard)| (name, in_order(heard))).collect()
    }
}

fn whose(line: &str) -> (char, &str) {
    let mut letters = line.chars();
    match (letters.next(), letters.next()) {
        (Some(client), Some(':')) => (client, letters.as_str().trim_start()),
        _ => ('a', line),
    }
}

/// `line` with each `{x*3}` written out.
fn expanded(line: &str) -> String {
    let Some((before, rest)) = line.split_once('{') else { return line.to_owned() };
    let repeated = rest.split_once('}').and_then(|(inside, after)| {
        let (text, times) = inside.rsplit_once('*')?;
        Some(format!("{before}{}{}", text.repeat(times.parse().ok()?), expanded(after)))
    });
    repeated.unwrap_or_else(|| format!("{before}{{{}", expanded(rest)))
}

fn step(line: &str) -> Step {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    Step::Send(match word {
        "Q" => frontend::query(rest),
        "P" => {
            let (name, sql) = rest.split_once(' ').unwrap_or((rest, ""));
            let (name, types) = typed(name);
            frontend::parse(name, sql, &types)
        }
        "B" => bind(&words),
        "D" => frontend::describe(words[0].as_bytes()[0], named(words[1])),
        "C" => frontend::close(words[0].as_bytes()[0], named(words[1])),
        "E" => frontend::execute(named(words[0]), words[1].parse().expect("a number of rows")),
        "S" => frontend::sync(),
        "H" => frontend::flush(),
        "X" => frontend::terminate(),
        "d" => frontend::copy_data(format!("{rest}\n").as_bytes()),
        "c" => frontend::copy_done(),
        "f" => frontend::copy_fail(rest),
        "F" => frontend::function_call(words[0].parse().expect("a function's number"), &words[1..]),
        "raw" => unescaped(rest),
        "<" if rest == "eof" => return Step::ReadToEnd,
        "<" => return Step::Read(words.iter().map(|word| word.as_bytes()[0]).collect()),
        "connect" => return Step::Connect,
        "start" => {
            let value = |text: &str| String::from_utf8(unescaped(text)).expect("text");
            let pairs = words.iter().filter_map(|word| word.split_once('='));
            let own: Vec<_> = pairs.map(|(name, text)| (name, value(text))).collect();
            let parameters: Vec<_> = own.iter().map(|(name, text)| (*name, &**text)).collect();
            return Step::Start(frontend::startup(frontend::V3_0, &parameters));
        }
        "cancel" => return Step::Cancel { right: rest != "wrong" },
        "active" => return Step::Active(rest.to_owned()),
        "direct" => return Step::Direct(rest.to_owned()),
        "reset" => return Step::Reset,
        _ => panic!("no such step: {line}"),
    })
}

fn named(name: &str) -> &str {
    if name == "-" { "" } else { name }
}

/// `name(23,25)` is a name and types.
fn typed(name: &str) -> (&str, Vec<u32>) {
    let Some((name, types)) = name.strip_suffix(')').and_then(|name| name.split_once('(')) else {
        return (named(name), Vec::new());
    };
    (named(name), types.split(',').map(|oid| oid.parse().expect("a type's number")).collect())
}

fn bind(words: &[&str]) -> Vec<u8> {
    let binary = words.last() == Some(&"|1");
    let values = &words[2..words.len() - usize::from(binary)];
    let values: Vec<Option<&str>> = values.iter().map(|value| (*value != "null").then_some(*value)).collect();
    frontend::bind(named(words[0]), named(words[1]), &values, i16::from(binary))
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        rest = if let Some(after) = escape.strip_prefix('n') {
            bytes.push(b'\n');
            after
        } else {
            let digits = escape.get(1..3).expect("\\x and two digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
            &escape[3..]
        };
    }
    bytes.extend(rest.as_bytes());
    bytes
}

struct Play<'a> {
    address: SocketAddr,
    server: &'a Server,
    manner: Manner,
    users: &'a [(char, &'static str)],
    clients: BTreeMap<char, (Conversation, Vec<u8>)>,
    heard: Transcript,
    /// Another client, and whether its turn is the next.
    stirrer: Option<(Conversation, bool)>,
}

impl Play<'_> {
    fn step(&mut self, name: char, step: &Step) {
        match step {
            Step::Connect => self.connect(name),
            Step::Start(packet) => {
                self.connect(name);
                self.gather(name, packet);
            }
            Step::Send(bytes) => {
                self.log_in(name);
                self.gather(name, bytes);
            }
            Step::Read(kinds) => {
                let held = self.stir();
                self.flush(name);
                for kind in kinds {
                    self.read(name, Some(*kind));
                }
                if held {
                    self.settle();
                }
            }
            Step::ReadToEnd => {
                self.flush(name);
                self.read(name, None);
            }
            Step::Cancel { right } => self.cancel(name, *right),
            Step::Active(text) => {
                self.flush(name);
                self.await_active(text);
            }
            Step::Direct(sql) => drop(self.server.ask(sql)),
            Step::Reset => {
                self.flush(name);
                if let Some((client, _)) = self.clients.remove(&name) {
                    client.reset();
                }
            }
        }
    }

    /// Has the stirrer hold the server that was used last, every second time; whether it does.
    fn stir(&mut self) -> bool {
        let Some((stirrer, turn)) = &mut self.stirrer else { return false };
        *turn = !*turn;
        if *turn {
            stirrer.query("begin");
        }
        *turn
    }

    fn settle(&mut self) {
        if let Some((stirrer, _)) = &mut self.stirrer {
            stirrer.query("commit");
        }
    }

    fn connect(&mut self, name: char) {
        let client = Conversation::connect(self.address);
        let _ = client.stream().set_read_timeout(Some(STUCK)); // above zero, so it can be set
        self.clients.insert(name, (client, Vec::new()));
    }

    /// Logs in, unless the script does that itself or has done it; what a login says is no part of it then.
    fn log_in(&mut self, name: char) {
        if self.clients.contains_key(&name) || self.heard.contains_key(&name) {
            return;
        }
        self.heard.insert(name, Vec::new());
        let user =
            self.users.iter().find(|(client, _)| *client == name).map_or("postgres", |(_, user)| *user);
        let client = Conversation::log_in(self.address, user, "postgres");
        let _ = client.stream().set_read_timeout(Some(STUCK)); // as above
        self.clients.insert(name, (client, Vec::new()));
    }

    fn gather(&mut self, name: char, bytes: &[u8]) {
        if let Some((_, gathered)) = self.clients.get_mut(&name) {
            gathered.extend_from_slice(bytes);
        }
    }

    fn flush(&mut self, name: char) {
        if let Some((client, gathered)) = self.clients.get_mut(&name) {
            let bytes = std::mem::take(gathered);
            // What was closed is heard as such.
            let _ = match self.manner {
                Manner::ByteByByte => client.send_in_pieces(&bytes, 1),
                Manner::Whole | Manner::Stirred => client.send(&bytes),
            };
        }
    }

    fn read(&mut self, name: char, until: Option<u8>) {
        let Some((client, _)) = self.clients.get_mut(&name) else { return };
        let heard = self.heard.entry(name).or_default();
        loop {
            match client.message() {
                Ok(Some(message)) => {
                    heard.push(message.to_string());
                    if Some(message.kind) == until {
                        return;
                    }
                }
                Ok(None) => heard.push("closed".to_owned()),
                Err(error) => heard.push(format!("stuck: {:?}", error.kind())),
            }
            if heard.last().is_some_and(|last| last == "closed" || last.starts_with("stuck")) {
                self.clients.remove(&name);
                return;
            }
        }
    }

    fn cancel(&mut self, name: char, right: bool) {
        let Some((client, _)) = self.clients.get(&name) else { return };
        let mut key = client.key_data().to_vec();
        if let Some(last) = key.last_mut().filter(|_| !right) {
            *last ^= 1;
        }
        let mut side = Conversation::connect(self.address);
        side.send(&frontend::cancel(&key)).expect("a cancel can be sent");
        let answer = side.message().expect("nothing is said to a cancel, but its end");
        self.heard.entry('-').or_default().push(format!("cancel: {answer:?}"));
    }

    fn await_active(&self, text: &str) {
        // Before it sleeps it may not even have said what its rows will be. On a slow machine it may be
        // through.
        let busy = format!(
            "select count(*) > 0 from pg_stat_activity where (wait_event = 'PgSleep' or state <> 'active') \
             and pid <> pg_backend_pid() and position($mark${text}$mark$ in query) > 0"
        );
        assert!(wait_until(PATIENCE, || self.server.ask(&busy) == "t"), "nobody is busy with {text}");
    }

    /// A client that was left in disorder answers this wrongly.
    fn end(&mut self) {
        let names: Vec<char> = self.clients.keys().copied().collect();
        for name in names {
            self.gather(name, &frontend::query("select 'all is well'"));
            self.flush(name);
            self.read(name, Some(b'Z'));
            self.gather(name, &frontend::terminate());
            self.flush(name);
            self.read(name, None);
        }
    }
}

/// In which order parameters that change together are told is nobody's business.
fn in_order(mut heard: Vec<String>) -> Vec<String> {
    let status = |line: &String| line.starts_with("ParameterStatus");
    heard.chunk_by_mut(|one, other| status(one) && status(other)).for_each(<[String]>::sort);
    heard
}

#[cfg(test)]
mod tests {
    use super::{Script, Step, expanded, unescaped};
    use tieline_testkit::pg::frontend;

    #[test]
    fn lines_become_steps() {
        let text = "== one\n# why\nP s(23,25) select $1\nb: B - s 1 null |1\n< 1 Z\n== two\nraw y\\x00\\n\n";
        let scripts = Script::read(text);
        assert_eq!(scripts.len(), 2);
        let steps = &scripts[0].steps;
        assert_eq!(steps[0], ('a', Step::Send(frontend::parse("s", "select $1", &[23, 25]))));
        assert_eq!(steps[1], ('b', Step::Send(frontend::bind("", "s", &[Some("1"), None], 1))));
        assert_eq!(steps[2], ('a', Step::Read(b"1Z".to_vec())));
        assert_eq!(scripts[1].steps, [('a', Step::Send(b"y\0\n".to_vec()))]);
        assert_eq!((expanded("a{xy*3}b{c*0}"), expanded("'{1,2}'")), ("axyxyxyb".into(), "'{1,2}'".into()));
        assert_eq!(unescaped("\\xff1"), [255, b'1']);
    }
}

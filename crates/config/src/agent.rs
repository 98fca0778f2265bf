//! `[agent]` and `[offer.NAME]` as they are obeyed.

use std::fmt;
use std::path::{Path, PathBuf};

use tieline_base::{Address, is_far_name};

use crate::endpoint_url::{Dialed, Scheme};
use crate::fields::{Fields, Taken};
use crate::files;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::value::{Value, is_name};
use crate::words::Carrier;

/// What the file of an agent says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agent {
    /// The addresses of the server that it dials, with a link to each: one or two.
    pub servers: Vec<Address>,
    /// Where its key and certificate are.
    pub folder: PathBuf,
    /// What its link may go over, each once.
    pub carriers: Vec<Carrier>,
    /// What leads out of its network, if the file says so.
    pub proxy: Option<Proxy>,
    /// Where it stands.
    pub place: Place,
    /// What it offers, in the order of the file, all of different names.
    pub offers: Vec<Offer>,
}

/// A proxy of HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxy {
    /// Where it is.
    pub address: Address,
    /// As whom it is asked.
    pub user: Option<String>,
    /// The file of that user's password.
    pub password_file: Option<PathBuf>,
}

/// A service that an agent offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// What the server calls it.
    pub name: String,
    /// Where it is.
    pub to: Service,
}

/// Where a service is, and what it takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Service {
    /// Streams of bytes.
    Stream(Address),
    /// Datagrams of UDP.
    Datagrams(Address),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Service::Stream(address) => address.fmt(f),
            Service::Datagrams(address) => write!(f, "udp:{address}"),
        }
    }
}

/// The most links of an agent.
const LINKS_MAX: usize = 2;

/// Reads what the file says of an agent. `folder` is the config file's.
pub(crate) fn read(file: &mut Fields, folder: &Path, problems: &mut Problems) -> Option<Agent> {
    let agent = file.table_if_written("agent").map(|fields| read_agent(fields, folder, problems));
    let offers = file.named("offer");
    let place = offers.first().map(|(name, _)| name.place);
    let offers = offers.into_iter().filter_map(|(name, fields)| offer(name, fields, problems)).collect();
    match (agent, place) {
        (Some(agent), _) => agent.map(|agent| Agent { offers, ..agent }),
        (None, Some(place)) => {
            let error = problems.error(place, "an offer is an agent's, and the file has no [agent]");
            error.hint("write [agent] with its `server` and `folder`");
            None
        }
        (None, None) => None,
    }
}

fn read_agent(mut fields: Fields, folder: &Path, problems: &mut Problems) -> Option<Agent> {
    let place = fields.place();
    let place_of_server = fields.place_of("server");
    let servers = fields.list::<Dialed>("server");
    let own: Option<PathBuf> = fields.maybe("folder");
    let carriers = carriers(&mut fields, problems);
    let proxy = proxy(&mut fields, folder, problems);
    fields.done();
    if servers.len() > LINKS_MAX {
        let message = "`server` has more than two addresses, and an agent has two links at the most";
        problems.error(place_of_server, message);
    }
    let servers: Option<Vec<Address>> =
        servers.into_iter().map(|server| dialed(server, "server", problems)).collect();
    Some(Agent {
        servers: servers.filter(|servers| !servers.is_empty())?,
        folder: folder.join(own?),
        carriers,
        proxy,
        place,
        offers: Vec::new(),
    })
}

fn carriers(fields: &mut Fields, problems: &mut Problems) -> Vec<Carrier> {
    let place = fields.place_of("carriers");
    let Some(written) = fields.take::<Vec<Spot<Value>>>("carriers") else {
        return vec![Carrier::Quic, Carrier::Tls, Carrier::WebSocket];
    };
    let carrier = |item: &Spot<Value>| match item.value {
        Value::Word(word) => Carrier::from_word(word),
        _ => None,
    };
    let carriers: Vec<Carrier> = written.value.iter().filter_map(carrier).collect();
    if written.value.is_empty() {
        problems.error(place, "`carriers` is empty: the link could go over nothing");
    }
    carriers
}

fn proxy(fields: &mut Fields, folder: &Path, problems: &mut Problems) -> Option<Proxy> {
    let (lacks_proxy, lacks_user) = (fields.lacks("proxy"), fields.lacks("proxy_user"));
    let address = fields.take::<Dialed>("proxy");
    let user = fields.take::<String>("proxy_user");
    if let Some(user) = user.as_ref().filter(|_| lacks_proxy) {
        problems.error(user.place, "`proxy_user` means nothing without `proxy`");
    }
    // RFC 7617 §2: it would end the name.
    if let Some(user) = user.as_ref().filter(|user| user.value.contains(':')) {
        problems.error(user.place, "`proxy_user` may have no colon");
    }
    let password_file = fields.take("proxy_password_file").map(|Taken { value, place, .. }| {
        if lacks_user {
            let message = "`proxy_password_file` means nothing without `proxy_user`, whose password it is";
            problems.error(place, message);
        }
        files::found("proxy_password_file", Spot { value, place }, folder, problems)
    });
    let Taken { value: Dialed { address, scheme }, place, .. } = address?;
    if scheme == Some(Scheme::Https) || !matches!(address, Address::Socket(_) | Address::Name { .. }) {
        let error = problems.error(place, "`proxy` is a proxy of plain HTTP");
        error.hint("write \"http://proxy.internal:3128\"; what goes through it is encrypted by itself");
        return None;
    }
    Some(Proxy { address, user: user.map(|user| user.value), password_file })
}

fn offer(name: Spot<String>, mut fields: Fields, problems: &mut Problems) -> Option<Offer> {
    let to = fields.take::<Service>("to");
    fields.done();
    // What is no name at all has been told.
    if is_name(&name.value) && !is_far_name(&name.value) {
        let message = format!(
            "\"{}\" is too long for the name of an offer, which has 63 characters at the most",
            name.value
        );
        problems.error(name.place, message);
    }
    let Taken { value: to, place, .. } = to?;
    if let Service::Stream(address @ Address::Agent(_)) = &to {
        of_an_agent(address, "to", place, problems);
        return None;
    }
    Some(Offer { name: name.value, to })
}

/// An address that a socket of this machine reaches.
fn dialed(written: Spot<Dialed>, key: &str, problems: &mut Problems) -> Option<Address> {
    let Spot { value: Dialed { address, scheme }, place } = written;
    if scheme.is_some() {
        let error = problems.error(place, format!("`{key}` is an address, not a URL"));
        error.hint(format!("write \"{address}\""));
        return None;
    }
    if let Address::Agent(_) | Address::Group(_) = address {
        of_an_agent(&address, key, place, problems);
        return None;
    }
    Some(address)
}

fn of_an_agent(address: &Address, key: &str, place: Place, problems: &mut Problems) {
    problems.error(place, format!("`{key}`: \"{address}\" is offered by an agent, and agents reach none"));
}

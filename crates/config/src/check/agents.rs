//! Agents: what is said of them, and what they need.

use tieline_base::Address;

use crate::config::Live;
use crate::problem::Problems;
use crate::protocol::Protocol;

/// Tells of endpoints behind agents where no agent can link up, and of files that are a server's and an
/// agent's at once.
pub(crate) fn agents(live: &Live, problems: &mut Problems) {
    if let (Some(agent), Some(listener)) = (&live.agent, live.listeners.first()) {
        let message = format!("the file is an agent's, and listener \"{}\" is a server's", listener.name);
        problems.error(agent.place, message).hint("write two files, and run both");
    }
    if live.listeners.iter().any(|listener| listener.protocol == Protocol::Tunnel) || problems.any_error() {
        return;
    }
    let endpoints = live.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
    if let Some(far) =
        endpoints.into_iter().find(|it| matches!(it.address, Address::Agent(_) | Address::Group(_)))
    {
        let message =
            format!("endpoint \"{}\" is behind an agent, and no agent can link up here", far.address);
        problems.error(far.place, message).hint("write a listener with protocol = \"tunnel\"");
    }
}

//! A server, an agent, and the cable between them.

use std::net::SocketAddr;

use serde_json::Value;
use tieline_testkit::{Agent, Cable, PATIENCE, Tieline, wait_until};

use crate::support::live;

/// A server with a listener for agents, `gate`, and one that leads to what the agent `plant-7` offers as
/// `service`.
pub(crate) struct Site {
    pub(crate) agent: Agent,
    pub(crate) cable: Cable,
    pub(crate) server: Tieline,
}

/// A server alone, and the cable to its `gate`.
pub(crate) fn server(config: &str) -> (Tieline, Cable) {
    server_draining("1s", config)
}

/// [`server`] whose `gate` gives links so long to end.
pub(crate) fn server_draining(drain: &str, config: &str) -> (Tieline, Cable) {
    let server = Tieline::start(&format!(
        "[listener.gate]\nbind = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n\
         timeouts = {{ drain = \"{drain}\" }}\n\
         [upstream.service]\nendpoints = [\"agent:plant-7/service\"]\n{config}"
    ));
    let cable = Cable::to(server.listener_address("gate"));
    (server, cable)
}

/// The listener `web` of protocol `tcp` that leads there.
pub(crate) const TCP: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
                              [[listener.web.route]]\nupstream = \"service\"\naccess = \"public\"\n";

/// The offer of what listens at `to`.
pub(crate) fn offer(to: SocketAddr) -> String {
    format!("[offer.service]\nto = \"{to}\"\n")
}

impl Site {
    /// With the listener `web` as `config` has it, and an agent that is linked up and offers `to`.
    pub(crate) fn start(config: &str, to: SocketAddr) -> Site {
        Site::of(server(config), to)
    }

    /// [`Site::start`] with that server.
    pub(crate) fn of((server, cable): (Tieline, Cable), to: SocketAddr) -> Site {
        let agent = Agent::join(&server, "plant-7", cable.address(), &offer(to));
        let site = Site { agent, cable, server };
        site.await_link();
        site
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.listener_address("web")
    }

    /// The row of the link that is carried, once there is one and no other.
    #[track_caller]
    pub(crate) fn await_link(&self) -> Value {
        assert!(wait_until(PATIENCE, || self.links().len() == 1), "no link: {:#?}", live(&self.server, ""));
        self.links().remove(0)
    }

    /// The rows of links that are carried.
    pub(crate) fn links(&self) -> Vec<Value> {
        live(&self.server, "listener=gate stage=relay")
    }
}

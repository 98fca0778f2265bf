//! WebSockets, and reloads that do not concern them.

use tieline_testkit::{Tieline, free_port, loopback};

use crate::arguments::Options;
use crate::backend::Echo;
use crate::config::TIELINE_SERVER;
use crate::crowd::Crowd;
use crate::machine;
use crate::scenario::managed;
use crate::table::{JUDGED, Table, Verdict};

const WANTED: usize = 10_000;
const RELOADS: usize = 100;
/// A hundredth of them says something beside each reload, in turn.
const SHARE: usize = 100;
const BACKEND_PORTS: usize = 4;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
    let echo = Echo::start(BACKEND_PORTS)?;
    let (live, other) = (loopback(free_port()), loopback(free_port()));
    let endpoints: Vec<String> = echo.addresses().iter().map(|address| format!("\"{address}\"")).collect();
    let config = |changing: std::net::SocketAddr| {
        format!(
            "{TIELINE_SERVER}\n[listener.live]\nbind = \"{live}\"\nprotocol = \"http\"\n\n\
             [[listener.live.route]]\npath = \"/socket\"\nupstream = \"sockets\"\naccess = \"public\"\n\n\
             [[listener.live.route]]\nname = \"changing\"\npath = \"/changing\"\nupstream = \"changing\"\n\
             access = \"public\"\n\n\
             [listener.other]\nbind = \"{other}\"\nprotocol = \"http\"\n\n\
             [[listener.other.route]]\nupstream = \"changing\"\naccess = \"public\"\n\n\
             [upstream.sockets]\nendpoints = [{}]\nbalance = \"round-robin\"\n\n\
             [upstream.changing]\nendpoints = [\"{changing}\"]\n",
            endpoints.join(", ")
        )
    };
    let tieline = Tieline::start_from(&machine::tieline_binary()?, &config(loopback(free_port())));
    let count = options.amount(WANTED).min(machine::connections_max());
    let mut crowd = Crowd::upgraded(live, "/socket", count)?;
    let (mut wrong, mut refused) = (0, 0);
    for reload in 0..options.amount(RELOADS) {
        let said = tieline.try_reload(&config(loopback(free_port())));
        refused += usize::from(!said.success());
        wrong += crowd.wrong_echoes(reload % SHARE, SHARE);
    }
    wrong += crowd.wrong_echoes(0, 1);
    let title = format!("{count} WebSockets, {} reloads of other routes", options.amount(RELOADS));
    let mut table = Table::new(title, &JUDGED);
    let clean = |count: usize| Verdict::holds(count == 0);
    let ended = crowd.ended();
    table.judge("dropped, reset among them", format!("{ended}, {}", crowd.reset()), "0", clean(ended));
    table.judge("wrong echoes", wrong.to_string(), "0", clean(wrong));
    table.judge("reloads refused", refused.to_string(), "0", clean(refused));
    Ok(vec![table])
}

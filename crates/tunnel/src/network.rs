//! Which network this machine is in, so far as that says which ways out are open.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tieline_base::Clock;
use tieline_wire::tunnel::NetworkId;

/// Looks after the network of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Network {
    id: NetworkId,
    /// How long the machine has slept since it was started.
    slept: Duration,
}

/// How often it is looked. Costs two small reads of what the kernel has in memory.
const EVERY: Duration = Duration::from_secs(2);

/// A sleep that counts: shorter ones are differences between two readings of clocks.
const SLEEP_MIN: Duration = Duration::from_secs(1);

impl Network {
    /// As it is now.
    pub(crate) fn now() -> Network {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Network {
            id: identified(&read("/proc/net/route"), &read("/proc/net/ipv6_route")),
            slept: Clock::slept(),
        }
    }

    pub(crate) fn id(self) -> NetworkId {
        self.id
    }

    /// Waits until the machine is in another network, or has slept; answers how it is then.
    pub(crate) async fn changed(self) -> Network {
        loop {
            tokio::time::sleep(EVERY).await;
            let now = Network::now();
            if now.id != self.id || now.slept > self.slept + SLEEP_MIN {
                return now;
            }
        }
    }
}

/// By the lines of the kernel's tables that lead everywhere: interface and gateway.
fn identified(ipv4: &str, ipv6: &str) -> NetworkId {
    // proc(5): interface, destination and gateway in hexadecimal.
    let v4 = ipv4.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (interface, to, gateway) = (words.next()?, words.next()?, words.next()?);
        (to == "00000000").then_some((interface, gateway))
    });
    // Destination and its length, source and its length, gateway, four numbers, interface.
    let v6 = ipv6.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, _, gateway, .., interface] = words[..] else { return None };
        (interface != "lo").then_some((interface, gateway))
    });
    let mut ways: Vec<(&str, &str)> = v4.chain(v6).collect();
    ways.sort_unstable();
    let mut hasher = DefaultHasher::new();
    ways.hash(&mut hasher);
    NetworkId(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::{Network, identified};

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";
    const HOME: &str = "wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\n";
    const LOCAL: &str = "wlan0\t0000A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\n";
    const SITE: &str = "eth0\t00000000\t0101000A\t0003\t0\t0\t100\t00000000\n";
    const HOME6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 00000001 00000000 00000003 wlan0\n";
    const LOOPBACK6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n";

    #[test]
    fn a_network_is_known_by_its_gateways_and_nothing_else() {
        let home = identified(&[HEAD, HOME, LOCAL].concat(), "");
        assert_eq!(home, identified(&[HEAD, LOCAL, HOME].concat(), LOOPBACK6));
        assert_ne!(home, identified(&[HEAD, SITE].concat(), ""));
        assert_ne!(home, identified(&[HEAD, HOME].concat(), HOME6));
        assert_ne!(home, identified(HEAD, ""));
        for torn in ["a", "a b", "a 00000000", "00 00 00"] {
            assert_eq!(identified(torn, torn), identified("", ""), "{torn}");
        }
        assert_eq!(Network::now().id(), Network::now().id());
    }
}

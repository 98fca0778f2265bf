//! A set of IP networks that answers "is this address in it" by one binary search.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks, held as sorted ranges that do not overlap.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Whether `ip` is in the set. An IPv4-mapped IPv6 address counts as its IPv4 self.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }
}

fn within<N: Ord + Copy>(ranges: &[(N, N)], ip: N) -> bool {
    let at_or_before = ranges.partition_point(|(first, _)| *first <= ip);
    at_or_before > 0 && ranges[at_or_before - 1].1 >= ip
}

fn merged<N: Ord + Copy>(mut ranges: Vec<(N, N)>) -> Vec<(N, N)> {
    ranges.sort_unstable();
    let mut merged: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::Networks;
    use ipnet::{IpNet, Ipv4Net, Ipv6Net};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn network() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| {
            // Few distinct leading bits, so that networks overlap and addresses hit them.
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(bits & 0x0303_ffff), length).unwrap())
        });
        let v6 = (any::<u128>(), 0u8..=128).prop_map(|(bits, length)| {
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(bits >> 100), length).unwrap())
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_network(
            networks in prop::collection::vec(network(), 0..12),
            v4 in any::<u32>(),
            v6 in any::<u128>(),
        ) {
            let set: Networks = networks.iter().copied().collect();
            let asked = [
                IpAddr::V4(Ipv4Addr::from_bits(v4 & 0x0303_ffff)),
                IpAddr::V6(Ipv6Addr::from_bits(v6 >> 100)),
            ];
            // The addresses themselves, and the edges of every network.
            let edges = networks.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for ip in edges.chain(asked) {
                let ip = ip.to_canonical();
                prop_assert_eq!(set.contains(ip), networks.iter().any(|net| net.contains(&ip)), "{}", ip);
            }
        }
    }
}

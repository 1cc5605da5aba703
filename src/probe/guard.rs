//! Where a check may go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::model::Subnet;

/// Addresses that have an answer for everybody on a machine of some cloud: credentials, mostly. Link-local
/// ones are refused anyway.
const METADATA: [IpAddr; 4] = [
    // Alibaba Cloud
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle Cloud
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // Azure
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Decides where a check may go. Whatever is not of use to reach an instance on another machine is refused:
/// this machine, its links, groups, nobody, and the places where clouds keep what they know of a machine.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Allowed, whatever they are.
    allowed: Vec<Subnet>,
    /// Ports that may be asked.
    ports: Vec<RangeInclusive<u16>>,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard::new(Vec::new(), vec![1..=u16::MAX])
    }
}

impl Guard {
    /// Allows these networks besides, and these ports only.
    pub fn new(allowed: Vec<Subnet>, ports: Vec<RangeInclusive<u16>>) -> Guard {
        Guard { allowed, ports }
    }

    /// True if a check may go there. Names are resolved before: it is asked about the address that is
    /// connected to.
    pub fn allows(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        if port == 0 || !self.ports.iter().any(|ports| ports.contains(&port)) {
            return false;
        }
        if self.allowed.iter().any(|network| network.contains(address)) {
            return true;
        }
        let inner = match address {
            IpAddr::V6(address) => carried(address),
            IpAddr::V4(_) => None,
        };
        is_another_machine(address) && inner.is_none_or(is_another_machine)
    }
}

fn is_another_machine(address: IpAddr) -> bool {
    if METADATA.contains(&address) || address.is_unspecified() || address.is_loopback() {
        return false;
    }
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.octets().starts_with(&[0]))
        }
        IpAddr::V6(v6) => !(v6.is_unicast_link_local() || v6.is_multicast()),
    }
}

/// The IPv4 address that a translator or tunnel would make of this one (RFC 6052 §2.1, RFC 3056 §2, and
/// the compatible ones of RFC 4291 §2.5.5.1, which nobody should have).
fn carried(address: Ipv6Addr) -> Option<IpAddr> {
    let last_four = |[.., a, b, c, d]: [u8; 16]| Ipv4Addr::new(a, b, c, d);
    let bytes = address.octets();
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => Some(last_four(bytes).into()),
        [0x2002, ..] => {
            let [_, _, a, b, c, d, ..] = bytes;
            Some(Ipv4Addr::new(a, b, c, d).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(guard: &Guard, address: &str) -> bool {
        guard.allows(address.parse().expect("an address"), 80)
    }

    #[test]
    fn this_machine_its_links_and_metadata_are_refused_in_every_spelling() {
        let guard = Guard::default();
        for refused in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(!allows(&guard, refused), "{refused}");
        }
        for other_machine in [
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.9",
            "100.64.0.1",
            "8.8.8.8",
            "::ffff:10.0.0.1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(allows(&guard, other_machine), "{other_machine}");
        }
    }

    #[test]
    fn networks_and_ports_are_as_an_operator_says() {
        let networks =
            ["127.0.0.0/8", "fe80::/10", "169.254.7.7"].map(|text| text.parse().expect("a network"));
        let guard = Guard::new(networks.into(), vec![80..=80, 8_000..=8_999]);
        for allowed in ["127.0.0.1", "127.255.0.1", "fe80::1", "169.254.7.7", "10.0.0.1"] {
            assert!(allows(&guard, allowed), "{allowed}");
        }
        for refused in ["169.254.169.254", "::1", "128.0.0.0.0"] {
            assert!(refused.parse::<IpAddr>().is_err() || !allows(&guard, refused));
        }
        let at = |port| guard.allows(IpAddr::from([10, 0, 0, 1]), port);
        assert!(at(8_000) && at(8_999) && !at(7_999) && !at(9_000) && !at(0) && !at(22));
    }
}

//! A range of addresses.

use std::net::IpAddr;
use std::str::FromStr;

/// Addresses with the same beginning: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

/// The text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address, or a network such as 127.0.0.0/8, is expected")]
pub struct WrongSubnet;

impl FromStr for Subnet {
    type Err = WrongSubnet;

    fn from_str(text: &str) -> Result<Subnet, WrongSubnet> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_cause| WrongSubnet)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_cause| WrongSubnet)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(longest);
        (bits <= longest)
            .then_some(Subnet { address, bits })
            .ok_or(WrongSubnet)
    }
}

impl Subnet {
    /// True for an address that begins so.
    pub fn contains(&self, other: IpAddr) -> bool {
        let same_bits = match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        same_bits >= u32::from(self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_hold_what_begins_so() {
        for wrong in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.0/",
            "::/129",
            "10.0.0.0/8/8",
            "10.0.0",
        ] {
            assert_eq!(wrong.parse::<Subnet>(), Err(WrongSubnet), "{wrong:?}");
        }
        let all: Subnet = "0.0.0.0/0".parse().expect("a network");
        assert!(all.contains(IpAddr::from([1, 2, 3, 4])) && !all.contains(IpAddr::from([0; 16])));
        let some: Subnet = "10.1.0.0/15".parse().expect("a network");
        assert!(
            some.contains(IpAddr::from([10, 0, 255, 255])) && !some.contains(IpAddr::from([10, 2, 0, 0]))
        );
        let one: Subnet = "fe80::1".parse().expect("a network");
        assert!(one.contains("fe80::1".parse().expect("an address")));
        assert!(!one.contains("fe80::2".parse().expect("an address")));
    }
}

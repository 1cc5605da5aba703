//! Texts of settings to values. An error says what is expected; the caller adds name and value.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use crate::model::Subnet;

/// A text that is never shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from logs.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

pub(super) type Parsed<T> = Result<T, String>;

pub(super) fn text(value: &str) -> Parsed<String> {
    Ok(value.to_owned())
}

pub(super) fn secret(value: &str) -> Parsed<Secret> {
    if value.len() < 8 {
        return Err("at least 8 characters are expected".to_owned());
    }
    Ok(Secret::new(value.to_owned()))
}

pub(super) fn port(value: &str) -> Parsed<u16> {
    value
        .parse()
        .map_err(|_| "a port (0 to 65535) is expected".to_owned())
}

pub(super) fn positive(value: &str) -> Parsed<u64> {
    value
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "a whole number from 1 is expected".to_owned())
}

pub(super) fn count(value: &str) -> Parsed<usize> {
    positive(value).and_then(|n| usize::try_from(n).map_err(|_| "a smaller number is expected".to_owned()))
}

pub(super) fn within(value: &str, least: u64, most: u64) -> Parsed<u64> {
    let expected = || format!("a whole number from {least} to {most} is expected");
    value
        .parse()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(expected)
}

pub(super) fn boolean(value: &str) -> Parsed<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

pub(super) fn ip(value: &str) -> Parsed<IpAddr> {
    if value == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    value
        .parse()
        .map_err(|_| "an IP address such as 0.0.0.0 or 127.0.0.1 is expected".to_owned())
}

/// `host:port`, the host a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn host_port(value: &str) -> Parsed<String> {
    let expected = || "host:port (such as 10.0.0.1:9848) is expected".to_owned();
    let (host, port) = value.rsplit_once(':').ok_or_else(expected)?;
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    let is_name = !host.contains([':', '[', ']', '/', ' ']) && !host.is_empty() && host.len() <= 255;
    if !(is_v6 || is_name) || port.parse::<u16>().ok().filter(|port| *port > 0).is_none() {
        return Err(expected());
    }
    Ok(value.to_owned())
}

/// Bytes with an optional unit: `536870912`, `512MiB`, `512M`, `1g`. Units are powers of 1024.
pub(super) fn bytes(value: &str) -> Parsed<u64> {
    let expected = || "a number of bytes, with KiB, MiB or GiB if you like, is expected".to_owned();
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = value.get(digits.len()..).unwrap_or_default().to_ascii_lowercase();
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| expected())?;
    number.checked_mul(factor).ok_or_else(expected)
}

/// A comma list of networks.
pub(super) fn networks(value: &str) -> Parsed<Vec<Subnet>> {
    let each = value.split(',').map(|text| text.trim().parse::<Subnet>());
    each.collect::<Result<_, _>>()
        .map_err(|_| "a comma list of networks such as 127.0.0.0/8 is expected".to_owned())
}

/// A comma list of ports and ranges of them.
pub(super) fn port_ranges(value: &str) -> Parsed<Vec<RangeInclusive<u16>>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
        (!range.is_empty() && *range.start() > 0).then_some(range)
    };
    let ranges: Option<Vec<_>> = value.split(',').map(range).collect();
    ranges.ok_or_else(|| "a comma list of ports such as 80,8000-8999 is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        assert_eq!(bytes("536870912"), Ok(512 << 20));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("512 m"), Ok(512 << 20));
        assert_eq!(bytes("1g"), Ok(1 << 30));
        assert!(bytes("x").is_err());
        assert!(bytes("").is_err());
        assert!(bytes("-1").is_err());
        assert!(bytes("99999999999999g").is_err());
        assert!(bytes("1.5g").is_err());
    }

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:9848", "node-1.example:9848", "[::1]:9848"] {
            assert_eq!(host_port(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "::1:9848",
            "http://h:1",
            "a b:1",
        ] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_and_networks() {
        assert_eq!(port_ranges("80, 8000-8999"), Ok(vec![80..=80, 8_000..=8_999]));
        for bad in ["", "0", "80-", "90-80", "65536", "a", "1-2-3", "80,"] {
            assert!(port_ranges(bad).is_err(), "{bad}");
        }
        assert_eq!(networks("127.0.0.0/8, ::1").map(|all| all.len()), Ok(2));
        assert!(networks("").is_err() && networks("10.0.0.0/8,x").is_err());
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hunter22".to_owned())), "(hidden)");
    }
}

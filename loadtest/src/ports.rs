//! Free port pairs: HTTP and, 1,000 above it, gRPC.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// What a Nacos client adds to the HTTP port to find the gRPC port.
pub const GRPC_OFFSET: u16 = 1000;

/// HTTP ports lie in these thousands, the gRPC ports in the odd ones between: all of them below the
/// kernel's range for outgoing connections, which begins at 32768, so that no client takes them first.
const THOUSANDS: [u16; 5] = [20, 22, 24, 26, 28];

/// Picks `count` HTTP ports that are free now, together with their gRPC ports.
///
/// Between this look and the server's own bind another process may take one; runs that go on at the same
/// time therefore begin at different places, by process id. Fails if the range is used up.
pub fn pairs(count: usize) -> io::Result<Vec<u16>> {
    let candidates = THOUSANDS
        .iter()
        .flat_map(|thousand| (0..1000).map(move |port| thousand * 1000 + port));
    let total = THOUSANDS.len() * 1000;
    let skip = (std::process::id() as usize).wrapping_mul(37) % total;
    let found: Vec<u16> = candidates
        .cycle()
        .skip(skip)
        .take(total)
        .filter(|port| pair_is_free(*port))
        .take(count)
        .collect();
    if found.len() < count {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free pair of ports between 20000 and 29999",
        ));
    }
    Ok(found)
}

fn pair_is_free(http: u16) -> bool {
    [http, http + GRPC_OFFSET]
        .iter()
        .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_pair_is_not_given_out() {
        let first = pairs(1).expect("free ports")[0];
        let _grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, first + GRPC_OFFSET)).expect("was free");
        let more = pairs(3).expect("free ports");
        assert!(!more.contains(&first), "{first} in {more:?}");
        assert_eq!(more.len(), 3);
    }
}

//! Cuts links where network namespaces are refused: a TCP proxy in front of each node's gRPC port.
//!
//! Each node advertises its proxy's address, so all that peers send it passes there. Who is on the other
//! end is found out from the kernel: the dialling socket's inode (`/proc/net/tcp`) is open in one of the
//! nodes (`/proc/<pid>/fd`). A cut direction is not forwarded but held back, as TCP would do over a broken
//! link; what was held arrives after healing, unless a node has given the connection up meanwhile.
//! Unlike a broken link it cannot keep a connection from being made, only from carrying anything.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::node::Spec;

/// Bytes carried at once.
const PIECE_BYTES: usize = 64 << 10;

/// The proxies of all nodes.
#[derive(Debug)]
pub struct Cutter {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Directions that carry nothing now.
    cut: watch::Sender<HashSet<(usize, usize)>>,
    /// Process of each node, by place.
    pids: Mutex<Vec<Option<u32>>>,
}

impl Cutter {
    /// Starts a proxy per node and lets the node advertise it.
    pub async fn start(specs: &mut [Spec]) -> anyhow::Result<Self> {
        let (cut, _) = watch::channel(HashSet::new());
        let shared = Arc::new(Shared {
            cut,
            pids: Mutex::new(vec![None; specs.len()]),
        });
        let mut tasks = Vec::new();
        for (place, spec) in specs.iter_mut().enumerate() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .context("a port for a proxy")?;
            spec.advertised = listener.local_addr()?.to_string();
            let behind = SocketAddr::new(spec.host, spec.grpc);
            tasks.push(tokio::spawn(accept(Arc::clone(&shared), listener, place, behind)));
        }
        Ok(Self { shared, tasks })
    }

    /// Cuts or heals one direction.
    pub fn set(&self, from: usize, to: usize, cut: bool) {
        self.shared.cut.send_modify(|all| {
            if cut {
                all.insert((from, to));
            } else {
                all.remove(&(from, to));
            }
        });
    }

    /// Notes the nodes' present processes.
    pub fn know(&self, pids: &[Option<u32>]) {
        *self.shared.pids.lock().unwrap_or_else(PoisonError::into_inner) = pids.to_vec();
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, place: usize, behind: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, dialler)) => {
                tokio::spawn(carry(Arc::clone(&shared), stream, dialler, place, behind));
            }
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Carries one connection until either side ends it.
async fn carry(shared: Arc<Shared>, front: TcpStream, dialler: SocketAddr, to: usize, behind: SocketAddr) {
    let pids = shared.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // A dialler that is no node (the founder asking itself, a tool) is never cut.
    let from = place_of(dialler, &pids).unwrap_or(to);
    let Ok(back) = TcpStream::connect(behind).await else {
        return;
    };
    let (_, _) = (front.set_nodelay(true), back.set_nodelay(true));
    let (front_read, front_write) = front.into_split();
    let (back_read, back_write) = back.into_split();
    let there = one_way(shared.cut.subscribe(), front_read, back_write, (from, to));
    let back_again = one_way(shared.cut.subscribe(), back_read, front_write, (to, from));
    // The end of one direction ends the connection: peers do not use half-closed ones.
    tokio::select! {
        () = there => {}
        () = back_again => {}
    }
}

async fn one_way(
    mut cut: watch::Receiver<HashSet<(usize, usize)>>,
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    direction: (usize, usize),
) {
    let mut piece = vec![0_u8; PIECE_BYTES];
    loop {
        let Ok(count) = read.read(&mut piece).await else {
            return;
        };
        if cut.wait_for(|cut| !cut.contains(&direction)).await.is_err() || count == 0 {
            return;
        }
        if write.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

/// Which node's process holds the local socket with this address.
fn place_of(dialler: SocketAddr, pids: &[Option<u32>]) -> Option<usize> {
    let inode = inode_of(dialler).ok().flatten()?;
    let name = format!("socket:[{inode}]");
    pids.iter()
        .position(|pid| pid.is_some_and(|pid| holds(pid, &name).unwrap_or(false)))
}

/// Inode of the socket bound to this IPv4 address, from `/proc/net/tcp`: column 2 is the local address as
/// little-endian hexadecimal, column 10 the inode.
fn inode_of(address: SocketAddr) -> io::Result<Option<String>> {
    let SocketAddr::V4(address) = address else {
        return Ok(None);
    };
    let wanted = format!(
        "{:08X}:{:04X}",
        u32::from_le_bytes(address.ip().octets()),
        address.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let local = columns.nth(1)?;
        let inode = columns.nth(7)?;
        // An earlier connection from this port that is not forgotten yet belongs to nobody: 0.
        (local == wanted && inode != "0").then(|| inode.to_owned())
    }))
}

fn holds(pid: u32, name: &str) -> io::Result<bool> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        if std::fs::read_link(entry?.path()).is_ok_and(|link| link.to_string_lossy() == name) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadtest::process::Scratch;
    use tokio::time::timeout;

    /// One direction cut, the other open; held bytes arrive after healing.
    #[tokio::test]
    async fn a_direction_is_cut_alone_and_loses_nothing() {
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listen");
        let scratch = Scratch::new(None, "jepsen-cutter").expect("scratch");
        let mut spec = Spec::lone("x".into(), 1, 20000, scratch.path().join("n")).expect("spec");
        spec.grpc = behind.local_addr().expect("bound").port();
        let mut specs = [spec.clone(), spec];
        let cutter = Cutter::start(&mut specs).await.expect("proxies");
        // This process is node 1, the dialler; node 2 listens behind its proxy.
        cutter.know(&[Some(std::process::id()), None]);
        let mut dialled = TcpStream::connect(&specs[1].advertised).await.expect("proxy");
        let (mut accepted, _) = behind.accept().await.expect("carried through");
        let mut byte = [0_u8];

        dialled.write_all(b"a").await.expect("write");
        accepted.read_exact(&mut byte).await.expect("carried");
        cutter.set(0, 1, true);
        dialled.write_all(b"b").await.expect("write");
        accepted.write_all(b"c").await.expect("write");
        dialled
            .read_exact(&mut byte)
            .await
            .expect("the other direction is open");
        assert_eq!(byte, *b"c");
        assert!(
            timeout(Duration::from_millis(50), accepted.read_exact(&mut byte))
                .await
                .is_err(),
            "cut"
        );
        cutter.set(0, 1, false);
        accepted.read_exact(&mut byte).await.expect("held bytes arrive");
        assert_eq!(byte, *b"b");
    }
}

//! Clients that write one after the other, each to a key of its own, and remember what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cluster::PATIENCE;

/// What a client was told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// 200.
    Done,
    /// 503, or there was no connection: it must be nowhere.
    NotDone,
    /// 504, or the answer was lost: it may be there.
    Unknown,
}

/// Writers that run.
pub(crate) struct Writers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<(String, Vec<Said>)>>,
    /// Acknowledged writes of each writer.
    done: Vec<watch::Receiver<usize>>,
}

struct Shared {
    addresses: Mutex<Vec<SocketAddr>>,
    stop: watch::Sender<bool>,
}

impl Writers {
    pub(crate) fn start(count: usize, addresses: Vec<SocketAddr>) -> Writers {
        let (stop, _) = watch::channel(false);
        let shared = Arc::new(Shared {
            addresses: Mutex::new(addresses),
            stop,
        });
        let (mut tasks, mut done) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (counter, counted) = watch::channel(0);
            tasks.push(tokio::spawn(write(shared.clone(), number, counter)));
            done.push(counted);
        }
        Writers { shared, tasks, done }
    }

    /// From now on these nodes are written to.
    pub(crate) fn reach(&self, addresses: Vec<SocketAddr>) {
        *self.shared.addresses.lock().expect("no writer panics") = addresses;
    }

    /// Waits until each writer has had this many more writes acknowledged.
    pub(crate) async fn progress(&self, writes: usize) {
        for done in &self.done {
            let mut done = done.clone();
            let target = *done.borrow() + writes;
            let reached = tokio::time::timeout(PATIENCE, done.wait_for(|done| *done >= target)).await;
            reached.expect("writes go on").expect("no writer panics");
        }
    }

    pub(crate) async fn stop(self) -> Record {
        self.shared.stop.send_replace(true);
        let mut record = Record::default();
        for task in self.tasks {
            let (key, said) = task.await.expect("no writer panics");
            record.0.insert(key, said);
        }
        record
    }
}

/// What every writer was told, in order: the n-th write of a key has the value n.
#[derive(Debug, Default)]
pub(crate) struct Record(BTreeMap<String, Vec<Said>>);

impl Record {
    /// Every node must have, of each key, the last acknowledged write, or one that is not known.
    pub(crate) async fn check(&self, nodes: &[SocketAddr]) {
        let mut wrong = Vec::new();
        for (key, said) in &self.0 {
            let last = said
                .iter()
                .rposition(|said| *said == Said::Done)
                .expect("some were acknowledged");
            for node in nodes {
                let target = format!("{CONFIGS}?dataId={key}&group=scaling&consistency=linearizable");
                let (status, body) = request(*node, "GET", &target, "")
                    .await
                    .expect("a linearizable read");
                assert_eq!(status, 200, "{key} on {node}: {body}");
                let found: usize = body
                    .split(' ')
                    .next()
                    .and_then(|n| n.parse().ok())
                    .expect("a number");
                if found != last && said[found] != Said::Unknown {
                    wrong.push(format!(
                        "{key} on {node}: has write {found} ({:?}), acknowledged was {last}",
                        said[found]
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

async fn write(shared: Arc<Shared>, number: usize, done: watch::Sender<usize>) -> (String, Vec<Said>) {
    let key = format!("writer-{number}");
    let mut said = Vec::new();
    let mut place = number;
    while !*shared.stop.borrow() {
        let address = {
            let addresses = shared.addresses.lock().expect("nobody panics");
            addresses[place % addresses.len()]
        };
        let content = format!("{} {}", said.len(), "x".repeat(200));
        let outcome = publish(address, &key, &content).await;
        said.push(outcome);
        if outcome == Said::Done {
            done.send_modify(|done| *done += 1);
        } else {
            // Another node may do.
            place += 1;
            tokio::task::yield_now().await;
        }
    }
    (key, said)
}

const CONFIGS: &str = "/nacos/v1/cs/configs";

async fn publish(address: SocketAddr, key: &str, content: &str) -> Said {
    let form = format!("dataId={key}&group=scaling&content={}", content.replace(' ', "+"));
    match request(address, "POST", CONFIGS, &form).await {
        Ok((200, body)) if body == "true" => Said::Done,
        Ok((503, _)) => Said::NotDone,
        Ok((504, _)) => Said::Unknown,
        Ok((status, body)) => panic!("publish: {status} {body}"),
        Err(Lost::BeforeSending) => Said::NotDone,
        Err(Lost::Afterwards) => Said::Unknown,
    }
}

#[derive(Debug)]
pub(crate) enum Lost {
    BeforeSending,
    Afterwards,
}

/// As [`request`], of a node that runs; the target is below `/nacos`.
pub(crate) async fn call(address: SocketAddr, method: &str, target: &str, form: &str) -> (u16, String) {
    let answer = request(address, method, &format!("/nacos{target}"), form).await;
    answer.unwrap_or_else(|lost| panic!("{method} {target} at {address}: {lost:?}"))
}

/// One request on a connection of its own: status and body.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    form: &str,
) -> Result<(u16, String), Lost> {
    let mut socket = TcpStream::connect(address)
        .await
        .map_err(|_| Lost::BeforeSending)?;
    let length = form.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{form}"
    );
    socket
        .write_all(request.as_bytes())
        .await
        .map_err(|_| Lost::Afterwards)?;
    let mut bytes = Vec::new();
    socket
        .read_to_end(&mut bytes)
        .await
        .map_err(|_| Lost::Afterwards)?;
    let text = String::from_utf8(bytes).map_err(|_| Lost::Afterwards)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(Lost::Afterwards)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(Lost::Afterwards)?;
    Ok((status, body.to_owned()))
}

//! The three-node example of the announcement, word for word, for instances: register on each, list on each.

use std::path::Path;
use std::time::Duration;

use loadtest::naming::{INSTANCE, Listed};
use loadtest::process::Scratch;
use tokio::time::{Instant, sleep};

use crate::announcement::formed;
use crate::api::{Client, Outcome, Reply};
use crate::cluster::HEAL_PATIENCE;
use crate::node::POLL;
use crate::verdict::Report;

/// A registration on one node is visible on another within this time (in practice: milliseconds).
const SPREAD: Duration = Duration::from_secs(2);

/// Port and address of the instance that is registered on each node.
const INSTANCES: [(u16, &str); 3] = [
    (8000, "192.168.1.11"),
    (8001, "192.168.1.12"),
    (8002, "192.168.1.13"),
];

/// What each node is asked.
const LIST: &str =
    "/nacos/v1/ns/instance/list?serviceName=foo@@nacos.test.001&groupName=foo&clusters=&healthyOnly=true";

/// Starts the three nodes with the announcement's own settings, registers on each, lists on each.
pub async fn run(server: &Path, scratch: &Scratch, own_ports: bool) -> anyhow::Result<Report> {
    let mut report = Report::new("naming-announcement");
    let cluster = formed(server, scratch, own_ports, &mut report).await?;
    for (place, (node, (port, ip))) in cluster.addresses().into_iter().zip(INSTANCES).enumerate() {
        let form = format!(
            "port={port}&healthy=true&ip={ip}&weight=1.0&serviceName=nacos.test.001&groupName=foo&\
             metadata={{\"app\":\"foo\",\"id\":\"00{}\"}}",
            place + 1
        );
        let answer = Client::new(node, HEAL_PATIENCE).post(INSTANCE, &form).await;
        let right = Outcome::Done(Reply {
            status: 200,
            body: "ok".to_owned(),
        });
        if answer != right {
            report.violate(format!(
                "a registration on node {} was answered {answer:?}, not ok",
                place + 1
            ));
        }
    }
    let begun = Instant::now();
    let mut complete = 0;
    for (place, node) in cluster.addresses().into_iter().enumerate() {
        match all_listed(Client::new(node, SPREAD)).await {
            Ok(()) => complete += 1,
            Err(found) => report.violate(format!(
                "node {} lists {found}, not the three that were registered",
                place + 1
            )),
        }
    }
    report.figure("nodes that list all three", complete);
    report.figure(
        "after the last registration, at most",
        format!("{} ms", begun.elapsed().as_millis()),
    );
    Ok(report)
}

/// Asks until the list is complete; what it is when time is up.
async fn all_listed(mut client: Client) -> Result<(), String> {
    let deadline = Instant::now() + SPREAD;
    loop {
        let found = match client.call("GET", LIST).await {
            Outcome::Done(Reply { status: 200, body }) if is_complete(&body) => return Ok(()),
            Outcome::Done(Reply { status, body }) => format!("{status} {body}"),
            other => format!("{other:?}"),
        };
        if Instant::now() > deadline {
            return Err(found);
        }
        sleep(POLL).await;
    }
}

/// Exactly the three, healthy, each with its metadata.
fn is_complete(body: &str) -> bool {
    let Ok(listed) = Listed::read(body.as_bytes()) else {
        return false;
    };
    let has = |(place, (port, ip)): (usize, (u16, &str))| {
        let id = format!("00{}", place + 1);
        listed.hosts.iter().any(|host| {
            host.ip == ip
                && host.port == port
                && host.healthy
                && host.metadata.get("app").is_some_and(|app| app == "foo")
                && host.metadata.get("id").is_some_and(|found| *found == id)
        })
    };
    listed.hosts.len() == INSTANCES.len() && INSTANCES.into_iter().enumerate().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_and_nobody_else_are_complete() {
        let host = |place: usize| {
            let (port, ip) = INSTANCES[place];
            format!(
                "{{\"ip\":\"{ip}\",\"port\":{port},\"healthy\":true,\"metadata\":{{\"app\":\"foo\",\"id\":\"00{}\"}}}}",
                place + 1
            )
        };
        let list = |hosts: &[usize]| {
            let hosts: Vec<String> = hosts.iter().map(|place| host(*place)).collect();
            format!("{{\"hosts\":[{}]}}", hosts.join(","))
        };
        assert!(is_complete(&list(&[2, 0, 1])));
        for wrong in [&[0, 1][..], &[0, 1, 1], &[0, 1, 2, 2], &[]] {
            assert!(!is_complete(&list(wrong)), "{wrong:?}");
        }
    }
}

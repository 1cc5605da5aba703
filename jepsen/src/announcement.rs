//! The three-node example of the announcement, word for word, for configs.

use std::time::Duration;

use crate::api::{Client, Outcome, Reply};
use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::node::{Node, Spec};
use crate::verdict::Report;
use loadtest::process::Scratch;
use loadtest::run::CONFIGS;

/// Ports of the announcement.
const PORTS: [u16; 3] = [8848, 8849, 8850];

/// A publish on one node is visible on another within this time (in practice: milliseconds).
const SPREAD: Duration = Duration::from_secs(2);

/// Starts the three nodes with the announcement's own settings, publishes on each, reads on each.
///
/// With `own_ports` the announcement's ports are taken (8848 to 8850 and 9848 to 9850), otherwise free ones.
pub async fn run(server: &std::path::Path, scratch: &Scratch, own_ports: bool) -> anyhow::Result<Report> {
    let mut report = Report::new("announcement");
    let cluster = formed(server, scratch, own_ports, &mut report).await?;
    let mut answers = 0;
    for (place, writer) in cluster.addresses().into_iter().enumerate() {
        let form = format!("dataId=t00{}&group=foo&content=contentTest{place}", place + 1);
        let published = Client::new(writer, HEAL_PATIENCE).post(CONFIGS, &form).await;
        if published != reply(200, "true") {
            report.violate(format!(
                "publish on node {} was answered {published:?}, not true",
                place + 1
            ));
            continue;
        }
        for (reader_place, reader) in cluster.addresses().into_iter().enumerate() {
            let target = format!("{CONFIGS}?dataId=t00{}&group=foo", place + 1);
            let expected = reply(200, &format!("contentTest{place}"));
            let found = get_within(Client::new(reader, SPREAD), &target, &expected).await;
            if found == expected {
                answers += 1;
            } else {
                let (writer, reader) = (place + 1, reader_place + 1);
                report.violate(format!(
                    "published on node {writer}, node {reader} answers {found:?}, not {expected:?}"
                ));
            }
        }
    }
    report.figure("right answers to get, of 9", answers);
    report.demand(answers > 0, || "no get was answered rightly".to_owned());
    Ok(report)
}

/// The announcement's three nodes, each started once the one before takes writes.
pub(crate) async fn formed(
    server: &std::path::Path,
    scratch: &Scratch,
    own_ports: bool,
    report: &mut Report,
) -> anyhow::Result<Cluster> {
    let mut specs = Cluster::specs(server, PORTS.len(), scratch.path())?;
    if own_ports {
        take_own_ports(&mut specs);
    }
    for spec in &mut specs {
        as_announced(spec);
    }
    let mut cluster = Cluster {
        nodes: specs.into_iter().map(Node::new).collect(),
    };
    for node in &mut cluster.nodes {
        node.start()?;
        // Somebody who follows the announcement types the next command once the first has printed something.
        let taken = node.wait_until_it_writes(START_PATIENCE).await?;
        report.figure(
            &format!("node {} takes its first write after", node.spec.id),
            format!("{} ms", taken.as_millis()),
        );
    }
    Ok(cluster)
}

fn take_own_ports(specs: &mut [Spec]) {
    for (spec, port) in specs.iter_mut().zip(PORTS) {
        spec.http = port;
        spec.grpc = port + loadtest::ports::GRPC_OFFSET;
        spec.advertised = format!("127.0.0.1:{}", spec.grpc);
    }
    let founder = specs[0].advertised.clone();
    specs
        .iter_mut()
        .skip(1)
        .for_each(|spec| spec.join = Some(founder.clone()));
}

/// env01 to env03: a data folder `db0N` relative to where the server is started.
fn as_announced(spec: &mut Spec) {
    let name = format!("db0{}", spec.id);
    spec.data = spec.directory.join(&name);
    spec.extra.push(("RNACOS_CONFIG_DB_DIR".to_owned(), name));
}

fn reply(status: u16, body: &str) -> Outcome<Reply> {
    Outcome::Done(Reply {
        status,
        body: body.to_owned(),
    })
}

async fn get_within(mut client: Client, target: &str, expected: &Outcome<Reply>) -> Outcome<Reply> {
    let deadline = tokio::time::Instant::now() + SPREAD;
    loop {
        let found = client.call("GET", target).await;
        if found == *expected || tokio::time::Instant::now() > deadline {
            return found;
        }
        tokio::time::sleep(crate::node::POLL).await;
    }
}

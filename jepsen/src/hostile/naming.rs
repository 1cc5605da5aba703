//! The registry under hostile clients: what they do to it, and one that behaves and must not notice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::grpc::{CallError, Sdk, beside, understood};
use proto::nacos::naming::{
    BatchInstanceRequest, Instance, InstanceRequest, InstanceResponse, QueryServiceResponse,
    ServiceQueryRequest,
};
use tokio::time::{Instant, sleep, timeout};

use super::attacks::Stage;
use super::honest::{Diary, PACE, PATIENCE};
use super::wire::{Raw, message};

/// Instances of one batch: ten times what one may have, and nearly what fits into a message.
const BATCH: usize = 100_000;
/// Services that one connection subscribes to before it is replaced.
const SUBSCRIBED: u64 = 20_000;

impl Stage {
    /// Instances with metadata and names of every length.
    pub(super) async fn large_instances(&self, dice: &mut Dice) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        for _ in 0..20 {
            let long = "x".repeat(1 << dice.below(16));
            for body in [
                format!(
                    r#"{{"serviceName":"s","instance":{{"ip":"a","port":1,"metadata":{{"k":"{long}"}}}}}}"#
                ),
                format!(r#"{{"serviceName":"{long}","instance":{{"ip":"a","port":1}}}}"#),
                format!(
                    r#"{{"serviceName":"s","instance":{{"ip":"{long}","port":1,"clusterName":"{long}"}}}}"#
                ),
            ] {
                let body = body.replacen('{', r#"{"type":"registerInstance","#, 1);
                raw.ask(&message("InstanceRequest", body.as_bytes(), false), &[])
                    .await?;
                self.count(1);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Batches of far more instances than there may be, and of as many as there may be, again and again. They are larger
    /// than the windows of HTTP/2, which have to be kept to for once: the server would not read them otherwise.
    pub(super) async fn large_batches(&self) -> io::Result<()> {
        let opened = timeout(PATIENCE, Sdk::open(self.to, Arc::new(|_| {}))).await;
        let mut sdk = opened
            .map_err(|_| io::ErrorKind::TimedOut)?
            .map_err(io::Error::other)?;
        let batch = |name: &'static str, count: usize| BatchInstanceRequest {
            kind: "batchRegisterInstance".into(),
            service_name: name.into(),
            instances: (0..count).map(instance).collect(),
            ..BatchInstanceRequest::default()
        };
        let (too_large, large) = (batch("too-large", BATCH), batch("large", BATCH / 50));
        for _ in 0..5 {
            for request in [&too_large, &large] {
                // Whatever comes of it.
                let _refused = timeout(PATIENCE, sdk.ask(request)).await;
                self.count(1);
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Subscribes to one unknown service after the other, and asks for each of them.
    pub(super) async fn subscribe(&self, dice: &mut Dice) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        let salt = dice.roll();
        for number in 0..SUBSCRIBED {
            let body = format!(
                r#"{{"subscribe":true,"groupName":"flood","serviceName":"{salt:x}-{number}","clusters":"c{number}"}}"#
            );
            raw.ask(&message("SubscribeServiceRequest", body.as_bytes(), false), &[])
                .await?;
            self.count(1);
            if number % 20 == 0 {
                sleep(Duration::from_millis(10)).await;
            }
            if !self.goes_on() {
                break;
            }
        }
        Ok(())
    }

    /// Watches of patterns that match everything, look like nothing, or are all wildcards.
    pub(super) async fn patterns(&self, dice: &mut Dice) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        let stars = "*a".repeat(500);
        for number in 0..400_u64 {
            let pattern = match dice.below(5) {
                0 => "public>>*>>*".to_owned(),
                1 => format!("public>>{stars}>>{stars}"),
                2 => format!("public>>g{number}*>>*{number}"),
                3 => "*".repeat(1 << dice.below(15)),
                _ => format!("{number}>>>>*>>"),
            };
            let keys = r#""public@@g@@s","#.repeat(dice.below(2_000));
            for name in ["NamingFuzzyWatchRequest", "ConfigFuzzyWatchRequest"] {
                let body = format!(
                    r#"{{"watchType":"WATCH","groupKeyPattern":"{pattern}","receivedServiceKeys":[{keys}"x"]}}"#
                );
                raw.ask(&message(name, body.as_bytes(), false), &[]).await?;
                self.count(1);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// One of many.
fn instance(number: usize) -> Instance<'static> {
    let (high, low) = (number / 60_000, number % 60_000);
    Instance {
        ip: format!("10.9.0.{high}").into(),
        port: i32::try_from(low).unwrap_or_default(),
        ..Instance::default()
    }
}

/// Says something new about an instance, and reads that it is so.
pub(super) async fn over_naming(http: SocketAddr, key: String, diary: Arc<Diary>) {
    let mut version = 0_u64;
    while diary.goes_on() {
        let Ok(Ok(mut sdk)) = timeout(PATIENCE, Sdk::open(beside(http), Arc::new(|_| {}))).await else {
            diary.complain(format!("registry client {key} cannot connect"));
            sleep(PATIENCE).await;
            continue;
        };
        while diary.goes_on() {
            version += 1;
            let begun = Instant::now();
            let wrote = timeout(PATIENCE, register(&mut sdk, &key, version)).await;
            diary.took(begun);
            let begun = Instant::now();
            let read = timeout(PATIENCE, query(&mut sdk, &key)).await;
            diary.took(begun);
            let expected = version.to_string();
            match (wrote, read) {
                (Ok(Ok(())), Ok(Ok(read))) if read == expected => {}
                (wrote, read) => {
                    diary.complain(format!(
                        "registry client {key}: said {version}: {wrote:?}, read {read:?}"
                    ));
                    break;
                }
            }
            sleep(PACE).await;
        }
    }
}

async fn register(sdk: &mut Sdk, key: &str, version: u64) -> Result<(), CallError> {
    let request = InstanceRequest {
        service_name: key.into(),
        kind: "registerInstance".into(),
        instance: Instance {
            ip: "10.8.0.1".into(),
            port: 80,
            metadata: [("v".into(), version.to_string().into())].into(),
            ..Instance::default()
        },
        ..InstanceRequest::default()
    };
    let answer = sdk.ask(&request).await?;
    understood::<InstanceResponse<'_>>(&answer).map(drop)
}

/// The version that the one instance of the service shows; all of them, if there are more.
async fn query(sdk: &mut Sdk, key: &str) -> Result<String, CallError> {
    let request = ServiceQueryRequest {
        service_name: key.into(),
        ..ServiceQueryRequest::default()
    };
    let answer = sdk.ask(&request).await?;
    let answer: QueryServiceResponse<'_> = understood(&answer)?;
    let hosts = answer
        .service_info
        .map(|service| service.hosts)
        .unwrap_or_default();
    let versions = hosts.iter().filter_map(|host| host.metadata.get("v"));
    Ok(versions.map(ToString::to_string).collect::<Vec<_>>().join(","))
}

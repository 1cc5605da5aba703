//! The registry under hostile clients: what they do to it, and one that behaves and must not notice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::grpc::{CallError, Sdk, beside, understood};
use proto::nacos::naming::{
    Instance, InstanceRequest, InstanceResponse, QueryServiceResponse, ServiceQueryRequest,
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
    /// Instances with megabytes of metadata, with names of every length, and services without number.
    pub(super) async fn large_instances(&self, dice: &mut Dice) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        for _ in 0..20 {
            let long = "x".repeat(1 << dice.below(22));
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

    /// Batches of far more instances than there may be, and of as many as there may be, again and again.
    pub(super) async fn large_batches(&self) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        let batch = |service: usize, count: usize| {
            let mut body =
                format!(r#"{{"type":"batchRegisterInstance","serviceName":"b{service}","instances":["#);
            for port in 0..count {
                let (high, low) = (port / 60_000, port % 60_000);
                let comma = if port == 0 { "" } else { "," };
                body.push_str(&format!(r#"{comma}{{"ip":"10.9.0.{high}","port":{low}}}"#));
            }
            body.push_str("]}");
            message("BatchInstanceRequest", body.as_bytes(), false)
        };
        let (too_large, large) = (batch(0, BATCH), batch(1, BATCH / 50));
        for _ in 0..5 {
            raw.ask(&too_large, &[]).await?;
            raw.ask(&large, &[]).await?;
            self.count(2);
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
                3 => "*".repeat(1 << dice.below(18)),
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

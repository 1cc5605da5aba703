//! Clients that behave, and look closely at what they get.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadtest::grpc::{CallError, Sdk, beside, understood};
use proto::nacos::config::{
    ConfigBatchListenRequest, ConfigChangeBatchListenResponse, ConfigChangeNotifyRequest,
    ConfigPublishRequest, ConfigPublishResponse, ConfigQueryRequest, ConfigQueryResponse, ListenContext,
};
use proto::nacos::{Message as _, Payload};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::api::{Client, GROUP, md5_hex};
use crate::verdict::Durations;

/// SDKs give a request up after this.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Between two rounds of a client.
pub(super) const PACE: Duration = Duration::from_millis(20);

/// What a client has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) quiet: Durations,
    pub(super) attacked: Durations,
    pub(super) errors: Vec<String>,
}

/// What the clients of one kind share.
#[derive(Debug, Default)]
pub(super) struct Diary {
    found: Mutex<Found>,
    pub(super) under_attack: AtomicBool,
    pub(super) ends: AtomicBool,
}

impl Diary {
    pub(super) fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Relaxed)
    }

    pub(super) fn took(&self, since: Instant) {
        let took = since.elapsed();
        let mut found = self.found();
        match self.under_attack.load(Ordering::Relaxed) {
            true => found.attacked.add(took),
            false => found.quiet.add(took),
        }
    }

    pub(super) fn complain(&self, what: String) {
        self.found().errors.push(what);
    }
}

/// Publishes over gRPC and reads back what it published.
pub(super) async fn over_grpc(http: SocketAddr, key: String, diary: Arc<Diary>) {
    let mut version = 0_u64;
    while diary.goes_on() {
        let mut sdk = match timeout(PATIENCE, Sdk::open(beside(http), Arc::new(|_| {}))).await {
            Ok(Ok(sdk)) => sdk,
            other => {
                diary.complain(format!("gRPC client {key} cannot connect: {other:?}"));
                sleep(PATIENCE).await;
                continue;
            }
        };
        while diary.goes_on() {
            version += 1;
            let content = format!("{key} {version}");
            let begun = Instant::now();
            let wrote = timeout(PATIENCE, publish(&mut sdk, &key, &content)).await;
            diary.took(begun);
            let begun = Instant::now();
            let read = timeout(PATIENCE, query(&mut sdk, &key)).await;
            diary.took(begun);
            match (wrote, read) {
                (Ok(Ok(())), Ok(Ok(read))) if read == content => {}
                (wrote, read) => {
                    diary.complain(format!("gRPC client {key}: published {wrote:?}, read {read:?}"));
                    break;
                }
            }
            sleep(PACE).await;
        }
    }
}

/// Is told of changes that somebody else makes; what counts is the time from before the publish to the push.
pub(super) async fn listening(http: SocketAddr, key: String, diary: Arc<Diary>) {
    let told = Arc::new(Notify::new());
    let mut version = 0_u64;
    let mut last = String::new();
    while diary.goes_on() {
        let (bell, expected) = (Arc::clone(&told), key.clone());
        let on_push = Arc::new(move |push: &Payload| {
            let is_it = push
                .read::<ConfigChangeNotifyRequest<'_>>()
                .is_ok_and(|change| change.data_id == expected);
            if push.type_name() == ConfigChangeNotifyRequest::TYPE && is_it {
                bell.notify_one();
            }
        });
        let listener = timeout(PATIENCE, Sdk::open(beside(http), on_push)).await;
        let writer = timeout(PATIENCE, Sdk::open(beside(http), Arc::new(|_| {}))).await;
        let (Ok(Ok(mut listener)), Ok(Ok(mut writer))) = (listener, writer) else {
            diary.complain(format!("listener of {key} cannot connect"));
            sleep(PATIENCE).await;
            continue;
        };
        while diary.goes_on() {
            version += 1;
            let next = format!("{key} {version}");
            let round = one_change(&mut listener, &mut writer, &told, (&key, &last, &next), &diary);
            if let Err(error) = round.await {
                diary.complain(format!("listener of {key}, version {version}: {error}"));
                last = next;
                break;
            }
            last = next;
            sleep(PACE).await;
        }
    }
}

async fn one_change(
    listener: &mut Sdk,
    writer: &mut Sdk,
    told: &Notify,
    (key, last, next): (&str, &str, &str),
    diary: &Diary,
) -> Result<(), String> {
    let late = |what: &str| format!("{what}: nothing within {} s", PATIENCE.as_secs());
    let words = |error: CallError| error.to_string();
    listen(listener, key, last).await.map_err(words)?;
    // A push of an earlier change may still have rung.
    let _rung = timeout(Duration::from_millis(1), told.notified()).await;
    let begun = Instant::now();
    let wrote = timeout(PATIENCE, publish(writer, key, next)).await;
    wrote.map_err(|_| late("publish"))?.map_err(words)?;
    timeout(PATIENCE, told.notified())
        .await
        .map_err(|_| late("notification"))?;
    diary.took(begun);
    let read = timeout(PATIENCE, query(listener, key)).await;
    let read = read.map_err(|_| late("query"))?.map_err(words)?;
    match read == next {
        true => Ok(()),
        false => Err(format!("read {read:?} after the notification")),
    }
}

/// Publishes and reads over HTTP.
pub(super) async fn over_http(http: SocketAddr, key: String, diary: Arc<Diary>) {
    let mut client = Client::new(http, PATIENCE);
    let mut version = 0_u64;
    while diary.goes_on() {
        version += 1;
        let content = format!("{key} {version}");
        let begun = Instant::now();
        let wrote = client.publish(&key, &content).await;
        diary.took(begun);
        let begun = Instant::now();
        let read = client.get(&key, false).await;
        diary.took(begun);
        let right = matches!(&read, crate::api::Outcome::Done(Some(read)) if *read == content);
        if !wrote.is_done() || !right {
            diary.complain(format!("HTTP client {key}: published {wrote:?}, read {read:?}"));
        }
        sleep(PACE).await;
    }
}

async fn publish(sdk: &mut Sdk, key: &str, content: &str) -> Result<(), CallError> {
    let request = ConfigPublishRequest {
        data_id: key.into(),
        group: GROUP.into(),
        content: content.into(),
        ..ConfigPublishRequest::default()
    };
    let answer = sdk.ask(&request).await?;
    understood::<ConfigPublishResponse<'_>>(&answer).map(drop)
}

async fn query(sdk: &mut Sdk, key: &str) -> Result<String, CallError> {
    let request = ConfigQueryRequest {
        data_id: key.into(),
        group: GROUP.into(),
        ..ConfigQueryRequest::default()
    };
    let answer = sdk.ask(&request).await?;
    let answer: ConfigQueryResponse<'_> = understood(&answer)?;
    Ok(answer.content.unwrap_or_default().into_owned())
}

async fn listen(sdk: &mut Sdk, key: &str, has: &str) -> Result<(), CallError> {
    let md5 = if has.is_empty() {
        String::new()
    } else {
        md5_hex(has)
    };
    let request = ConfigBatchListenRequest {
        config_listen_contexts: vec![ListenContext {
            data_id: key.into(),
            group: GROUP.into(),
            md5: md5.into(),
            ..ListenContext::default()
        }],
        ..ConfigBatchListenRequest::default()
    };
    let answer = sdk.ask(&request).await?;
    understood::<ConfigChangeBatchListenResponse<'_>>(&answer).map(drop)
}

//! Listener fan-out: many clients listen to one config, which is published again and again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::nacos::Message as _;
use proto::nacos::config::{
    ConfigBatchListenRequest, ConfigChangeBatchListenResponse, ConfigChangeNotifyRequest,
    ConfigPublishRequest, ConfigPublishResponse, ListenContext,
};
use tokio::time::timeout;

use super::{FanoutFigures, FanoutPlan, PATIENCE, Subject, Tells, measure};
use crate::grpc::{Sdk, beside, silent, understood, wait_until_open};
use crate::run::{GROUP, resolve};

/// Carries out the plan.
pub async fn run(plan: &FanoutPlan) -> anyhow::Result<FanoutFigures> {
    let http = resolve(&plan.addresses)?;
    wait_until_open(&http).await?;
    let config = Config {
        data_id: format!("load.fanout.{}", std::process::id()),
        publisher: Sdk::open(beside(http[0]), silent()).await?,
    };
    measure(plan, &http, config).await
}

/// The config, and who publishes it.
struct Config {
    data_id: String,
    publisher: Sdk,
}

impl Subject for Config {
    /// Acknowledgements of the last publish do not lie in the next.
    const PAUSE: Duration = Duration::from_millis(200);

    fn tells(&self) -> Tells {
        tells_of(self.data_id.clone())
    }

    async fn join(&self, client: &mut Sdk) -> anyhow::Result<()> {
        let listen = ConfigBatchListenRequest {
            config_listen_contexts: vec![ListenContext {
                data_id: self.data_id.as_str().into(),
                group: GROUP.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = timeout(PATIENCE, client.ask(&listen)).await.context("listen")??;
        understood::<ConfigChangeBatchListenResponse<'_>>(&answer)?;
        Ok(())
    }

    async fn change(&mut self, number: u32) -> anyhow::Result<()> {
        let request = ConfigPublishRequest {
            data_id: self.data_id.as_str().into(),
            group: GROUP.into(),
            content: format!("publish {number} of {}", self.data_id).into(),
            ..Default::default()
        };
        let answer = timeout(PATIENCE, self.publisher.ask(&request))
            .await
            .context("publish")??;
        understood::<ConfigPublishResponse<'_>>(&answer)?;
        Ok(())
    }
}

/// A notification has no content: whatever comes after a publish is of that one.
fn tells_of(data_id: String) -> Tells {
    Arc::new(move |push, _| {
        push.type_name() == ConfigChangeNotifyRequest::TYPE
            && push
                .read::<ConfigChangeNotifyRequest<'_>>()
                .is_ok_and(|notify| notify.data_id == data_id)
    })
}

#[cfg(test)]
mod tests {
    use proto::nacos::Payload;

    use super::*;

    #[test]
    fn only_our_config_counts() {
        let notify = |data_id: &str| {
            let push = ConfigChangeNotifyRequest {
                data_id: data_id.into(),
                ..Default::default()
            };
            Payload::decode(proto::nacos::payload(&push)).expect("a payload")
        };
        let tells = tells_of("ours".to_owned());
        assert!(tells(&notify("ours"), 1));
        assert!(!tells(&notify("another"), 1));
    }
}

//! Push fan-out: many clients subscribe to one service, one of its instances changes again and again.
//!
//! A push counts for a change if it holds the changed instance with the change's number in its metadata; what an
//! earlier change or the subscription itself caused does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::nacos::naming::{
    InstanceResponse, NotifySubscriberRequest, SubscribeServiceRequest, SubscribeServiceResponse,
};
use proto::nacos::{Message as _, Payload};
use tokio::time::timeout;

use super::{GROUP, Listed, REGISTER, Registration, instance_of};
use crate::fanout::{FanoutFigures, FanoutPlan, PATIENCE, Subject, Tells, measure};
use crate::grpc::{Sdk, beside, silent, understood, wait_until_open};
use crate::run::resolve;

/// Instances of the service besides the one that changes.
const OTHERS: u32 = 9;

/// The key in the metadata under which the number of a change stands.
pub const CHANGE: &str = "change";

/// Carries out the plan; its `publishes` are changes of an instance.
pub async fn run(plan: &FanoutPlan) -> anyhow::Result<FanoutFigures> {
    let http = resolve(&plan.addresses)?;
    wait_until_open(&http).await?;
    // Another name each time: what an earlier run left does not matter.
    let name = format!("load.fanout.{}.{}", std::process::id(), plan.clients);
    let owners = owners(&name, &http).await?;
    measure(plan, &http, Service { name, owners }).await
}

/// The service, and a connection for each of its instances; the first one's instance changes.
struct Service {
    name: String,
    owners: Vec<Sdk>,
}

impl Subject for Service {
    /// Longer than any server gathers changes for, so that each meets a quiet service.
    const PAUSE: Duration = Duration::from_millis(1500);

    fn tells(&self) -> Tells {
        Arc::new(|push, round| change_in(push) == Some(round))
    }

    async fn join(&self, client: &mut Sdk) -> anyhow::Result<()> {
        subscribe(client, &self.name).await
    }

    async fn change(&mut self, number: u32) -> anyhow::Result<()> {
        let number = number.to_string();
        register(&mut self.owners[0], &self.name, 0, &[(CHANGE, &number)]).await
    }
}

/// The number of the change that a push shows.
fn change_in(push: &Payload) -> Option<u32> {
    if push.type_name() != NotifySubscriberRequest::TYPE {
        return None;
    }
    let notify: NotifySubscriberRequest<'_> = push.read().ok()?;
    let listed = Listed::of(notify.service_info);
    let changed = listed
        .hosts
        .iter()
        .find(|host| instance_of(&host.ip) == Some(0))?;
    changed.metadata.get(CHANGE)?.parse().ok()
}

/// Subscribes to a service over a connection.
pub async fn subscribe(sdk: &mut Sdk, service: &str) -> anyhow::Result<()> {
    let request = SubscribeServiceRequest {
        service_name: service.into(),
        group_name: GROUP.into(),
        subscribe: true,
        ..Default::default()
    };
    let answer = timeout(PATIENCE, sdk.ask(&request))
        .await
        .context("subscribe")??;
    understood::<SubscribeServiceResponse<'_>>(&answer)?;
    Ok(())
}

/// Registers an instance over a connection.
pub async fn register(
    sdk: &mut Sdk,
    service: &str,
    instance: u32,
    metadata: &[(&str, &str)],
) -> anyhow::Result<()> {
    let registration = Registration {
        service,
        instance,
        metadata: "",
    };
    let request = registration.message(REGISTER, metadata);
    let answer = timeout(PATIENCE, sdk.ask(&request)).await.context("register")??;
    understood::<InstanceResponse<'_>>(&answer)?;
    Ok(())
}

/// A connection for each instance of the service; the first one's instance is to change.
async fn owners(service: &str, http: &[SocketAddr]) -> anyhow::Result<Vec<Sdk>> {
    let mut owners = Vec::new();
    for instance in 0..=OTHERS {
        let mut sdk = timeout(PATIENCE, Sdk::open(beside(http[0]), silent()))
            .await
            .context("no answer")??;
        register(&mut sdk, service, instance, &[]).await?;
        owners.push(sdk);
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use proto::nacos::naming::{Instance, ServiceInfo};

    use super::*;
    use crate::naming::ip;

    #[test]
    fn a_push_tells_of_the_change_that_it_shows() {
        let push = |instance: u32, change: u32| {
            let push = NotifySubscriberRequest {
                service_info: ServiceInfo {
                    hosts: vec![Instance {
                        ip: ip(instance).to_string().into(),
                        metadata: [(CHANGE.into(), change.to_string().into())].into(),
                        ..Default::default()
                    }],
                    ..Default::default()
                },
                ..Default::default()
            };
            Payload::decode(proto::nacos::payload(&push)).expect("a payload")
        };
        assert_eq!(change_in(&push(0, 2)), Some(2));
        assert_eq!(change_in(&push(1, 2)), None, "another instance");
    }
}

//! What is asked of the registry.

use proto::nacos::naming::{
    BatchInstanceRequest, Instance, InstanceRequest, ServiceListRequest, ServiceQueryRequest,
    SubscribeServiceRequest,
};
use serde_json::Value;

use super::client;
use super::node::Client;

/// An instance of this port.
pub(crate) fn at(port: i32) -> Instance<'static> {
    Instance {
        ip: "10.0.0.1".into(),
        port,
        metadata: [("zone".into(), "a".into())].into(),
        ..Instance::default()
    }
}

pub(crate) fn register(service: &str, port: i32) -> InstanceRequest<'_> {
    InstanceRequest {
        group_name: "g".into(),
        service_name: service.into(),
        kind: "registerInstance".into(),
        instance: at(port),
        ..InstanceRequest::default()
    }
}

pub(crate) fn deregister(service: &str, port: i32) -> InstanceRequest<'_> {
    InstanceRequest {
        kind: "deregisterInstance".into(),
        ..register(service, port)
    }
}

pub(crate) fn batch<'a>(service: &'a str, ports: &[i32]) -> BatchInstanceRequest<'a> {
    BatchInstanceRequest {
        group_name: "g".into(),
        service_name: service.into(),
        kind: "batchRegisterInstance".into(),
        instances: ports.iter().map(|port| at(*port)).collect(),
        ..BatchInstanceRequest::default()
    }
}

pub(crate) fn query(service: &str) -> ServiceQueryRequest<'_> {
    ServiceQueryRequest {
        group_name: "g".into(),
        service_name: service.into(),
        ..ServiceQueryRequest::default()
    }
}

pub(crate) fn subscribe<'a>(service: &'a str, clusters: &'a str) -> SubscribeServiceRequest<'a> {
    SubscribeServiceRequest {
        group_name: "g".into(),
        service_name: service.into(),
        subscribe: true,
        clusters: clusters.into(),
        ..SubscribeServiceRequest::default()
    }
}

impl Client {
    /// Takes the next push, acknowledges it, and gives back what it says.
    pub(crate) async fn told(&mut self) -> Value {
        let push = self.pushed().await;
        assert_eq!(push.type_name(), "NotifySubscriberRequest");
        self.acknowledge(&push, "NotifySubscriberResponse").await;
        client::json(&push)
    }

    /// Takes pushes until one says that these are the ports.
    pub(crate) async fn told_of(&mut self, expected: &[i64]) -> Value {
        loop {
            let push = self.told().await;
            if ports(&push) == expected {
                return push;
            }
        }
    }
}

pub(crate) fn list(page: i32, size: i32) -> ServiceListRequest<'static> {
    ServiceListRequest {
        group_name: "g".into(),
        page_no: page,
        page_size: size,
        ..ServiceListRequest::default()
    }
}

/// The stamp of an answer or a push.
pub(crate) fn stamp(body: &Value) -> i64 {
    body["serviceInfo"]["lastRefTime"].as_i64().expect("a stamp")
}

/// Ports of the hosts in an answer or a push.
pub(crate) fn ports(body: &Value) -> Vec<i64> {
    let hosts = body["serviceInfo"]["hosts"].as_array().expect("hosts");
    hosts
        .iter()
        .map(|host| host["port"].as_i64().expect("a port"))
        .collect()
}

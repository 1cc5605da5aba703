//! What is asked of the configuration store, and how it is asked.

use proto::nacos::Payload;
use proto::nacos::config::{
    ConfigBatchListenRequest, ConfigPublishRequest, ConfigQueryRequest, ListenContext,
};

use super::client;
pub(crate) use super::node::{Answer, Client, Node};

impl Node {
    /// A client that listens to a config that is not there.
    pub(crate) async fn listening(&self, data_id: &str) -> Client {
        let mut client = self.client().await;
        let answer = client.ask(&batch(&[(data_id, "", "")])).await;
        assert_eq!(answer.body["changedConfigs"], serde_json::json!([]));
        client
    }
}

impl Client {
    pub(crate) async fn query(&mut self, data_id: &str) -> Answer {
        self.ask(&query(data_id)).await
    }

    pub(crate) async fn publish(&mut self, data_id: &str, content: &str) -> Answer {
        self.ask(&publish(data_id, content)).await
    }
}

pub(crate) fn query(data_id: &str) -> ConfigQueryRequest<'_> {
    ConfigQueryRequest {
        data_id: data_id.into(),
        group: "g".into(),
        ..ConfigQueryRequest::default()
    }
}

pub(crate) fn publish<'a>(data_id: &'a str, content: &'a str) -> ConfigPublishRequest<'a> {
    ConfigPublishRequest {
        data_id: data_id.into(),
        group: "g".into(),
        content: content.into(),
        ..ConfigPublishRequest::default()
    }
}

/// Data id, md5 and tenant.
pub(crate) fn batch<'a>(keys: &[(&'a str, &'a str, &'a str)]) -> ConfigBatchListenRequest<'a> {
    let contexts = keys.iter().map(|(data_id, md5, tenant)| ListenContext {
        data_id: (*data_id).into(),
        group: "g".into(),
        tenant: (*tenant).into(),
        md5: (*md5).into(),
    });
    ConfigBatchListenRequest {
        listen: true,
        config_listen_contexts: contexts.collect(),
        ..ConfigBatchListenRequest::default()
    }
}

/// Data id and tenant of a notification.
pub(crate) fn key_of(push: &Payload) -> (String, String) {
    let body = client::json(push);
    let text = |name: &str| body[name].as_str().expect("a text").to_owned();
    (text("dataId"), text("tenant"))
}

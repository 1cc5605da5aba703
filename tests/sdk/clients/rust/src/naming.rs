//! The naming half of the Rust SDK behind the line protocol of tests/sdk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use nacos_sdk::api::naming::{
    NamingChangeEvent, NamingEventListener, NamingService, NamingServiceBuilder, ServiceInstance,
};
use serde_json::{Value, json};

/// Naming clients and their subscriptions, by name.
#[derive(Clone, Default)]
pub(crate) struct Registries {
    clients: Arc<Mutex<HashMap<String, NamingService>>>,
    listeners: Arc<Mutex<HashMap<String, Arc<Told>>>>,
}

impl Registries {
    pub(crate) fn is_for(&self, command: &Value) -> bool {
        command["domain"] == "naming" || self.client(command).is_some()
    }

    pub(crate) async fn answer(&self, command: &Value) -> Result<Value, String> {
        self.run(command).await.map_err(|error| error.to_string())
    }

    async fn run(&self, command: &Value) -> nacos_sdk::api::error::Result<Value> {
        let text = |name: &str| command[name].as_str().unwrap_or_default().to_owned();
        let Some(client) = self.client(command) else {
            // By itself it does not tell its user that the last instance has gone.
            let props = crate::props(command).naming_push_empty_protection(false);
            let client = NamingServiceBuilder::new(props).build().await?;
            self.clients
                .lock()
                .expect("no panic")
                .insert(text("client"), client);
            return Ok(Value::Bool(true));
        };
        let (service, group, listener) = (text("service"), Some(text("group")), text("listener"));
        let clusters: Vec<String> = all(&command["clusters"], |name| {
            name.as_str().unwrap_or_default().to_owned()
        });
        match command["op"].as_str().unwrap_or_default() {
            "register" => {
                client
                    .register_instance(service, group, instance(&command["instance"]))
                    .await?
            }
            "deregister" => {
                client
                    .deregister_instance(service, group, instance(&command["instance"]))
                    .await?
            }
            "batch" => {
                let instances = all(&command["instances"], instance);
                client.batch_register_instance(service, group, instances).await?;
            }
            "instances" => {
                let found = client.get_all_instances(service, group, clusters, false).await?;
                return Ok(listed(&found));
            }
            "select" => {
                let healthy = command["healthy"].as_bool().unwrap_or(true);
                let found = client
                    .select_instances(service, group, clusters, false, healthy)
                    .await?;
                return Ok(listed(&found));
            }
            "pick" => {
                let mut picked: HashMap<String, u64> = HashMap::new();
                for _ in 0..command["count"].as_u64().unwrap_or(1) {
                    let one = client
                        .select_one_healthy_instance(service.clone(), group.clone(), clusters.clone(), false)
                        .await?;
                    *picked.entry(one.ip_and_port()).or_default() += 1;
                }
                return Ok(json!(picked));
            }
            "subscribe" => {
                let told = Arc::new(Told(listener.clone()));
                self.listeners
                    .lock()
                    .expect("no panic")
                    .insert(listener, told.clone());
                client.subscribe(service, group, clusters, told).await?;
            }
            "unsubscribe" => {
                let told = self.listeners.lock().expect("no panic").remove(&listener);
                client
                    .unsubscribe(service, group, clusters, told.expect("subscribed before"))
                    .await?;
            }
            "services" => {
                let number = |name: &str| i32::try_from(command[name].as_i64().unwrap_or(1)).expect("small");
                let (names, count) = client
                    .get_service_list(number("pageNo"), number("pageSize"), group)
                    .await?;
                return Ok(json!({"count": count, "names": names}));
            }
            "close" => drop(self.clients.lock().expect("no panic").remove(&text("client"))),
            other => {
                let message = format!("unsupported: {other}");
                return Err(nacos_sdk::api::error::Error::ErrResult(message));
            }
        }
        Ok(Value::Bool(true))
    }

    fn client(&self, command: &Value) -> Option<NamingService> {
        let name = command["client"].as_str()?;
        self.clients.lock().expect("no panic").get(name).cloned()
    }
}

struct Told(String);

impl NamingEventListener for Told {
    fn event(&self, event: Arc<NamingChangeEvent>) {
        let hosts = listed(event.instances.as_deref().unwrap_or_default());
        crate::say(&json!({"event": "instances", "listener": self.0, "hosts": hosts}));
    }
}

fn all<T>(values: &Value, one: impl Fn(&Value) -> T) -> Vec<T> {
    values.as_array().into_iter().flatten().map(one).collect()
}

fn instance(given: &Value) -> ServiceInstance {
    let metadata = given["metadata"].as_object().into_iter().flatten();
    ServiceInstance {
        ip: given["ip"].as_str().expect("an address").to_owned(),
        port: i32::try_from(given["port"].as_i64().expect("a port")).expect("a port"),
        weight: given["weight"].as_f64().expect("a weight"),
        healthy: given["healthy"].as_bool().expect("a bool"),
        enabled: given["enabled"].as_bool().expect("a bool"),
        ephemeral: given["ephemeral"].as_bool().expect("a bool"),
        cluster_name: given["cluster"].as_str().map(str::to_owned),
        metadata: metadata
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        ..ServiceInstance::default()
    }
}

fn listed(hosts: &[ServiceInstance]) -> Value {
    hosts
        .iter()
        .map(|host| {
            json!({
                "ip": host.ip, "port": host.port, "weight": host.weight, "healthy": host.healthy,
                "enabled": host.enabled, "ephemeral": host.ephemeral, "cluster": host.cluster_name,
                "metadata": host.metadata,
            })
        })
        .collect()
}

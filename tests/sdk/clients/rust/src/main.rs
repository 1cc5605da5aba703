//! The Rust SDK behind the line protocol of tests/sdk (README.md there).

mod naming;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};

use nacos_sdk::api::config::{
    ConfigChangeListener, ConfigResponse, ConfigService, ConfigServiceBuilder, constants,
};
use nacos_sdk::api::error::Error;
use nacos_sdk::api::props::ClientProps;
use serde_json::{Value, json};

type Clients = Arc<Mutex<HashMap<String, ConfigService>>>;

#[tokio::main]
async fn main() {
    say(&json!({"event": "ready", "sdk": "nacos-sdk 0.8.3"}));
    let clients = Clients::default();
    let registries = naming::Registries::default();
    let (lines, mut commands) = tokio::sync::mpsc::channel::<Value>(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let command = serde_json::from_str(&line).expect("a command is JSON");
            if lines.blocking_send(command).is_err() {
                break;
            }
        }
    });
    while let Some(command) = commands.recv().await {
        if command["op"] == "quit" {
            break;
        }
        let (clients, registries) = (clients.clone(), registries.clone());
        tokio::spawn(async move {
            let answer = if registries.is_for(&command) {
                registries.answer(&command).await
            } else {
                answer(&clients, &command).await
            };
            let answer = match answer {
                Ok(value) => json!({"id": command["id"], "ok": value}),
                Err(error) => json!({"id": command["id"], "error": error}),
            };
            say(&answer);
        });
    }
}

async fn answer(clients: &Clients, command: &Value) -> Result<Value, String> {
    let text = |name: &str| command[name].as_str().unwrap_or_default().to_owned();
    if command["op"] == "connect" {
        let client = connect(command).await?;
        clients.lock().expect("no panic").insert(text("client"), client);
        return Ok(Value::Bool(true));
    }
    let client = clients.lock().expect("no panic").get(&text("client")).cloned();
    let client = client.ok_or("no such client")?;
    let (data_id, group, content) = (text("dataId"), text("group"), text("content"));
    let kind = command["type"].as_str().map(str::to_owned);
    let told = match command["op"].as_str().unwrap_or_default() {
        "get" => match client.get_config(data_id, group).await {
            Ok(found) => return Ok(Value::String(found.content().clone())),
            Err(Error::ConfigNotFound(_)) => return Ok(Value::Null),
            Err(error) => Err(error),
        },
        "publish" => client.publish_config(data_id, group, content, kind).await,
        "cas" => {
            client
                .publish_config_cas(data_id, group, content, kind, text("md5"))
                .await
        }
        "beta" => {
            client
                .publish_config_beta(data_id, group, content, kind, text("ips"))
                .await
        }
        "tag" => {
            let tag = HashMap::from([(constants::KEY_PARAM_TAG.to_owned(), text("tag"))]);
            client
                .publish_config_param(data_id, group, content, kind, None, tag)
                .await
        }
        "remove" => client.remove_config(data_id, group).await,
        "listen" => {
            let listener = Arc::new(Listener(text("listener")));
            client.add_listener(data_id, group, listener).await.map(|()| true)
        }
        "close" => {
            clients.lock().expect("no panic").remove(&text("client"));
            return Ok(Value::Bool(true));
        }
        other => return Err(format!("unsupported: {other}")),
    };
    told.map(Value::Bool).map_err(|error| error.to_string())
}

async fn connect(command: &Value) -> Result<ConfigService, String> {
    ConfigServiceBuilder::new(props(command))
        .build()
        .await
        .map_err(|error| error.to_string())
}

fn props(command: &Value) -> ClientProps {
    let servers: Vec<&str> = command["servers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    ClientProps::new()
        .server_addr(servers.join(","))
        .namespace(command["namespace"].as_str().unwrap_or_default())
        .app_name("sdk-tests")
}

struct Listener(String);

impl ConfigChangeListener for Listener {
    fn notify(&self, found: ConfigResponse) {
        say(&json!({"event": "change", "listener": self.0, "content": found.content(), "md5": found.md5()}));
    }
}

fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    // The driver may be gone; then there is nobody to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

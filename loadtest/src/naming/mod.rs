//! Instances and services as a load generator makes them, and the requests about them.
//!
//! Every instance has a number, from which its address follows, so that an answer can be checked without
//! anything being kept: the address in it tells which instance of which service it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proto::nacos::naming::{Instance, InstanceRequest, ServiceInfo};
use serde::{Deserialize, Serialize};

use crate::http::{encode, write_form, write_request};

pub mod fanout;
pub mod fill;
pub mod keep;
pub mod spread;
pub mod storm;
pub(crate) mod work;

/// Path of register and deregister on every Nacos-compatible server.
pub const INSTANCE: &str = "/nacos/v1/ns/instance";

/// Group of all services of the load, so that they are easily told from real ones.
pub const GROUP: &str = "loadtest";

/// Port of every instance of the load.
pub const PORT: u16 = 8000;

/// Numbers of instances end here: three bytes of an address in 10.0.0.0/8.
pub const INSTANCES_MAX: u32 = 1 << 24;

/// `type` of a gRPC registration.
pub const REGISTER: &str = "registerInstance";

/// `type` of a gRPC deregistration.
pub const DEREGISTER: &str = "deregisterInstance";

/// The address of an instance.
#[must_use]
pub fn ip(instance: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((10 << 24) | (instance % INSTANCES_MAX))
}

/// The number of the instance with this address; `None` if it is none of the load's.
#[must_use]
pub fn instance_of(ip: &str) -> Option<u32> {
    let bits = ip.parse::<Ipv4Addr>().ok()?.to_bits();
    (bits >> 24 == 10).then_some(bits % INSTANCES_MAX)
}

/// What a list holds of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host<'a> {
    /// Its address.
    #[serde(borrow)]
    pub ip: Cow<'a, str>,
    /// Its port.
    pub port: u16,
    /// As the server sees it.
    #[serde(default)]
    pub healthy: bool,
    /// As registered.
    #[serde(borrow, default)]
    pub metadata: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// The answer to a list over HTTP, in so far as it is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed<'a> {
    /// Instances.
    #[serde(borrow)]
    pub hosts: Vec<Host<'a>>,
    /// Version stamp of the service.
    #[serde(default)]
    pub last_ref_time: i64,
}

impl<'a> Listed<'a> {
    /// Reads an answer's body.
    pub fn read(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// The same of what an answer or push over gRPC holds.
    #[must_use]
    pub fn of(info: ServiceInfo<'a>) -> Self {
        let hosts = info.hosts.into_iter().map(|host| Host {
            ip: host.ip,
            port: u16::try_from(host.port).unwrap_or(0),
            healthy: host.healthy,
            metadata: host.metadata.into_iter().collect(),
        });
        Self {
            hosts: hosts.collect(),
            last_ref_time: info.last_ref_time,
        }
    }

    /// Numbers of the load's instances in it, ascending.
    #[must_use]
    pub fn instances(&self) -> Vec<u32> {
        let mut found: Vec<u32> = self
            .hosts
            .iter()
            .filter_map(|host| instance_of(&host.ip))
            .collect();
        found.sort_unstable();
        found
    }
}

/// An instance with what a request says of it.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// Plain name of its service.
    pub service: &'a str,
    /// Its number.
    pub instance: u32,
    /// Metadata, a JSON object; may be empty.
    pub metadata: &'a str,
}

impl Registration<'_> {
    fn pairs(&self, with_metadata: bool) -> String {
        let (ip, port) = (ip(self.instance).to_string(), PORT.to_string());
        let mut pairs = vec![
            ("serviceName", self.service),
            ("groupName", GROUP),
            ("ip", &ip),
            ("port", &port),
        ];
        if with_metadata && !self.metadata.is_empty() {
            pairs.push(("metadata", self.metadata));
        }
        encode(&pairs)
    }

    /// Writes a registration over what `out` held.
    pub fn register(&self, out: &mut Vec<u8>, authority: &str) {
        write_form(out, "POST", authority, INSTANCE, self.pairs(true).as_bytes());
    }

    /// Writes a deregistration.
    pub fn deregister(&self, out: &mut Vec<u8>, authority: &str) {
        write_request(
            out,
            "DELETE",
            authority,
            &format!("{INSTANCE}?{}", self.pairs(false)),
        );
    }

    /// Writes a light beat: it names the instance and nothing more.
    pub fn beat(&self, out: &mut Vec<u8>, authority: &str) {
        let target = format!("{INSTANCE}/beat?{}", self.pairs(false));
        write_request(out, "PUT", authority, &target);
    }

    /// The same over gRPC: `kind` is [`REGISTER`] or [`DEREGISTER`].
    #[must_use]
    pub fn message<'m>(&'m self, kind: &'static str, metadata: &[(&'m str, &'m str)]) -> InstanceRequest<'m> {
        InstanceRequest {
            service_name: self.service.into(),
            group_name: GROUP.into(),
            kind: kind.into(),
            instance: Instance {
                ip: ip(self.instance).to_string().into(),
                port: PORT.into(),
                metadata: metadata
                    .iter()
                    .map(|(key, value)| ((*key).into(), (*value).into()))
                    .collect(),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}

/// Writes the question for a service's instances, the unhealthy ones included.
pub fn list_request(out: &mut Vec<u8>, authority: &str, service: &str) {
    let query = encode(&[
        ("serviceName", service),
        ("groupName", GROUP),
        // Said, since r-nacos takes true for the default.
        ("healthyOnly", "false"),
    ]);
    write_request(out, "GET", authority, &format!("{INSTANCE}/list?{query}"));
}

/// The code in the answer to a beat: 10200, or 20404 when the server does not know the instance.
#[must_use]
pub fn beat_code(body: &[u8]) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    answer.get("code")?.as_u64()
}

/// The answer to a list with these instances, as servers write it.
#[must_use]
pub fn list_json(service: &str, instances: impl Iterator<Item = u32>) -> String {
    let hosts: Vec<String> = instances
        .map(|instance| {
            let ip = ip(instance);
            format!(
                "{{\"instanceId\":\"{ip}#{PORT}#DEFAULT#{GROUP}@@{service}\",\"ip\":\"{ip}\",\"port\":{PORT},\
                 \"weight\":1.0,\"healthy\":true,\"enabled\":true,\"ephemeral\":true,\"clusterName\":\"DEFAULT\",\
                 \"serviceName\":\"{GROUP}@@{service}\",\"metadata\":{{}},\"instanceHeartBeatInterval\":5000,\
                 \"instanceHeartBeatTimeOut\":15000,\"ipDeleteTimeout\":30000,\"instanceIdGenerator\":\"simple\"}}"
            )
        })
        .collect();
    format!(
        "{{\"name\":\"{GROUP}@@{service}\",\"groupName\":\"{GROUP}\",\"clusters\":\"\",\"cacheMillis\":10000,\
         \"hosts\":[{}],\"lastRefTime\":1763802000123,\"checksum\":\"\",\"allIPs\":false,\
         \"reachProtectionThreshold\":false,\"valid\":true}}",
        hosts.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_its_instance() {
        for instance in [0, 1, 255, 256, 70_000, INSTANCES_MAX - 1] {
            assert_eq!(instance_of(&ip(instance).to_string()), Some(instance));
        }
        assert_eq!(instance_of("192.168.0.1"), None);
        assert_eq!(instance_of("here"), None);
    }

    #[test]
    fn lists_are_read_however_much_else_they_hold() {
        let text = list_json("s", [3, 1, 2].into_iter());
        let listed = Listed::read(text.as_bytes()).expect("a list");
        assert_eq!(listed.instances(), [1, 2, 3]);
        assert_eq!(listed.last_ref_time, 1_763_802_000_123);
        assert!(listed.hosts.iter().all(|host| host.healthy && host.port == PORT));
        assert!(Listed::read(b"{}").is_err());
    }

    #[test]
    fn a_beat_names_the_instance_and_nothing_more() {
        let mut request = Vec::new();
        let registration = Registration {
            service: "s",
            instance: 1,
            metadata: "{\"a\":\"b\"}",
        };
        registration.beat(&mut request, "h:1");
        assert_eq!(
            String::from_utf8_lossy(&request),
            "PUT /nacos/v1/ns/instance/beat?serviceName=s&groupName=loadtest&ip=10.0.0.1&port=8000 HTTP/1.1\r\n\
             Host: h:1\r\n\r\n"
        );
        assert_eq!(beat_code(b"{\"code\":10200}"), Some(10200));
        assert_eq!(beat_code(b"ok"), None);
    }
}

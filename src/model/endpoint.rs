//! Where an instance is reached, within its service.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// `ip:port:cluster`: what tells the instances of a service apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address or host name, as the client wrote it.
    pub ip: Arc<str>,
    /// 0 to 65,535.
    pub port: u16,
    /// Name of the cluster within the service.
    pub cluster: Arc<str>,
}

/// The name that nearly all clusters have, once for all.
static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| Endpoint::DEFAULT_CLUSTER.into());

impl Endpoint {
    /// The cluster of whoever names none.
    pub const DEFAULT_CLUSTER: &'static str = "DEFAULT";

    /// A blank cluster is the default one.
    pub fn new(ip: &str, port: u16, cluster: &str) -> Endpoint {
        let cluster = match cluster.trim() {
            "" => Endpoint::DEFAULT_CLUSTER,
            cluster => cluster,
        };
        Endpoint::exact(ip.trim(), port, cluster)
    }

    /// These very texts.
    pub fn exact(ip: &str, port: u16, cluster: &str) -> Endpoint {
        let cluster = match cluster {
            Endpoint::DEFAULT_CLUSTER => Arc::clone(&DEFAULT),
            cluster => cluster.into(),
        };
        Endpoint {
            ip: ip.into(),
            port,
            cluster,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.ip, self.port, self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_cluster_is_the_default_one() {
        assert_eq!(
            Endpoint::new("10.0.0.1", 80, " ").to_string(),
            "10.0.0.1:80:DEFAULT"
        );
        assert_eq!(Endpoint::new(" a ", 0, "c").to_string(), "a:0:c");
    }
}

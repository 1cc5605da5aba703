//! Messages of the registry.
//!
//! Every request names its service by `namespace` (blank: `public`), `groupName` (blank: `DEFAULT_GROUP`)
//! and `serviceName` (plain; some clients put `group@@service` there). Filling in and splitting is the
//! reader's work.

use super::message::{object, requests, responses};
use super::{Text, TextMap};

requests! { "naming";
    /// Registers or deregisters one ephemeral instance of this connection. Unary.
    InstanceRequest {
        /// Of the service.
        namespace: Text<'a> = "namespace",
        /// Of the service.
        service_name: Text<'a> = "serviceName",
        /// Of the service.
        group_name: Text<'a> = "groupName",
        /// `registerInstance` or `deregisterInstance`.
        kind: Text<'a> = "type",
        /// The instance; its `ephemeral` is not looked at.
        instance: Instance<'a> = "instance",
    }

    /// Registers or deregisters one persistent instance (2.4). Unary.
    PersistentInstanceRequest {
        /// Of the service.
        namespace: Text<'a> = "namespace",
        /// Of the service.
        service_name: Text<'a> = "serviceName",
        /// Of the service.
        group_name: Text<'a> = "groupName",
        /// `registerInstance` or `deregisterInstance`.
        kind: Text<'a> = "type",
        /// The instance.
        instance: Instance<'a> = "instance",
    }

    /// Replaces everything this connection publishes for a service (2.1). Unary.
    BatchInstanceRequest {
        /// Of the service.
        namespace: Text<'a> = "namespace",
        /// Of the service.
        service_name: Text<'a> = "serviceName",
        /// Of the service.
        group_name: Text<'a> = "groupName",
        /// `batchRegisterInstance`.
        kind: Text<'a> = "type",
        /// The whole set; all ephemeral.
        instances: Vec<Instance<'a>> = "instances",
    }

    /// Asks for the instances of a service. Unary.
    ServiceQueryRequest {
        /// Of the service.
        namespace: Text<'a> = "namespace",
        /// Of the service.
        service_name: Text<'a> = "serviceName",
        /// Of the service.
        group_name: Text<'a> = "groupName",
        /// Names separated by commas; blank: all.
        cluster: Text<'a> = "cluster",
        /// Only instances that are healthy.
        healthy_only: bool = "healthyOnly",
        /// Of times before gRPC; ignored.
        udp_port: i32 = "udpPort",
    }

    /// Starts or ends a subscription. Unary.
    SubscribeServiceRequest {
        /// Of the service.
        namespace: Text<'a> = "namespace",
        /// Of the service.
        service_name: Text<'a> = "serviceName",
        /// Of the service.
        group_name: Text<'a> = "groupName",
        /// False: end it.
        subscribe: bool = "subscribe",
        /// Filters every push to this subscriber; names separated by commas, blank: all.
        clusters: Text<'a> = "clusters",
    }

    /// Server to client: the service as it is now, its whole host list.
    NotifySubscriberRequest {
        /// An empty host list is legal.
        service_info: ServiceInfo<'a> = "serviceInfo",
    }

    /// Asks for names of services, by pages. Unary.
    ServiceListRequest {
        /// Of the services.
        namespace: Text<'a> = "namespace",
        /// Unused.
        service_name: Text<'a> = "serviceName",
        /// Exact.
        group_name: Text<'a> = "groupName",
        /// From 1.
        page_no: i32 = "pageNo" or 1,
        /// Names a page.
        page_size: i32 = "pageSize" or 20,
        /// A selector in JSON; the reference ignores it.
        selector: Text<'a> = "selector",
    }

    /// Watches all services that match a pattern (3.0). Unary.
    NamingFuzzyWatchRequest {
        /// Of the watcher.
        namespace: Text<'a> = "namespace",
        /// `namespace>>groupPattern>>servicePattern`.
        group_key_pattern: Text<'a> = "groupKeyPattern",
        /// Service keys the client knows already: `namespace@@group@@service`.
        received_group_keys: Vec<Text<'a>> = "receivedGroupKeys",
        /// `WATCH` or `CANCEL_WATCH`.
        watch_type: Text<'a> = "watchType",
        /// True for the first one after a connect.
        initializing: bool = "initializing",
    }

    /// Server to client: a batch of the difference between what matches and what the client knows.
    NamingFuzzyWatchSyncRequest {
        /// As in `ConfigFuzzyWatchSyncRequest`.
        sync_type: Text<'a> = "syncType",
        /// The pattern of the watch.
        group_key_pattern: Text<'a> = "groupKeyPattern",
        /// The keys.
        contexts: Vec<ServiceWatchContext<'a>> = "contexts",
        /// How many batches there are.
        total_batch: i32 = "totalBatch",
        /// Which one this is, from 1.
        current_batch: i32 = "currentBatch",
    }

    /// Server to client: a service that matches came or went.
    NamingFuzzyWatchChangeNotifyRequest {
        /// `FUZZY_WATCH_RESOURCE_CHANGED`.
        sync_type: Text<'a> = "syncType",
        /// `namespace@@group@@service`.
        service_key: Text<'a> = "serviceKey",
        /// `ADD_SERVICE` or `DELETE_SERVICE`.
        changed_type: Text<'a> = "changedType",
    }
}

responses! {
    /// Answer to [`InstanceRequest`] and [`PersistentInstanceRequest`].
    InstanceResponse {
        /// That of the request.
        kind: Text<'a> = "type",
    }

    /// Answer to [`BatchInstanceRequest`].
    BatchInstanceResponse {
        /// That of the request.
        kind: Text<'a> = "type",
    }

    /// Answer to [`ServiceQueryRequest`]. An unknown service is a success without hosts.
    QueryServiceResponse {
        /// Absent only in failures; an `ErrorResponse` is kinder to the Rust SDK then.
        service_info: Option<ServiceInfo<'a>> = "serviceInfo",
    }

    /// Answer to [`SubscribeServiceRequest`].
    SubscribeServiceResponse {
        /// The service as it is now. As in [`QueryServiceResponse`].
        service_info: Option<ServiceInfo<'a>> = "serviceInfo",
    }

    /// Acknowledges [`NotifySubscriberRequest`].
    NotifySubscriberResponse {}

    /// Answer to [`ServiceListRequest`].
    ServiceListResponse {
        /// Of all pages.
        count: i32 = "count",
        /// Of this page, without groups.
        service_names: Vec<Text<'a>> = "serviceNames",
    }

    /// Answer to [`NamingFuzzyWatchRequest`].
    NamingFuzzyWatchResponse {}

    /// Acknowledges [`NamingFuzzyWatchSyncRequest`].
    NamingFuzzyWatchSyncResponse {}

    /// Acknowledges [`NamingFuzzyWatchChangeNotifyRequest`].
    NamingFuzzyWatchChangeNotifyResponse {}
}

object! {
    /// One address of a service.
    Instance {
        /// `ip#port#cluster#group@@service`; empty in requests of most clients.
        instance_id: Text<'a> = "instanceId",
        /// Address or name.
        ip: Text<'a> = "ip",
        /// Never negative when written: Go reads it unsigned.
        port: i32 = "port",
        /// 0 receives nothing.
        weight: f64 = "weight" or 1.0,
        /// As the server sees it.
        healthy: bool = "healthy" or true,
        /// False: taken out by hand.
        enabled: bool = "enabled" or true,
        /// Lives as long as its connection.
        ephemeral: bool = "ephemeral" or true,
        /// Cluster within the service.
        cluster_name: Text<'a> = "clusterName" or "DEFAULT".into(),
        /// `group@@service` in answers.
        service_name: Text<'a> = "serviceName",
        /// Whatever the owner says, texts only.
        metadata: TextMap<'a> = "metadata",
        /// Milliseconds; from metadata `preserved.heart.beat.interval`, not read from requests.
        heart_beat_interval_ms: i64 = "instanceHeartBeatInterval" or 5_000,
        /// Milliseconds; from metadata `preserved.heart.beat.timeout`.
        heart_beat_timeout_ms: i64 = "instanceHeartBeatTimeOut" or 15_000,
        /// Milliseconds; from metadata `preserved.ip.delete.timeout`.
        ip_delete_timeout_ms: i64 = "ipDeleteTimeout" or 30_000,
        /// From metadata `preserved.instance.id.generator`.
        instance_id_generator: Text<'a> = "instanceIdGenerator" or "simple".into(),
    }
}

object! {
    /// A service and its hosts, as answers and pushes carry it.
    ServiceInfo {
        /// Plain.
        name: Text<'a> = "name",
        /// Group.
        group_name: Text<'a> = "groupName",
        /// The clusters asked for, separated by commas.
        clusters: Text<'a> = "clusters",
        /// How long old clients may use it without asking again.
        cache_ms: i64 = "cacheMillis" or 10_000,
        /// Enabled instances only.
        hosts: Vec<Instance<'a>> = "hosts",
        /// Version stamp in milliseconds since the epoch: strictly greater with every change and on every
        /// node, never 0, or SDKs drop the change.
        last_ref_time: i64 = "lastRefTime",
        /// Unused by SDKs of today but required.
        checksum: Text<'a> = "checksum",
        /// What 2.x readers call [`all_ips`](Self::all_ips). Write the same.
        all_ips_2x: bool = "allIPs",
        /// What 3.x readers call [`all_ips_2x`](Self::all_ips_2x).
        all_ips: bool = "allIps",
        /// So few hosts are healthy that all are given.
        reach_protection_threshold: bool = "reachProtectionThreshold",
        /// Always true.
        valid: bool = "valid" or true,
    }
}

object! {
    /// One key of a fuzzy watch's difference.
    ServiceWatchContext {
        /// `namespace@@group@@service`.
        service_key: Text<'a> = "serviceKey",
        /// `ADD_SERVICE` or `DELETE_SERVICE`.
        changed_type: Text<'a> = "changedType",
    }
}

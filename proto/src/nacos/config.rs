//! Messages of the configuration store.

use super::message::{object, requests, responses};
use super::{BTreeMap, Text, TextMap};

requests! { "config";
    /// Reads one config. Unary.
    ConfigQueryRequest {
        /// Key.
        data_id: Text<'a> = "dataId",
        /// Key; SDKs fill in `DEFAULT_GROUP`.
        group: Text<'a> = "group",
        /// Namespace: empty, absent and `public` are the default one.
        tenant: Text<'a> = "tenant",
        /// The tag variant wanted; without one stored the config is "not found".
        tag: Option<Text<'a>> = "tag",
        /// Whether a push made the client ask; for statistics.
        notify: bool = "notify",
    }

    /// Stores one config. Unary.
    ConfigPublishRequest {
        /// Key.
        data_id: Text<'a> = "dataId",
        /// Key.
        group: Text<'a> = "group",
        /// Namespace.
        tenant: Text<'a> = "tenant",
        /// The text; empty is refused by the handler.
        content: Text<'a> = "content",
        /// Store only if the current md5 equals it; empty and absent: store in any case.
        cas_md5: Option<Text<'a>> = "casMd5",
        /// `type`, `betaIps`, `tag`, `appName`, `src_user`, `config_tags`, `desc`, `encryptedDataKey` and
        /// others.
        addition_map: TextMap<'a> = "additionMap",
    }

    /// Removes one config; removing what is absent succeeds. Unary.
    ConfigRemoveRequest {
        /// Key.
        data_id: Text<'a> = "dataId",
        /// Key.
        group: Text<'a> = "group",
        /// Namespace.
        tenant: Text<'a> = "tenant",
        /// Remove this tag variant only.
        tag: Option<Text<'a>> = "tag",
    }

    /// Listens to keys, or stops to; also the regular comparison of all md5. Unary.
    ConfigBatchListenRequest {
        /// False: stop listening.
        listen: bool = "listen" or true,
        /// The keys, with what the client holds of each.
        config_listen_contexts: Vec<ListenContext<'a>> = "configListenContexts",
    }

    /// Server to client: this config changed. The client compares and reads again.
    ConfigChangeNotifyRequest {
        /// Key.
        data_id: Text<'a> = "dataId",
        /// Key.
        group: Text<'a> = "group",
        /// Namespace, spelled as in the listen of this connection and key.
        tenant: Text<'a> = "tenant",
    }

    /// Watches all configs that match a pattern (3.0). Unary.
    ConfigFuzzyWatchRequest {
        /// `namespace>>groupPattern>>dataIdPattern`.
        group_key_pattern: Text<'a> = "groupKeyPattern",
        /// Group keys the client knows already: `dataId+group+namespace`.
        received_group_keys: Vec<Text<'a>> = "receivedGroupKeys",
        /// `WATCH` or `CANCEL_WATCH`.
        watch_type: Text<'a> = "watchType",
        /// True for the first one after a connect.
        initializing: bool = "initializing",
    }

    /// Server to client: a batch of the difference between what matches and what the client knows.
    ConfigFuzzyWatchSyncRequest {
        /// The pattern of the watch.
        group_key_pattern: Text<'a> = "groupKeyPattern",
        /// At most twenty keys.
        contexts: Vec<FuzzyWatchContext<'a>> = "contexts",
        /// `FUZZY_WATCH_INIT_NOTIFY`, `FUZZY_WATCH_DIFF_SYNC_NOTIFY` or, without contexts and after all
        /// batches were acknowledged, `FINISH_FUZZY_WATCH_INIT_NOTIFY`.
        sync_type: Text<'a> = "syncType",
        /// How many batches there are.
        total_batch: i32 = "totalBatch",
        /// Which one this is, from 1.
        current_batch: i32 = "currentBatch",
    }

    /// Server to client: a config that matches came or went. Its content does not matter.
    ConfigFuzzyWatchChangeNotifyRequest {
        /// `dataId+group+namespace`.
        group_key: Text<'a> = "groupKey",
        /// `ADD_CONFIG` or `DELETE_CONFIG`.
        change_type: Text<'a> = "changeType",
    }

    /// Server to client: what do you hold of these keys?
    ClientConfigMetricRequest {
        /// What is asked for.
        metrics_keys: Vec<MetricsKey<'a>> = "metricsKeys",
    }
}

responses! {
    /// Answer to [`ConfigQueryRequest`]. "Not found" is this type with error code 300, never an
    /// `ErrorResponse`: clients turn it into "no content".
    ConfigQueryResponse {
        /// The text. Present on success.
        content: Option<Text<'a>> = "content",
        /// Of this content. Present on success: the Rust SDK panics without it.
        md5: Option<Text<'a>> = "md5",
        /// `json`, `text`, ...; not a MIME type. Present on success.
        content_type: Option<Text<'a>> = "contentType",
        /// Of encrypted configs; present or absent alike otherwise.
        encrypted_data_key: Option<Text<'a>> = "encryptedDataKey",
        /// Milliseconds since the epoch; 0 when not found.
        last_modified: i64 = "lastModified",
        /// Whether this is the beta variant. Not `isBeta`.
        beta: bool = "beta",
        /// The tag, only when a tag variant is served: Go and Python would not read text in other answers.
        tag: Option<Text<'a>> = "tag",
    }

    /// Answer to [`ConfigPublishRequest`].
    ConfigPublishResponse {}

    /// Answer to [`ConfigRemoveRequest`].
    ConfigRemoveResponse {}

    /// Answer to [`ConfigBatchListenRequest`].
    ConfigChangeBatchListenResponse {
        /// The keys whose md5 is another one than the client's.
        changed_configs: Vec<ConfigKey<'a>> = "changedConfigs",
    }

    /// Acknowledges [`ConfigChangeNotifyRequest`].
    ConfigChangeNotifyResponse {}

    /// Answer to [`ConfigFuzzyWatchRequest`].
    ConfigFuzzyWatchResponse {}

    /// Acknowledges [`ConfigFuzzyWatchSyncRequest`].
    ConfigFuzzyWatchSyncResponse {}

    /// Acknowledges [`ConfigFuzzyWatchChangeNotifyRequest`].
    ConfigFuzzyWatchChangeNotifyResponse {}

    /// Answer to [`ClientConfigMetricRequest`].
    ClientConfigMetricResponse {
        /// Key to whatever the client says of it.
        metrics: BTreeMap<Text<'a>, serde_json::Value> = "metrics",
    }
}

object! {
    /// One key of a batch listen.
    ListenContext {
        /// Key.
        data_id: Text<'a> = "dataId",
        /// Key.
        group: Text<'a> = "group",
        /// Namespace, to be echoed as it was spelled.
        tenant: Text<'a> = "tenant",
        /// Of what the client holds; empty: nothing.
        md5: Text<'a> = "md5",
    }
}

object! {
    /// A key that changed. All three are always present: Rust requires the tenant.
    ConfigKey {
        /// Key.
        group: Text<'a> = "group",
        /// Key.
        data_id: Text<'a> = "dataId",
        /// Namespace, spelled as in the request.
        tenant: Text<'a> = "tenant",
    }
}

object! {
    /// One key of a fuzzy watch's difference.
    FuzzyWatchContext {
        /// `dataId+group+namespace`.
        group_key: Text<'a> = "groupKey",
        /// `ADD_CONFIG` or `DELETE_CONFIG`.
        changed_type: Text<'a> = "changedType",
    }
}

object! {
    /// What a client is asked about.
    MetricsKey {
        /// `cacheData` or `snapshotData`.
        kind: Text<'a> = "type",
        /// `dataId+group+tenant`.
        key: Text<'a> = "key",
    }
}

//! How watches of patterns are worded for configs and for services.

use proto::nacos::config::{
    ConfigFuzzyWatchChangeNotifyRequest, ConfigFuzzyWatchSyncRequest, FuzzyWatchContext,
};
use proto::nacos::naming::{
    NamingFuzzyWatchChangeNotifyRequest, NamingFuzzyWatchSyncRequest, ServiceWatchContext,
};
use proto::nacos::{Message, Text};

use crate::model::{ConfigKey, ServiceKey};
use crate::service::fuzzy::{FuzzyNotice, Watchable};

/// The messages of one kind of names.
pub(super) trait Wording: Watchable {
    /// The refusal to tell all matches.
    const TOO_MANY_MATCHES: &'static str;

    type Change<'a>: Message;
    type Sync<'a>: Message;

    /// A name came or went.
    fn change<'a>(id: Text<'static>, key: &'a str, exists: bool) -> Self::Change<'a>;

    /// A part of a sync, or its end.
    fn sync<'a>(id: Text<'static>, notice: &'a FuzzyNotice) -> Self::Sync<'a>;
}

impl Wording for ConfigKey {
    const TOO_MANY_MATCHES: &'static str = "the pattern matches too many configs";

    type Change<'a> = ConfigFuzzyWatchChangeNotifyRequest<'a>;
    type Sync<'a> = ConfigFuzzyWatchSyncRequest<'a>;

    fn change<'a>(id: Text<'static>, key: &'a str, exists: bool) -> Self::Change<'a> {
        ConfigFuzzyWatchChangeNotifyRequest {
            request_id: Some(id),
            group_key: key.into(),
            change_type: config_changed(exists).into(),
            ..ConfigFuzzyWatchChangeNotifyRequest::default()
        }
    }

    fn sync<'a>(id: Text<'static>, notice: &'a FuzzyNotice) -> Self::Sync<'a> {
        let sync = Part::of(notice);
        let contexts = sync.contexts.iter().map(|(key, exists)| FuzzyWatchContext {
            group_key: key.as_str().into(),
            changed_type: config_changed(*exists).into(),
        });
        ConfigFuzzyWatchSyncRequest {
            request_id: Some(id),
            group_key_pattern: sync.pattern.into(),
            contexts: contexts.collect(),
            sync_type: sync.kind.into(),
            total_batch: sync.total,
            current_batch: sync.current,
            ..ConfigFuzzyWatchSyncRequest::default()
        }
    }
}

impl Wording for ServiceKey {
    const TOO_MANY_MATCHES: &'static str = "the pattern matches too many services";

    type Change<'a> = NamingFuzzyWatchChangeNotifyRequest<'a>;
    type Sync<'a> = NamingFuzzyWatchSyncRequest<'a>;

    fn change<'a>(id: Text<'static>, key: &'a str, exists: bool) -> Self::Change<'a> {
        NamingFuzzyWatchChangeNotifyRequest {
            request_id: Some(id),
            sync_type: "FUZZY_WATCH_RESOURCE_CHANGED".into(),
            service_key: key.into(),
            changed_type: service_changed(exists).into(),
            ..NamingFuzzyWatchChangeNotifyRequest::default()
        }
    }

    fn sync<'a>(id: Text<'static>, notice: &'a FuzzyNotice) -> Self::Sync<'a> {
        let sync = Part::of(notice);
        let contexts = sync.contexts.iter().map(|(key, exists)| ServiceWatchContext {
            service_key: key.as_str().into(),
            changed_type: service_changed(*exists).into(),
        });
        NamingFuzzyWatchSyncRequest {
            request_id: Some(id),
            sync_type: sync.kind.into(),
            group_key_pattern: sync.pattern.into(),
            contexts: contexts.collect(),
            total_batch: sync.total,
            current_batch: sync.current,
            ..NamingFuzzyWatchSyncRequest::default()
        }
    }
}

/// What a sync says, but for its words.
#[derive(Default)]
struct Part<'a> {
    kind: &'static str,
    pattern: &'a str,
    contexts: &'a [(String, bool)],
    current: i32,
    total: i32,
}

impl Part<'_> {
    fn of(notice: &FuzzyNotice) -> Part<'_> {
        match notice {
            FuzzyNotice::Batch {
                pattern,
                initializing,
                contexts,
                number: (current, total),
            } => Part {
                kind: match initializing {
                    true => "FUZZY_WATCH_INIT_NOTIFY",
                    false => "FUZZY_WATCH_DIFF_SYNC_NOTIFY",
                },
                pattern,
                contexts,
                // A sync has at most 1,500 names.
                total: i32::try_from(*total).unwrap_or(i32::MAX),
                current: i32::try_from(*current).unwrap_or(i32::MAX),
            },
            FuzzyNotice::Finished { pattern } => Part {
                kind: "FINISH_FUZZY_WATCH_INIT_NOTIFY",
                pattern,
                ..Part::default()
            },
            FuzzyNotice::Change(..) => Part::default(),
        }
    }
}

fn config_changed(exists: bool) -> &'static str {
    match exists {
        true => "ADD_CONFIG",
        false => "DELETE_CONFIG",
    }
}

fn service_changed(exists: bool) -> &'static str {
    match exists {
        true => "ADD_SERVICE",
        false => "DELETE_SERVICE",
    }
}

//! The JSON messages: written so that the strictest SDK reads them, read so that the laxest is understood.

use proto::nacos::config::*;
use proto::nacos::naming::*;
use proto::nacos::remote::*;
use proto::nacos::{LIST_ITEMS_MAX, MAP_ENTRIES_MAX, Message, Response, read};
use serde_json::{Value, json};

fn written<M: Message>(message: &M) -> Value {
    let text = serde_json::to_string(message).expect("messages can be written");
    assert!(
        message.json_size() >= text.len(),
        "{} took {} bytes: {text}",
        M::TYPE,
        text.len()
    );
    serde_json::from_str(&text).expect("and are JSON")
}

/// What every answer of a type says in success and failure, fields of its own given as JSON.
fn answers<'a, R: Response<'a>>(own: &Value) {
    let with = |mut envelope: Value| {
        let fields = envelope.as_object_mut().expect("an object");
        fields.extend(own.as_object().expect("an object").clone());
        envelope
    };
    assert_eq!(
        written(&R::ok()),
        with(json!({"resultCode": 200, "errorCode": 0, "success": true})),
        "{}",
        R::TYPE
    );
    assert_eq!(
        written(&R::failed(400, "why").answering(Some("7".into()))),
        with(
            json!({"resultCode": 500, "errorCode": 400, "success": false, "message": "why", "requestId": "7"})
        ),
        "{}",
        R::TYPE
    );
}

#[test]
fn answers_always_have_their_scalars_and_never_a_null() {
    let none = json!({});
    answers::<ServerCheckResponse<'_>>(&json!({"connectionId": "", "supportAbilityNegotiation": false}));
    answers::<SetupAckResponse<'_>>(&none);
    answers::<HealthCheckResponse<'_>>(&none);
    answers::<ClientDetectionResponse<'_>>(&none);
    answers::<ConnectResetResponse<'_>>(&none);
    answers::<ErrorResponse<'_>>(&none);
    answers::<ConfigQueryResponse<'_>>(&json!({"lastModified": 0, "beta": false}));
    answers::<ConfigPublishResponse<'_>>(&none);
    answers::<ConfigRemoveResponse<'_>>(&none);
    answers::<ConfigChangeBatchListenResponse<'_>>(&json!({"changedConfigs": []}));
    answers::<ConfigChangeNotifyResponse<'_>>(&none);
    answers::<ConfigFuzzyWatchResponse<'_>>(&none);
    answers::<ConfigFuzzyWatchSyncResponse<'_>>(&none);
    answers::<ConfigFuzzyWatchChangeNotifyResponse<'_>>(&none);
    answers::<ClientConfigMetricResponse<'_>>(&json!({"metrics": {}}));
    answers::<InstanceResponse<'_>>(&json!({"type": ""}));
    answers::<BatchInstanceResponse<'_>>(&json!({"type": ""}));
    answers::<QueryServiceResponse<'_>>(&none);
    answers::<SubscribeServiceResponse<'_>>(&none);
    answers::<NotifySubscriberResponse<'_>>(&none);
    answers::<ServiceListResponse<'_>>(&json!({"count": 0, "serviceNames": []}));
    answers::<NamingFuzzyWatchResponse<'_>>(&none);
    answers::<NamingFuzzyWatchSyncResponse<'_>>(&none);
    answers::<NamingFuzzyWatchChangeNotifyResponse<'_>>(&none);
}

#[test]
fn pushes_always_have_headers_and_module() {
    let push = |module: &str, own: Value| {
        let mut expected = json!({"module": module, "headers": {}});
        let fields = expected.as_object_mut().expect("an object");
        fields.extend(own.as_object().expect("an object").clone());
        expected
    };
    let internal = |own| push("internal", own);
    assert_eq!(
        written(&SetupAckRequest::default()),
        internal(json!({"abilityTable": {}}))
    );
    assert_eq!(written(&ClientDetectionRequest::default()), internal(json!({})));
    assert_eq!(written(&ConnectResetRequest::default()), internal(json!({})));
    let config = |own| push("config", own);
    assert_eq!(
        written(&ConfigChangeNotifyRequest {
            request_id: Some("77".into()),
            ..Default::default()
        }),
        config(json!({"requestId": "77", "dataId": "", "group": "", "tenant": ""}))
    );
    assert_eq!(
        written(&ConfigFuzzyWatchSyncRequest::default()),
        config(
            json!({"groupKeyPattern": "", "contexts": [], "syncType": "", "totalBatch": 0, "currentBatch": 0})
        )
    );
    assert_eq!(
        written(&ConfigFuzzyWatchChangeNotifyRequest::default()),
        config(json!({"groupKey": "", "changeType": ""}))
    );
    assert_eq!(
        written(&ClientConfigMetricRequest::default()),
        config(json!({"metricsKeys": []}))
    );
    let naming = |own| push("naming", own);
    assert_eq!(
        written(&NamingFuzzyWatchSyncRequest::default()),
        naming(
            json!({"groupKeyPattern": "", "contexts": [], "syncType": "", "totalBatch": 0, "currentBatch": 0})
        )
    );
    assert_eq!(
        written(&NamingFuzzyWatchChangeNotifyRequest::default()),
        naming(json!({"syncType": "", "serviceKey": "", "changedType": ""}))
    );
    let service = json!({"name": "", "groupName": "", "clusters": "", "cacheMillis": 10000, "hosts": [],
        "lastRefTime": 0, "checksum": "", "allIPs": false, "allIps": false,
        "reachProtectionThreshold": false, "valid": true});
    assert_eq!(
        written(&NotifySubscriberRequest::default()),
        naming(json!({"serviceInfo": service}))
    );
}

#[test]
fn a_host_has_all_its_fields_and_a_weight_with_a_point() {
    let host = Instance {
        ip: "10.0.0.1".into(),
        port: 80,
        ..Default::default()
    };
    let answer = QueryServiceResponse {
        service_info: Some(ServiceInfo {
            hosts: vec![host],
            ..Default::default()
        }),
        ..Response::ok()
    };
    let text = serde_json::to_string(&answer).expect("messages can be written");
    let hosts = r#""hosts":[{"instanceId":"","ip":"10.0.0.1","port":80,"weight":1.0,"healthy":true,"enabled":true,"ephemeral":true,"clusterName":"DEFAULT","serviceName":"","metadata":{},"instanceHeartBeatInterval":5000,"instanceHeartBeatTimeOut":15000,"ipDeleteTimeout":30000,"instanceIdGenerator":"simple"}]"#;
    assert!(text.contains(hosts), "{text}");
}

#[test]
fn the_sample_answers_of_the_contract_are_written_to_the_byte() {
    let answer = ConfigQueryResponse {
        content: Some("a=1".into()),
        md5: Some("3872c9ae3f427af0be0ead09d07ae2cf".into()),
        content_type: Some("properties".into()),
        encrypted_data_key: Some("".into()),
        last_modified: 1_763_802_000_123,
        ..ConfigQueryResponse::ok().answering(Some("12".into()))
    };
    assert_eq!(
        serde_json::to_string(&answer).expect("messages can be written"),
        r#"{"resultCode":200,"errorCode":0,"success":true,"requestId":"12","content":"a=1","md5":"3872c9ae3f427af0be0ead09d07ae2cf","contentType":"properties","encryptedDataKey":"","lastModified":1763802000123,"beta":false}"#
    );
    let key = ConfigKey {
        group: "DEFAULT_GROUP".into(),
        data_id: "app.yaml".into(),
        tenant: "".into(),
    };
    let answer = ConfigChangeBatchListenResponse {
        changed_configs: vec![key],
        ..Response::ok()
    };
    assert_eq!(
        serde_json::to_string(&answer).expect("messages can be written"),
        r#"{"resultCode":200,"errorCode":0,"success":true,"changedConfigs":[{"group":"DEFAULT_GROUP","dataId":"app.yaml","tenant":""}]}"#
    );
}

#[test]
fn null_and_missing_leave_the_default_of_the_field() {
    let request: ConfigBatchListenRequest<'_> =
        read(br#"{"listen":null,"configListenContexts":null}"#).expect("read");
    assert_eq!(request, ConfigBatchListenRequest::default());
    assert!(request.listen);
    let request: ServiceListRequest<'_> =
        read(br#"{"pageNo":null,"requestId":null,"headers":null}"#).expect("read");
    assert_eq!(request, ServiceListRequest::default());
    assert_eq!((request.page_no, request.page_size), (1, 20));
    let request: InstanceRequest<'_> =
        read(br#"{"instance":{"ip":"::1","weight":null,"metadata":null,"healthy":null}}"#).expect("read");
    assert_eq!(
        request.instance,
        Instance {
            ip: "::1".into(),
            ..Default::default()
        }
    );
    let request: ConfigBatchListenRequest<'_> =
        read(br#"{"configListenContexts":[{"dataId":"d","md5":null},null]}"#).expect("read");
    let named = ListenContext {
        data_id: "d".into(),
        ..Default::default()
    };
    assert_eq!(request.config_listen_contexts, [named, ListenContext::default()]);
    let setup: ConnectionSetupRequest<'_> = read(br#"{"abilityTable":null}"#).expect("read");
    assert_eq!(setup.ability_table, None);
    let setup: ConnectionSetupRequest<'_> = read(br#"{"abilityTable":{}}"#).expect("read");
    assert!(setup.ability_table.is_some());
}

#[test]
fn numbers_truth_and_text_stand_in_for_each_other() {
    let instance = |json: &str| {
        let request = format!(r#"{{"instance":{json}}}"#);
        let request: InstanceRequest<'_> = read(request.as_bytes()).expect("read");
        let Instance {
            port,
            weight,
            healthy,
            enabled,
            ..
        } = request.instance;
        (port, weight, healthy, enabled)
    };
    assert_eq!(
        instance(r#"{"port":"80","weight":"0.5","healthy":"False","enabled":0}"#),
        (80, 0.5, false, false)
    );
    assert_eq!(
        instance(r#"{"port":80.0,"weight":2,"healthy":1,"enabled":"1"}"#),
        (80, 2.0, true, true)
    );
    assert_eq!(
        instance(r#"{"port":"","weight":"","healthy":"","enabled":"true"}"#),
        (0, 1.0, true, true)
    );
    let setup: ConnectionSetupRequest<'_> =
        read(br#"{"labels":{"taskId":0,"tls.enable":false,"n":null,"f":1.5},"requestId":12}"#).expect("read");
    assert_eq!(setup.labels["taskId"], "0");
    assert_eq!(setup.labels["tls.enable"], "false");
    assert_eq!(setup.labels["n"], "");
    assert_eq!(setup.labels["f"], "1.5");
    assert_eq!(setup.request_id.as_deref(), Some("12"));
}

#[test]
fn unknown_fields_are_skipped_and_of_doubled_ones_the_last_counts() {
    let request: ConfigQueryRequest<'_> = read(
        br#" {"x":{"deep":[1,{}]},"dataId":"a","dataId":"b","module":7,"\u0067roup":"g","tenant":"t\n"} "#,
    )
    .expect("read");
    let ConfigQueryRequest {
        data_id,
        group,
        tenant,
        ..
    } = request;
    assert_eq!((&*data_id, &*group, &*tenant), ("b", "g", "t\n"));
    assert!(
        matches!(data_id, std::borrow::Cow::Borrowed(_)),
        "text without escapes is not copied"
    );
    assert!(matches!(tenant, std::borrow::Cow::Owned(_)));
}

#[test]
fn an_acknowledgement_counts_by_its_result_code_alone() {
    let success = |json: &str| read::<Ack<'_>>(json.as_bytes()).expect("read").is_success();
    assert!(success(
        r#"{"requestId":"1","resultCode":200,"success":false,"errorCode":5}"#
    ));
    assert!(success(r#"{"resultCode":"200"}"#));
    assert!(!success(r#"{"requestId":"1","success":true}"#));
    assert!(!success(r#"{"requestId":"1","resultCode":500}"#));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for body in [
        "",
        "  ",
        "[]",
        "null",
        "\"{}\"",
        "{",
        "{}{}",
        r#"{"dataId":{}}"#,
        r#"{"notify":"perhaps"}"#,
        r#"{"headers":[]}"#,
    ] {
        assert!(read::<ConfigQueryRequest<'_>>(body.as_bytes()).is_err(), "{body}");
    }
    for port in ["4294967296", "\"x\"", "1e300", "[]", "18446744073709551615"] {
        let body = format!(r#"{{"instance":{{"port":{port}}}}}"#);
        assert!(read::<InstanceRequest<'_>>(body.as_bytes()).is_err(), "{body}");
    }
    for weight in ["\"NaN\"", "\"inf\"", "1e999", "{}"] {
        let body = format!(r#"{{"instance":{{"weight":{weight}}}}}"#);
        assert!(read::<InstanceRequest<'_>>(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn lists_and_maps_end_at_their_limits() {
    let list = |items: usize| {
        let body = format!(r#"{{"receivedGroupKeys":[{}]}}"#, vec!["\"\""; items].join(","));
        read::<ConfigFuzzyWatchRequest<'_>>(body.as_bytes()).is_ok()
    };
    assert!(list(LIST_ITEMS_MAX));
    assert!(!list(LIST_ITEMS_MAX + 1));
    let map = |entries: usize| {
        let entries: Vec<_> = (0..entries).map(|key| format!(r#""{key}":"""#)).collect();
        let body = format!(r#"{{"labels":{{{}}}}}"#, entries.join(","));
        read::<ConnectionSetupRequest<'_>>(body.as_bytes()).is_ok()
    };
    assert!(map(MAP_ENTRIES_MAX));
    assert!(!map(MAP_ENTRIES_MAX + 1));
}

#[test]
fn what_is_written_is_read_back() {
    let request = ConfigPublishRequest {
        request_id: Some("3".into()),
        headers: [("a".into(), "b".into())].into(),
        data_id: "d\"\u{e9}".into(),
        group: "g".into(),
        tenant: "t".into(),
        content: "line\nline\t\u{1f600}\0".into(),
        cas_md5: Some("0".repeat(32).into()),
        addition_map: [("type".into(), "yaml".into())].into(),
    };
    let text = serde_json::to_vec(&request).expect("messages can be written");
    assert_eq!(read::<ConfigPublishRequest<'_>>(&text).expect("read"), request);
    let request = BatchInstanceRequest {
        kind: "batchRegisterInstance".into(),
        instances: vec![
            Instance {
                port: 65_535,
                weight: 0.25,
                enabled: false,
                ..Default::default()
            };
            2
        ],
        ..Default::default()
    };
    let text = serde_json::to_vec(&request).expect("messages can be written");
    assert_eq!(read::<BatchInstanceRequest<'_>>(&text).expect("read"), request);
}

//! The configuration store over gRPC: reading, publishing, removing (contract 01 §4.1 to §4.3).

mod listen;

pub(in crate::grpc) use listen::{expect, part};

use std::borrow::Cow;

use proto::nacos::config::{
    ConfigPublishRequest, ConfigPublishResponse, ConfigQueryRequest, ConfigQueryResponse,
    ConfigRemoveRequest, ConfigRemoveResponse,
};
use proto::nacos::{Message, Response, Text, code};

use crate::cluster::BoxFuture;
use crate::config::{Client, Entry, Gray, RuleKind, Variant};
use crate::error::Error;
use crate::grpc::dispatch::{Answer, Call, Failure, Row, bad_body, rows};
use crate::model::{ConfigKey, Md5Hex, validate};
use crate::service::config::{Name, NewConfig, Reading};

/// Rows of the configuration store.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(BORROWING).chain(listen::ROWS)
}

const ROWS: &[Row] = rows! {
    ConfigPublishRequest => ConfigPublishResponse: publish;
    ConfigRemoveRequest => ConfigRemoveResponse: remove;
};

/// A row whose answer borrows from what was read, which lives no longer than the row: a content of up to
/// 10 MiB is copied once, into the frame.
const BORROWING: &[Row] = &[Row {
    name: ConfigQueryRequest::TYPE,
    run: query,
}];

fn query(call: Call) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let request: ConfigQueryRequest<'_> = match call.payload.read() {
            Ok(request) => request,
            Err(error) => return bad_body(&call, &error),
        };
        let id = request.request_id.clone();
        let read = read(&call, &request).await;
        let answer = match &read {
            Ok(Some(reading)) => found(reading),
            // A client deletes its own copy when it hears this.
            Ok(None) if !call.node_is_current() => Err(Failure::starting()),
            Ok(None) => Ok(ConfigQueryResponse::failed(
                code::CONFIG_NOT_FOUND,
                "config data not exist",
            )),
            Err(failure) => Err(failure.clone()),
        };
        Answer::of(answer, id)
    })
}

async fn read(call: &Call, request: &ConfigQueryRequest<'_>) -> Result<Option<Reading>, Failure> {
    let key = name(&request.tenant, &request.group, &request.data_id).key()?;
    let tag = given(request.tag.as_ref());
    tag.map_or(Ok(()), validate::tag)
        .map_err(|invalid| Error::Invalid(invalid.to_string()))?;
    let services = call.services();
    let is_linearizable = match call.payload.header("consistency") {
        Some(consistency) => consistency == "linearizable",
        None => services.reads_are_linearizable(),
    };
    if is_linearizable {
        services.catch_up().await?;
    }
    // Before it is read: a change in between is told, and not taken for read.
    listen::has_read(call, &key);
    Ok(services.read(&key, tag, &client(call)))
}

/// What gray rules look at.
fn client(call: &Call) -> Client<'_> {
    Client {
        ip: &call.client.setup.client_ip,
        tag: client_tag(call),
    }
}

/// The tag of the request, else that of the connection.
fn client_tag(call: &Call) -> Option<&str> {
    let tag = call.payload.header(TAG_HEADER);
    tag.or_else(|| call.client.setup.label(TAG_HEADER))
        .filter(|tag| !tag.is_empty())
}

const TAG_HEADER: &str = "Vipserver-Tag";

fn found(reading: &Reading) -> Result<ConfigQueryResponse<'_>, Failure> {
    match reading {
        Reading::Formal(entry) => formal(entry),
        Reading::Matched(gray) => {
            let tag = match gray.rule.kind {
                RuleKind::Tag => Some(&*gray.rule.expression),
                RuleKind::Beta | RuleKind::Other(_) => None,
            };
            variant(gray, tag)
        }
        Reading::Tag(gray, tag) => variant(gray, Some(tag)),
    }
}

fn formal(entry: &Entry) -> Result<ConfigQueryResponse<'_>, Failure> {
    Ok(ConfigQueryResponse {
        content: Some(text(&entry.key, &entry.content)?),
        md5: Some(digits(&entry.md5_hex)),
        content_type: Some(entry.kind.as_str().into()),
        encrypted_data_key: Some(entry.encrypted_data_key().into()),
        last_modified: entry.modified_ms,
        ..ConfigQueryResponse::ok()
    })
}

fn variant<'a>(gray: &'a Gray, tag: Option<&'a str>) -> Result<ConfigQueryResponse<'a>, Failure> {
    Ok(ConfigQueryResponse {
        content: Some(text(&gray.key, &gray.content)?),
        md5: Some(digits(&gray.md5_hex)),
        content_type: Some(gray.kind.as_str().into()),
        encrypted_data_key: Some((&*gray.encrypted_data_key).into()),
        last_modified: gray.modified_ms,
        beta: gray.rule.kind == RuleKind::Beta,
        tag: tag.map(Text::from),
        ..ConfigQueryResponse::ok()
    })
}

fn digits(md5: &Md5Hex) -> Text<'_> {
    md5.as_str().into()
}

/// Contents are UTF-8; one that is not (a foreign import, a fault of ours) is told and not mangled.
fn text<'a>(key: &ConfigKey, content: &'a [u8]) -> Result<Text<'a>, Failure> {
    let text = std::str::from_utf8(content);
    let text = text.map_err(|_| Error::Internal(format!("the content of {key} is not UTF-8")))?;
    Ok(text.into())
}

async fn publish<'a>(
    call: &'a Call,
    request: ConfigPublishRequest<'a>,
) -> Result<ConfigPublishResponse<'a>, Failure> {
    let ConfigPublishRequest {
        data_id,
        group,
        tenant,
        content,
        cas_md5,
        addition_map,
        ..
    } = request;
    let more = |key: &str| addition_map.get(key).map(Cow::as_ref);
    let new = NewConfig {
        name: name(&tenant, &group, &data_id),
        content: (!content.is_empty()).then_some(content),
        tag: more("tag"),
        beta_ips: more("betaIps"),
        cas_md5: cas_md5.as_deref(),
        app_name: more("appName"),
        config_tags: more("config_tags"),
        description: more("desc"),
        purpose: more("use"),
        effect: more("effect"),
        kind: more("type"),
        schema: more("schema"),
        encrypted_data_key: more("encryptedDataKey"),
        source_user: more("src_user"),
        message: None,
    };
    let services = call.services();
    let publication = services.prepare(new, &call.caller())?;
    services.publish(publication).await?;
    Ok(ConfigPublishResponse::ok())
}

async fn remove<'a>(
    call: &'a Call,
    request: ConfigRemoveRequest<'a>,
) -> Result<ConfigRemoveResponse<'a>, Failure> {
    let key = name(&request.tenant, &request.group, &request.data_id).key()?;
    let tag = given(request.tag.as_ref());
    tag.map_or(Ok(()), validate::tag)
        .map_err(|invalid| Error::Invalid(invalid.to_string()))?;
    let variant = tag.map_or(Variant::Formal, Variant::tag);
    call.services().remove(key, variant, &call.caller()).await?;
    Ok(ConfigRemoveResponse::ok())
}

/// A name as it was sent. Absent and empty are the same over gRPC.
fn name<'a>(tenant: &'a str, group: &'a str, data_id: &'a str) -> Name<'a> {
    let part = |text: &'a str| (!text.is_empty()).then_some(text);
    Name {
        namespace: part(tenant),
        group: part(group),
        data_id: part(data_id),
    }
}

/// A field that SDKs leave out, send as null, or blank when there is nothing to say.
fn given<'a>(text: Option<&'a Text<'_>>) -> Option<&'a str> {
    text.map(AsRef::as_ref)
        .filter(|text: &&str| !text.trim().is_empty())
}

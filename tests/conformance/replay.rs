//! Sending the recorded requests: the request side of `tests/oracle/replay.py`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A case as `cases_base.json` has it.
#[derive(Clone, Debug)]
pub(crate) struct Case(pub Value);

impl Case {
    /// Its name, which is also the key of the recorded answer.
    pub(crate) fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// Its group.
    pub(crate) fn group(&self) -> &str {
        self.0["group"].as_str().unwrap_or_default()
    }

    /// Sent, not compared.
    pub(crate) fn is_setup(&self) -> bool {
        self.0["setup"].as_bool() == Some(true)
    }

    /// What the Java server does here is an accident.
    pub(crate) fn is_quirk(&self) -> bool {
        self.0["quirk"].is_string()
    }
}

/// Variables of one pass: a fresh name for everything, and values saved from answers.
#[derive(Debug)]
pub(crate) struct Pass {
    /// The server.
    pub address: SocketAddr,
    /// Stands in every name.
    pub run: String,
    saved: HashMap<String, String>,
}

/// An answer with the pass' own name masked.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Status.
    pub status: u16,
    /// Media type without parameters.
    pub media: String,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Body,
    /// How long it took.
    pub ms: u64,
    raw: String,
}

/// A body by kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// JSON, by content type or by its looks.
    Json(Value),
    /// Anything else; long ones as length and MD5.
    Text(String),
}

impl Body {
    /// As the recording names it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Body::Empty => "empty",
            Body::Json(_) => "json",
            Body::Text(_) => "text",
        }
    }
}

impl Pass {
    /// A pass against a server.
    pub(crate) fn new(address: SocketAddr, run: &str) -> Pass {
        let saved = HashMap::from([("RUN".to_owned(), run.to_owned())]);
        Pass {
            address,
            run: run.to_owned(),
            saved,
        }
    }

    /// Sends a case, with its `background` request beside it; a read is repeated until `good` or until
    /// its time to settle is over (the Java server is asynchronous; ours must be good at once).
    pub(crate) async fn send(&mut self, case: &Case, good: impl Fn(&Answer) -> bool) -> Answer {
        let has_wish = ["expect", "has", "lacks"]
            .iter()
            .any(|wish| !case.0[*wish].is_null());
        let settle = if case.0["method"] == "GET" && has_wish {
            Duration::from_secs(1)
        } else {
            Duration::ZERO
        };
        let started = Instant::now();
        loop {
            let answer = self.send_once(case).await;
            if good(&answer) || started.elapsed() >= settle {
                self.save(case, &answer);
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send_once(&self, case: &Case) -> Answer {
        let request = self.build(&case.0);
        let background = case.0.get("background").map(|background| {
            let after = background["after"].as_f64().unwrap_or(1.0);
            (after, self.build(background))
        });
        let beside = async {
            if let Some((after, request)) = background {
                tokio::time::sleep(Duration::from_secs_f64(after)).await;
                drop(exchange(self.address, request).await);
            }
        };
        let started = Instant::now();
        let main = async {
            let answer = exchange(self.address, request).await;
            (answer, started.elapsed())
        };
        let ((answer, took), ()) = tokio::join!(main, beside);
        self.normalise(answer, took)
    }

    fn build(&self, case: &Value) -> http::Request<Full<Bytes>> {
        let method = case["method"].as_str().unwrap_or("GET");
        let mut target = format!("/nacos{}", self.fill(case["path"].as_str().unwrap_or_default()));
        let query = self.form(&case["q"]);
        if !query.is_empty() {
            target = format!("{target}?{query}");
        }
        let form = "application/x-www-form-urlencoded";
        let (body, kind) = if case["form"].is_object() {
            (self.form(&case["form"]), Some(form.to_owned()))
        } else if let Some(json) = case.get("json").filter(|json| !json.is_null()) {
            (self.fill(&json.to_string()), Some("application/json".to_owned()))
        } else if let Some(raw) = case["raw"].as_str() {
            (
                self.fill(raw),
                Some(case["raw_type"].as_str().unwrap_or("text/plain").to_owned()),
            )
        } else if ["POST", "PUT", "PATCH"].contains(&method) {
            (String::new(), Some(form.to_owned()))
        } else {
            (String::new(), None)
        };
        let mut request = http::Request::builder().method(method).uri(target);
        request = request
            .header("host", self.address.to_string())
            .header("user-agent", "curl/7.88.1");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        if let Some(headers) = case["headers"].as_object() {
            for (name, value) in headers {
                request = request.header(name, self.fill(value.as_str().unwrap_or_default()));
            }
        }
        request.body(Full::from(body)).expect("a request")
    }

    fn form(&self, fields: &Value) -> String {
        let encode = |text: &str| -> String {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
            text.bytes()
                .map(|byte| {
                    if plain(&byte) {
                        char::from(byte).to_string()
                    } else {
                        format!("%{byte:02X}")
                    }
                })
                .collect()
        };
        let pairs = fields.as_object().into_iter().flatten().map(|(name, value)| {
            format!(
                "{}={}",
                encode(name),
                encode(&self.fill(value.as_str().unwrap_or_default()))
            )
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    /// `${name}` to the saved value, `BIG:n` to n letters.
    fn fill(&self, text: &str) -> String {
        if let Some(length) = text.strip_prefix("BIG:") {
            return "x".repeat(length.parse().expect("a length"));
        }
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').expect("a closed variable");
            filled.push_str(before);
            filled.push_str(self.saved.get(name).map_or("0", String::as_str));
            rest = after;
        }
        filled + rest
    }

    fn save(&mut self, case: &Case, answer: &Answer) {
        for (name, path) in case.0["save"].as_object().into_iter().flatten() {
            let json: Value = serde_json::from_str(&answer.raw).unwrap_or_default();
            let value = path
                .as_str()
                .unwrap_or_default()
                .split('.')
                .fold(&json, |value, step| match step.parse::<usize>() {
                    Ok(position) => &value[position],
                    Err(_) => &value[step],
                });
            if !value.is_null() {
                self.saved.insert(
                    name.clone(),
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                );
            }
        }
    }

    fn normalise(&self, answer: http::Response<Bytes>, took: Duration) -> Answer {
        let mask = |text: &str| {
            text.replace(&self.run, "$RUN")
                .replace(&self.run.to_uppercase(), "$RUN")
                .replace(&format!("127.0.0.1:{}", self.address.port()), "127.0.0.1:$PORT")
        };
        let headers: BTreeMap<String, String> = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), mask(&String::from_utf8_lossy(value.as_bytes()))))
            .collect();
        let media = headers
            .get("content-type")
            .map(|kind| kind.split(';').next().unwrap_or_default().trim().to_lowercase());
        let media = media.unwrap_or_default();
        let bytes = answer.body();
        let raw = String::from_utf8_lossy(bytes).into_owned();
        let text = mask(&raw);
        let looks_like_json =
            text.starts_with(['{', '[']) || text == "true" || text == "false" || media == "application/json";
        let body = match serde_json::from_str(&text) {
            _ if bytes.is_empty() => Body::Empty,
            _ if text.len() > 65_536 => Body::Text(long(bytes)),
            Ok(json) if looks_like_json => Body::Json(json),
            _ => Body::Text(text),
        };
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Answer {
            status: answer.status().as_u16(),
            media,
            headers,
            body,
            ms,
            raw,
        }
    }
}

fn long(bytes: &[u8]) -> String {
    format!(
        "<{} bytes, md5 {}>",
        bytes.len(),
        rnacos::model::Md5::of(bytes).hex()
    )
}

/// One request on a connection of its own.
async fn exchange(address: SocketAddr, request: http::Request<Full<Bytes>>) -> http::Response<Bytes> {
    let socket = TcpStream::connect(address).await.expect("the server accepts");
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .expect("a connection");
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    drop(sender);
    drop(connection.await);
    http::Response::from_parts(head, body)
}

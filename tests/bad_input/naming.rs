//! Bad input on the routes of the registry.

use super::cases::{Case, ILLEGAL, Row, case, long};

/// What every call refuses in the name of a service; `rest` makes the request right otherwise.
fn services(rest: &str) -> Vec<Case> {
    let with = |name: &str| format!("{name}&{rest}");
    let too_long = |name: &str, max: usize| {
        format!("Param '{name}' is illegal, the param length should not exceed {max}.\r\n")
    };
    vec![
        case(
            with("serviceName=a%20b"),
            400,
            format!("Param 'serviceName' {ILLEGAL}"),
        ),
        case(
            with("serviceName=%E6%9C%8D"),
            400,
            format!("Param 'serviceName' {ILLEGAL}"),
        ),
        case(
            with("serviceName=@@x"),
            400,
            format!("Param 'serviceName' {ILLEGAL}"),
        ),
        case(
            with("serviceName=g@@a@@b"),
            400,
            format!("Param 'serviceName' {ILLEGAL}"),
        ),
        case(
            with("serviceName=a%00"),
            400,
            format!("Param 'serviceName' {ILLEGAL}"),
        ),
        case(with("serviceName=g$@@s"), 400, format!("Param 'group' {ILLEGAL}")),
        case(
            with("serviceName=s&groupName=g/g"),
            400,
            format!("Param 'group' {ILLEGAL}"),
        ),
        case(
            with("serviceName=s&namespaceId=a@b"),
            400,
            format!("Param 'namespaceId/tenant' {ILLEGAL}"),
        ),
        case(
            with(&format!("serviceName={}", long(513))),
            400,
            too_long("serviceName", 512),
        ),
        case(
            with(&format!("serviceName=s&groupName={}", long(129))),
            400,
            too_long("group", 128),
        ),
        case(
            with(&format!("serviceName=s&namespaceId={}", long(65))),
            400,
            too_long("namespaceId/tenant", 64),
        ),
    ]
}

fn required(rest: &str) -> Vec<Case> {
    let text = "Param 'serviceName' is required.";
    let mut cases = services(rest);
    cases.push(case(rest, 400, text));
    cases.push(case(format!("serviceName=%20&{rest}"), 400, text));
    cases
}

/// What every call refuses in the place of an instance.
fn places(rest: &str) -> Vec<Case> {
    let with = |place: &str| format!("serviceName=kept&{place}&{rest}");
    let port = "Param 'port' is illegal, the value should be between 0 and 65535.\r\n";
    vec![
        case(with("port=1"), 400, "Param 'ip' is required."),
        case(with("ip=&port=1"), 400, "Param 'ip' is required."),
        case(with("ip=10.0.0.1"), 400, "Param 'port' is required."),
        case(with("ip=10.0.0.1&port=x"), 400, port),
        case(with("ip=10.0.0.1&port=-1"), 400, port),
        case(with("ip=10.0.0.1&port=65536"), 400, port),
        case(with("ip=a%20b&port=1"), 400, format!("Param 'ip' {ILLEGAL}")),
        case(
            with(&format!("ip={}&port=1", long(129))),
            400,
            "Param 'ip' is illegal, the param length should not exceed 128.\r\n",
        ),
        case(
            with("ip=10.0.0.1&port=1&clusterName=c,d"),
            400,
            format!("Param 'cluster' {ILLEGAL}"),
        ),
        case(
            with(&format!("ip=10.0.0.1&port=1&cluster={}", long(65))),
            400,
            "Param 'cluster' is illegal, the param length should not exceed 64.\r\n",
        ),
    ]
}

fn instances(rest: &str) -> Vec<Case> {
    let with = |said: &str| format!("serviceName=kept&ip=10.0.0.9&port=1&{said}&{rest}");
    let weights = "instance format invalid: The weights range from 0.0 to 10000.0";
    let times = "Instance 'heart beat interval' must less than";
    vec![
        case(with("weight=x"), 400, "For input string: \"x\""),
        case(with("weight=-1"), 400, weights),
        case(with("weight=10001"), 400, weights),
        case(with("weight=NaN"), 400, weights),
        case(
            with("metadata=nonsense"),
            400,
            "metadata format incorrect:nonsense",
        ),
        case(with("metadata=%7B%22a%22:"), 400, "metadata format incorrect:"),
        case(with("metadata=[]"), 400, "metadata format incorrect:[]"),
        case(
            with(&format!("metadata=a={}", long(1_024))),
            400,
            "Param 'Metadata' is illegal, the param length should not exceed 1024.\r\n",
        ),
        case(with("clusterName=a_b"), 400, "Instance 'clusterName' should be"),
        case(with("metadata=preserved.heart.beat.interval=40000"), 400, times),
        case(with("metadata=preserved.ip.delete.timeout=1000"), 400, times),
    ]
}

fn lists() -> Vec<Case> {
    vec![
        case("serviceName=kept&udpPort=x", 400, "For input string: \"x\""),
        case(
            "serviceName=kept&clusters=a%20b",
            400,
            format!("Param 'cluster' {ILLEGAL}"),
        ),
    ]
}

fn beats() -> Vec<Case> {
    let with = |beat: &str| format!("serviceName=kept&beat={beat}");
    vec![
        case("serviceName=kept", 400, "Param 'ip' is required."),
        case(
            "serviceName=kept&ip=10.0.0.1&port=x",
            400,
            "Param 'port' is illegal",
        ),
        case(with("%7Bnope"), 400, "the beat is no JSON object"),
        case(with("[]"), 400, "the beat is no JSON object"),
        case(with("%7B%22port%22:80%7D"), 400, "Param 'ip' is required."),
        case(
            with("%7B%22ip%22:%22a%22,%22port%22:70000%7D"),
            400,
            "the beat is no JSON object",
        ),
        case(
            with("%7B%22ip%22:%22a%22,%22weight%22:-1%7D"),
            400,
            "The weights range from",
        ),
    ]
}

fn bound(rest: &str) -> Vec<Case> {
    let mut cases = services(rest);
    cases.push(case(rest, 400, "Parameter 'serviceName' is missing"));
    cases.push(case(
        format!("serviceName=%20&{rest}"),
        400,
        "Param 'serviceName' is required.",
    ));
    cases
}

fn settings(rest: &str) -> Vec<Case> {
    let with = |said: &str| format!("serviceName=kept&{said}&{rest}");
    let selector = "not match any type of selector!";
    vec![
        case(with("metadata=nonsense"), 400, "metadata format incorrect:"),
        case(
            with(&format!("metadata=a={}", long(1_024))),
            400,
            "Param 'Metadata' is illegal, the param length should not exceed 1024.\r\n",
        ),
        case(with("selector=nope"), 400, selector),
        case(with("selector=%7B%22type%22:%22x%22%7D"), 400, selector),
        case(with("protectThreshold=NaN"), 400, "protectThreshold is no number"),
    ]
}

fn clusters() -> Vec<Case> {
    let all = [
        ("serviceName", "kept"),
        ("clusterName", "c"),
        ("checkPort", "80"),
        ("useInstancePort4Check", "true"),
        ("healthChecker", "%7B%22type%22:%22TCP%22%7D"),
    ];
    let with = |name: &str, value: Option<&str>| {
        let pairs = all.iter().filter_map(|(other, right)| {
            let value = if *other == name { value? } else { right };
            Some(format!("{other}={value}"))
        });
        pairs.collect::<Vec<_>>().join("&")
    };
    let mut cases: Vec<_> = all
        .iter()
        .map(|(name, _)| case(with(name, None), 400, format!("Param '{name}' is required.")))
        .collect();
    cases.extend([
        case(with("checkPort", Some("x")), 400, "Param 'port' is illegal"),
        case(with("checkPort", Some("65536")), 400, "Param 'port' is illegal"),
        case(
            with("clusterName", Some("a,b")),
            400,
            format!("Param 'cluster' {ILLEGAL}"),
        ),
        case(with("healthChecker", Some("nope")), 400, ""),
        case(
            with("healthChecker", Some("%7B%22type%22:%22NOSUCH%22%7D")),
            400,
            "",
        ),
        case(
            with("serviceName", Some("never")),
            400,
            "service not found:DEFAULT_GROUP@@never",
        ),
        case(
            format!("{}&metadata=x", with("", None)),
            400,
            "metadata format incorrect:x",
        ),
    ]);
    cases
}

fn batches() -> Vec<Case> {
    let with = |said: &str| format!("serviceName=kept&metadata=a=b&{said}");
    let instances = "instances are no JSON array of instances";
    vec![
        case("serviceName=kept", 400, "Param 'metadata' is required."),
        case("serviceName=kept&metadata=x", 400, "metadata format incorrect:x"),
        case(with("consistencyType=x"), 400, "no such consistencyType: x"),
        case(with("instances=nope"), 400, instances),
        case(with("instances=[1]"), 400, instances),
        case(with("instances=[%7B%22ip%22:%22a%22%7D]"), 400, instances),
        case(
            with("instances=[%7B%22ip%22:%22a%20b%22,%22port%22:1%7D]"),
            400,
            format!("Param 'ip' {ILLEGAL}"),
        ),
    ]
}

fn patches() -> Vec<Case> {
    let with = |said: &str| format!("serviceName=kept&ip=10.0.0.1&port=80&{said}");
    vec![
        case(with("weight=x"), 400, "For input string: \"x\""),
        case(with("weight=-1"), 400, "The weights range from"),
        case(with("metadata=x"), 400, "metadata format incorrect:x"),
        case(
            "serviceName=kept&ip=10.9.9.9&port=80",
            404,
            "no matched ip found!",
        ),
    ]
}

fn health() -> Vec<Case> {
    let place = "serviceName=kept&ip=10.0.0.1&port=80";
    let working = "health check is still working, service: DEFAULT_GROUP@@kept, cluster: DEFAULT";
    vec![
        case(place, 400, "Param 'healthy' is required."),
        case(format!("{place}&healthy=false"), 400, working),
        case(format!("{place}&valid=false"), 400, working),
    ]
}

fn paged(asked: &str) -> Vec<Case> {
    vec![
        case(
            format!("{asked}&pageSize=1"),
            400,
            "Parameter 'pageNo' is missing",
        ),
        case(
            format!("{asked}&pageNo=1"),
            400,
            "Parameter 'pageSize' is missing",
        ),
        case(format!("{asked}&pageNo=x&pageSize=1"), 500, "required type 'int'"),
        case(
            format!("{asked}&pageNo=1&pageSize=99999999999"),
            500,
            "required type 'int'",
        ),
    ]
}

fn switches() -> Vec<Case> {
    let set = |entry: &str, value: &str| format!("entry={entry}&value={value}");
    vec![
        case("value=1", 400, "Parameter 'entry' is missing"),
        case("entry=check", 400, "Parameter 'value' is missing"),
        case(set("nosuch", "1"), 400, "update entry not found: nosuch"),
        case(set("clientBeatInterval", "x"), 400, "For input string: \"x\""),
        case(
            set("distroThreshold", "-1"),
            400,
            "distroThreshold can not be zero or negative: -1.0",
        ),
        case(set("limitedUrlMap", "x"), 400, "illegal limited url: x"),
        case(set("overriddenServerStatus", "x"), 400, "no server status: x"),
        case(set("httpHealthParams", "x"), 400, "json param invalid: x"),
    ]
}

fn row(verb: &'static str, path: &'static str, cases: Vec<Vec<Case>>) -> Row {
    Row {
        verb,
        path,
        reads: true,
        cases: cases.into_iter().flatten().collect(),
    }
}

fn silent(path: &'static str) -> Row {
    Row {
        verb: "GET",
        path,
        reads: false,
        cases: Vec::new(),
    }
}

/// The rows.
pub(crate) fn rows() -> Vec<Row> {
    let instance = "/v1/ns/instance";
    let place = "ip=10.0.0.1&port=80";
    let batch = "/v1/ns/instance/metadata/batch";
    let statuses = vec![
        case("", 400, "Parameter 'key' is missing"),
        case(
            "key=plain",
            400,
            "it should be format as 'groupName@@serviceName'",
        ),
        case(
            "key=a%20b%23%23g@@s",
            400,
            format!("Param 'namespaceId/tenant' {ILLEGAL}"),
        ),
    ];
    let not_there = vec![case(
        format!("serviceName=never&{place}"),
        400,
        "service not found, namespace: public",
    )];
    let mut rows = vec![
        row("POST", instance, vec![required(place), places(""), instances("")]),
        row("DELETE", instance, vec![required(place), places("")]),
        row(
            "PUT",
            instance,
            vec![required(place), places(""), instances(""), not_there],
        ),
        row("PATCH", instance, vec![required(place), places(""), patches()]),
        row("GET", instance, vec![required(place), places("")]),
        row("GET", "/v1/ns/instance/list", vec![required(""), lists()]),
        row("PUT", "/v1/ns/instance/beat", vec![required(place), beats()]),
        row("GET", "/v1/ns/instance/statuses", vec![statuses]),
        row("PUT", batch, vec![required("metadata=a=b"), batches()]),
        row("DELETE", batch, vec![required("metadata=a=b"), batches()]),
        row("PUT", "/v1/ns/cluster", vec![clusters()]),
    ];
    for path in ["/v1/ns/health", "/v1/ns/health/instance"] {
        rows.push(row(
            "PUT",
            path,
            vec![required(place), places("healthy=true"), health()],
        ));
    }
    rows.extend(services_and_lists());
    rows.extend(of_v2());
    rows.extend(clients());
    rows.extend(operator());
    rows
}

fn services_and_lists() -> Vec<Row> {
    let service = "/v1/ns/service";
    let float = vec![case(
        "serviceName=s&protectThreshold=x",
        500,
        "required type 'float'",
    )];
    let update = vec![
        case("serviceName=kept", 400, "Param 'protectThreshold' is required."),
        case(
            "serviceName=kept&protectThreshold=x",
            400,
            "For input string: \"x\"",
        ),
        case(
            "serviceName=never&protectThreshold=1",
            400,
            "service DEFAULT_GROUP@@never not found!",
        ),
    ];
    let delete = vec![
        case(
            "serviceName=never",
            400,
            "service DEFAULT_GROUP@@never not found!",
        ),
        case("serviceName=kept", 400, "is not empty, can't be delete"),
    ];
    let exists = vec![case("serviceName=kept", 400, "already exists!")];
    let detail = vec![case(
        "serviceName=never",
        400,
        "service not found, namespace: public",
    )];
    let list = vec![
        case("pageSize=1", 400, "Param 'pageNo' is required."),
        case("pageNo=1", 400, "Param 'pageSize' is required."),
        case(
            "pageNo=1&pageSize=1&groupName=g$",
            400,
            format!("Param 'group' {ILLEGAL}"),
        ),
        case(
            "pageNo=1&pageSize=1&namespaceId=a@",
            400,
            format!("Param 'namespaceId/tenant' {ILLEGAL}"),
        ),
    ];
    let names = vec![case(
        "namespaceId=a@",
        400,
        format!("Param 'namespaceId/tenant' {ILLEGAL}"),
    )];
    let catalog = "serviceName=kept&clusterName=DEFAULT";
    let not_found = vec![
        case(
            "serviceName=never&clusterName=c&pageNo=1&pageSize=1",
            404,
            "service DEFAULT_GROUP@@never is not found!",
        ),
        case(
            "serviceName=kept&clusterName=c&pageNo=1&pageSize=1",
            404,
            "cluster c is not found!",
        ),
        case("serviceName=kept", 400, "Parameter 'clusterName' is missing"),
    ];
    let never = vec![case(
        "serviceName=never",
        404,
        "service DEFAULT_GROUP@@never is not found!",
    )];
    let found = vec![case(
        "pageNo=1&pageSize=1&namespaceId=a@",
        400,
        format!("Param 'namespaceId/tenant' {ILLEGAL}"),
    )];
    vec![
        row("POST", service, vec![bound(""), settings(""), exists, float]),
        row(
            "PUT",
            service,
            vec![
                required("protectThreshold=1"),
                settings("protectThreshold=1"),
                update,
            ],
        ),
        row("DELETE", service, vec![bound(""), delete]),
        row("GET", service, vec![bound(""), detail]),
        row("GET", "/v1/ns/service/list", vec![list]),
        row("GET", "/v1/ns/service/names", vec![names]),
        row(
            "GET",
            "/v1/ns/service/subscribers",
            vec![required(""), subscribers()],
        ),
        row("GET", "/v1/ns/catalog/service", vec![bound(""), never]),
        row("GET", "/v1/ns/catalog/instances", vec![paged(catalog), not_found]),
        row("GET", "/v1/ns/catalog/services", vec![paged(""), found]),
        silent("/v1/ns/service/selector/types"),
        silent("/v1/ns/health/checkers"),
        silent("/v1/ns/health/server"),
    ]
}

fn subscribers() -> Vec<Case> {
    vec![case("serviceName=kept&pageNo=x", 400, "For input string: \"x\"")]
}

fn operator() -> Vec<Row> {
    let client = || {
        vec![
            case("port=1", 400, "Parameter 'ip' is missing"),
            case("ip=a", 400, "Parameter 'port' is missing"),
        ]
    };
    let log = || {
        vec![
            case("logLevel=INFO", 400, "Parameter 'logName' is missing"),
            case("logName=x", 400, "Parameter 'logLevel' is missing"),
        ]
    };
    let broken = || vec![case("onlyStatus=%4", 400, "two hexadecimal digits")];
    vec![
        row("GET", "/v1/ns/operator/metrics", vec![broken()]),
        row("GET", "/v1/ns/ops/metrics", vec![broken()]),
        row("PUT", "/v1/ns/operator/switches", vec![switches()]),
        row("PUT", "/v1/ns/ops/switches", vec![switches()]),
        row("GET", "/v1/ns/operator/push/state", vec![broken()]),
        row("GET", "/v1/ns/ops/push/state", vec![broken()]),
        row("GET", "/v1/ns/operator/distro/client", vec![client()]),
        row("GET", "/v1/ns/ops/distro/client", vec![client()]),
        row("PUT", "/v1/ns/operator/log", vec![log()]),
        row("PUT", "/v1/ns/ops/log", vec![log()]),
        row("GET", "/v1/ns/operator/servers", vec![broken()]),
        row("GET", "/v1/ns/ops/servers", vec![broken()]),
        silent("/v1/ns/operator/switches"),
        silent("/v1/ns/ops/switches"),
    ]
}

/// Clients of the registry, as API v2 shows them.
fn clients() -> Vec<Row> {
    let of_one = || {
        vec![
            case("", 400, "Required request parameter 'clientId'"),
            case("clientId=nosuch", 404, "clientId [ nosuch ] not exist"),
            case("clientId=10.9.9.9:1%23true", 404, "\"code\":20004"),
        ]
    };
    let of_service = || {
        let mut cases = services("ip=10.0.0.1&port=80");
        cases.push(case("", 400, "Required request parameter 'serviceName'"));
        cases.push(case(
            "serviceName=kept&port=x",
            400,
            "For input string: \\\"x\\\"",
        ));
        cases
    };
    let place = vec![
        case("port=1", 400, "Required request parameter 'ip'"),
        case("ip=a", 400, "Required request parameter 'port'"),
    ];
    vec![
        row("GET", "/v2/ns/client", vec![of_one()]),
        row("GET", "/v2/ns/client/publish/list", vec![of_one()]),
        row("GET", "/v2/ns/client/subscribe/list", vec![of_one()]),
        row("GET", "/v2/ns/client/service/publisher/list", vec![of_service()]),
        row("GET", "/v2/ns/client/service/subscriber/list", vec![of_service()]),
        row("GET", "/v2/ns/client/distro", vec![place]),
        silent("/v2/ns/client/list"),
    ]
}

/// API v2 refuses the same in its own words.
fn of_v2() -> Vec<Row> {
    let instance = "/v2/ns/instance";
    let service = "/v2/ns/service";
    let place = "ip=10.0.0.1&port=80";
    let no_service = |rest: &str| vec![case(rest, 400, "\"code\":10000")];
    let port = || {
        let text = "Param 'port' is illegal, the value should be between 0 and 65535.\r\n";
        vec![case("serviceName=kept&ip=a&port=x", 400, text)]
    };
    let weight = || {
        let said = format!("serviceName=kept&{place}&weight=20000");
        vec![case(said, 400, "The weights range from 0.0 to 10000.0")]
    };
    let unknown = |status| vec![case("serviceName=never", status, "\"code\":21008")];
    let exists = vec![case("serviceName=kept", 400, "\"code\":21007")];
    let not_empty = vec![case("serviceName=kept", 400, "\"code\":21009")];
    let absent = vec![case(
        "serviceName=kept&ip=10.9.9.9&port=80",
        404,
        "\"code\":20004",
    )];
    let batch = || vec![case("serviceName=kept", 400, "\"code\":10000")];
    let page = vec![case("pageNo=x", 400, "For input string")];
    let threshold = || vec![case("serviceName=s&protectThreshold=x", 400, "For input string")];
    let paged = vec![
        case("serviceName=kept", 400, "\"code\":10000"),
        case("serviceName=kept&pageNo=x&pageSize=1", 400, "\"code\":20002"),
    ];
    let healthy = || vec![case(format!("serviceName=kept&{place}"), 400, "\"code\":10000")];
    let entry = || {
        vec![
            case("value=1", 400, "\"code\":10000"),
            case("entry=nosuch&value=1", 400, "update entry not found: nosuch"),
        ]
    };
    let broken = || vec![case("onlyStatus=%4", 400, "two hexadecimal digits")];
    let weighed = "ip=10.0.0.1&port=80&weight=1";
    let unweighed = vec![case(
        format!("serviceName=kept&{place}"),
        400,
        "Required request parameter 'weight' for method parameter type Double",
    )];
    let ungrouped = vec![case("", 400, "it should be format as")];
    vec![
        row(
            "POST",
            instance,
            vec![no_service(place), services(place), port(), weight()],
        ),
        row(
            "PUT",
            instance,
            vec![no_service(place), services(place), port(), weight()],
        ),
        row(
            "DELETE",
            instance,
            vec![no_service(place), services(place), port()],
        ),
        row(
            "PATCH",
            instance,
            vec![unweighed, no_service(weighed), services(weighed), weight()],
        ),
        row("GET", "/v2/ns/instance/statuses/{key}", vec![ungrouped]),
        row(
            "GET",
            instance,
            vec![no_service(place), services(place), port(), absent],
        ),
        row("GET", "/v2/ns/instance/list", vec![no_service(""), services("")]),
        row(
            "PUT",
            "/v2/ns/instance/beat",
            vec![no_service(place), services(place)],
        ),
        row(
            "PUT",
            "/v2/ns/instance/metadata/batch",
            vec![no_service("metadata=a=b"), batch()],
        ),
        row(
            "DELETE",
            "/v2/ns/instance/metadata/batch",
            vec![no_service("metadata=a=b"), batch()],
        ),
        row(
            "POST",
            service,
            vec![no_service(""), services(""), exists, threshold()],
        ),
        row(
            "PUT",
            service,
            vec![no_service(""), services(""), unknown(400), threshold()],
        ),
        row(
            "DELETE",
            service,
            vec![no_service(""), services(""), unknown(400), not_empty],
        ),
        row("GET", service, vec![no_service(""), services(""), unknown(400)]),
        row("GET", "/v2/ns/service/list", vec![page]),
        row(
            "GET",
            "/v2/ns/catalog/instances",
            vec![no_service("pageNo=1&pageSize=1"), paged],
        ),
        row("PUT", "/v2/ns/health", vec![no_service(place), healthy()]),
        row(
            "PUT",
            "/v2/ns/health/instance",
            vec![no_service(place), healthy()],
        ),
        row("GET", "/v2/ns/operator/metrics", vec![broken()]),
        row("GET", "/v2/ns/ops/metrics", vec![broken()]),
        row("PUT", "/v2/ns/operator/switches", vec![entry()]),
        row("PUT", "/v2/ns/ops/switches", vec![entry()]),
        silent("/v2/ns/operator/switches"),
        silent("/v2/ns/ops/switches"),
    ]
}

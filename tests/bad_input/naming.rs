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

/// The rows.
pub(crate) fn rows() -> Vec<Row> {
    let row = |verb, path, cases: Vec<Vec<Case>>| Row {
        verb,
        path,
        reads: true,
        cases: cases.into_iter().flatten().collect(),
    };
    let instance = "/v1/ns/instance";
    let place = "ip=10.0.0.1&port=80";
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
    let mut rows = vec![
        row("POST", instance, vec![required(place), places(""), instances("")]),
        row("DELETE", instance, vec![required(place), places("")]),
        row("GET", instance, vec![required(place), places("")]),
        row("GET", "/v1/ns/instance/list", vec![required(""), lists()]),
        row("PUT", "/v1/ns/instance/beat", vec![required(place), beats()]),
        row("GET", "/v1/ns/instance/statuses", vec![statuses]),
    ];
    for path in ["/v1/ns/operator/metrics", "/v1/ns/ops/metrics"] {
        rows.push(Row {
            verb: "GET",
            path,
            reads: false,
            cases: Vec::new(),
        });
    }
    rows
}

//! What is wrong with a request, and what is answered: for each route those inputs that concern its own
//! parameters. Texts are the recorded ones where Nacos 2.5.1 was asked (`tests/oracle`), else our own.

/// A bad request and its answer. `input` is the parameters, sent in the query and, where the method has a
/// body, as a form too.
pub(crate) struct Case {
    /// `a=1&b=2`
    pub(crate) input: String,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Stands in its body.
    pub(crate) text: String,
}

/// A route and its bad requests.
pub(crate) struct Row {
    /// Method.
    pub(crate) verb: &'static str,
    /// Path below the context.
    pub(crate) path: &'static str,
    /// It looks at its parameters: broken ones are refused. The others answer as if there were none.
    pub(crate) reads: bool,
    /// What it refuses.
    pub(crate) cases: Vec<Case>,
}

/// Largest content of the server under test.
pub(crate) const CONTENT_MAX: usize = 1_000;

pub(crate) fn case(input: impl Into<String>, status: u16, text: impl Into<String>) -> Case {
    Case {
        input: input.into(),
        status,
        text: text.into(),
    }
}

/// A parameter that is not there, as v1 tells it.
fn missing(input: impl Into<String>, name: &str, kind: &str) -> Case {
    let text = format!(
        "Required request parameter &#39;{name}&#39; for method parameter type {kind} is not present"
    );
    case(input, 500, text)
}

fn unreadable(input: impl Into<String>, kind: &str, value: &str) -> Case {
    let text = format!(
        "to required type '{kind}'; nested exception is java.lang.NumberFormatException: For input string: \"{value}\""
    );
    case(input, 400, text)
}

pub(crate) const ILLEGAL: &str = "is illegal, illegal characters should not appear in the param.\r\n";

pub(crate) fn long(length: usize) -> String {
    "a".repeat(length)
}

/// What every call refuses in the name of a config; `rest` makes the request right otherwise.
fn names(rest: &str) -> Vec<Case> {
    let with = |name: &str| format!("{name}&{rest}");
    vec![
        missing(with("group=g"), "dataId", "String"),
        missing(with("dataId=kept"), "group", "String"),
        missing(with("=kept&=g"), "dataId", "String"),
        case(with("dataId=&group=g"), 400, "caused: invalid dataId : ;"),
        case(with("dataId&group=g"), 400, "caused: invalid dataId : ;"),
        case(with("dataId=kept&group="), 400, "caused: invalid group : ;"),
        case(
            with("dataId=a%20b&group=g"),
            400,
            format!("Param 'dataId' {ILLEGAL}"),
        ),
        case(
            with("dataId=a%00&group=g"),
            400,
            format!("Param 'dataId' {ILLEGAL}"),
        ),
        case(
            with("dataId=%E5%90%8D&group=g"),
            400,
            format!("Param 'dataId' {ILLEGAL}"),
        ),
        case(
            with("dataId=../kept&group=g"),
            400,
            format!("Param 'dataId' {ILLEGAL}"),
        ),
        case(
            with("dataId=kept&group=g/g"),
            400,
            format!("Param 'group' {ILLEGAL}"),
        ),
        case(
            with("dataId=kept&group=g&tenant=t@t"),
            400,
            format!("Param 'namespaceId/tenant' {ILLEGAL}"),
        ),
        // Of doubled parameters the first counts, whatever the second says.
        case(
            with("dataId=a%20b&dataId=kept&group=g"),
            400,
            format!("Param 'dataId' {ILLEGAL}"),
        ),
        case(
            with("dataId=&group=g&dataId=kept"),
            400,
            "caused: invalid dataId : ;",
        ),
        case(
            with(&format!("dataId={}&group=g", long(257))),
            400,
            "Param 'dataId' is illegal, the param length should not exceed 256.\r\n",
        ),
        case(
            with(&format!("dataId=kept&group={}", long(129))),
            400,
            "Param 'group' is illegal, the param length should not exceed 128.\r\n",
        ),
        case(
            with(&format!("dataId=kept&group=g&tenant={}", long(65))),
            400,
            "Param 'namespaceId/tenant' is illegal, the param length should not exceed 64.\r\n",
        ),
    ]
}

fn pages(asked: &str, kind: &str) -> Vec<Case> {
    let zero = "caused: pageNo and pageSize must be greater than zero;";
    vec![
        unreadable(format!("{asked}&pageNo=x&pageSize=10"), kind, "x"),
        unreadable(format!("{asked}&pageNo=1&pageSize=1.5"), kind, "1.5"),
        unreadable(
            format!("{asked}&pageNo=99999999999&pageSize=10"),
            kind,
            "99999999999",
        ),
        case(format!("{asked}&pageNo=0&pageSize=10"), 400, zero),
        case(format!("{asked}&pageNo=1&pageSize=0"), 400, zero),
        case(format!("{asked}&pageNo=-1&pageSize=10"), 400, zero),
    ]
}

fn read_config() -> Vec<Case> {
    let kept = "dataId=kept&group=g";
    let mut cases = names("");
    cases.extend(names("show=all"));
    cases.extend(names("beta=true"));
    cases.extend(pages(&format!("search=accurate&{kept}"), "int"));
    cases.extend(pages("search=blur&dataId=*&group=*", "int"));
    cases.extend([
        case(
            format!("{kept}&tag={}", long(17)),
            400,
            "caused: too long tag, over 16;",
        ),
        case(format!("{kept}&tag=a%20b"), 400, "caused: invalid tag : a b;"),
        case(
            format!("{kept}&consistency=maybe"),
            400,
            "caused: invalid consistency : maybe;",
        ),
        case(
            "search=maybe&dataId=&group=",
            400,
            "caused: invalid search : maybe;",
        ),
        missing("search=blur&group=&pageNo=1&pageSize=1", "dataId", "String"),
        missing("search=blur&dataId=&pageNo=1&pageSize=1", "group", "String"),
        missing("search=accurate&dataId=&group=&pageSize=10", "pageNo", "int"),
        missing("search=accurate&dataId=&group=&pageNo=1", "pageSize", "int"),
        case(
            "search=blur&dataId=&group=&pageNo=1&pageSize=1&tenant=a%20b",
            400,
            ILLEGAL,
        ),
        case("dataId=nothing&group=g", 404, "config data not exist\n"),
    ]);
    cases
}

fn publish() -> Vec<Case> {
    let kept = "dataId=kept&group=g&content=changed";
    let too_long = |name: &str, told: &str, max: usize| {
        let text = format!("caused: too long {told}, over {max};");
        case(format!("{kept}&{name}={}", long(max + 1)), 400, text)
    };
    let mut cases = names("content=changed");
    cases.extend([
        missing("dataId=kept&group=g", "content", "String"),
        case(
            "dataId=kept&group=g&content=",
            400,
            "caused: content is blank : ;",
        ),
        case(
            "dataId=kept&group=g&content=%20%20",
            400,
            "caused: content is blank :   ;",
        ),
        case(
            format!("dataId=kept&group=g&content={}", long(CONTENT_MAX + 1)),
            400,
            format!("caused: invalid content, over {CONTENT_MAX};"),
        ),
        too_long("desc", "desc", 128),
        too_long("use", "use", 32),
        too_long("effect", "effect", 32),
        too_long("type", "type", 32),
        too_long("schema", "schema", 32_768),
        too_long("appName", "appName", 256),
        too_long("tag", "tag", 16),
        too_long("config_tags", "tag", 64),
        too_long("encryptedDataKey", "encryptedDataKey", 1_024),
        too_long("src_user", "src_user", 1_024),
        too_long("betaIps", "betaIps", 1_024),
        too_long("message", "message", 1_024),
        case(
            format!("{kept}&config_tags=a,b,c,d,e,f"),
            400,
            "caused: too much config_tags, over 5;",
        ),
        case(format!("{kept}&casMd5=nonsense"), 400, "caused: casMd5 is no md5"),
        case(
            format!("{kept}&casMd5=0123456789abcdef0123456789abcdef"),
            500,
            "caused: Cas publish fail, server md5 may have changed.;",
        ),
        case(
            format!("{kept}&import=true"),
            400,
            "caused: import is not served yet;",
        ),
        case(
            format!("{kept}&clone=true"),
            400,
            "caused: clone is not served yet;",
        ),
    ]);
    cases
}

fn remove() -> Vec<Case> {
    let mut cases = names("");
    cases.extend(names("beta=true"));
    let many: Vec<_> = (0..5_000).map(|id| id.to_string()).collect();
    cases.extend([
        missing("delType=ids", "ids", "List"),
        unreadable("delType=ids&ids=abc", "java.util.List", "abc"),
        unreadable("delType=ids&ids=1,-1", "java.util.List", "-1"),
        case(
            format!("delType=ids&ids={}", many.join(",")),
            400,
            "configs at once;",
        ),
        case(
            format!("dataId=kept&group=g&tag={}", long(17)),
            400,
            "caused: too long tag, over 16;",
        ),
    ]);
    cases
}

fn poll() -> Vec<Case> {
    let invalid = || "caused: invalid probeModify;";
    let word = "%02";
    let listening = |entry: &str| format!("Listening-Configs={entry}");
    vec![
        case("", 400, invalid()),
        case(listening(""), 400, invalid()),
        case(listening("%20"), 400, invalid()),
        case(listening("abc"), 500, "\"message\":\"invalid probeModify\""),
        case(listening("%01"), 500, "\"message\":\"invalid probeModify\""),
        case(
            listening(&format!("a{word}g{word}m{word}t{word}x%01")),
            500,
            "invalid probeModify",
        ),
        // Decoded twice, as the Java server does: what comes out of the first time is broken.
        case(listening("%25zz"), 400, invalid()),
        case(listening("%25ff"), 400, invalid()),
        case(listening(&format!("a%20b{word}g{word}m%01")), 400, ILLEGAL),
        case(
            listening(&format!("{word}g{word}m%01")),
            400,
            "caused: invalid dataId : ;",
        ),
        case(
            listening(&format!("{}{word}g{word}m%01", long(257))),
            400,
            "should not exceed 256",
        ),
        case(listening(&format!("a{word}g{word}m{word}t%20t%01")), 400, ILLEGAL),
    ]
}

fn history() -> Vec<Case> {
    let kept = "dataId=kept&group=g";
    let mut cases = names("nid=1");
    cases.extend(names("search=accurate"));
    cases.extend(pages(&format!("search=accurate&{kept}"), "java.lang.Integer"));
    cases.extend([
        missing(kept, "nid", "Long"),
        unreadable(format!("{kept}&nid=x"), "java.lang.Long", "x"),
        unreadable(format!("{kept}&nid=-1"), "java.lang.Long", "-1"),
        unreadable(
            format!("{kept}&nid=99999999999999999999"),
            "java.lang.Long",
            "99999999999999999999",
        ),
    ]);
    cases
}

fn previous() -> Vec<Case> {
    let kept = "dataId=kept&group=g";
    let mut cases = names("id=1");
    cases.extend([
        missing(kept, "id", "Long"),
        unreadable(format!("{kept}&id="), "java.lang.Long", ""),
        unreadable(format!("{kept}&id=x"), "java.lang.Long", "x"),
    ]);
    cases
}

/// Listeners of an address.
fn address() -> Vec<Case> {
    vec![
        missing("", "ip", "String"),
        case("ip=10.0.0.1&tenant=a%20b", 400, ILLEGAL),
        case(
            format!("ip=10.0.0.1&tenant={}", long(65)),
            400,
            "should not exceed 64",
        ),
    ]
}

fn v1_namespace(verb: &str) -> Vec<Case> {
    match verb {
        "GET" => vec![
            missing("show=all", "namespaceId", "String"),
            case(
                "show=all&namespaceId=nothing",
                500,
                "caused: namespaceId [ nothing ] not exist;",
            ),
            case("show=all&namespaceId=a%20b", 400, ILLEGAL),
            case(
                format!("show=all&namespaceId={}", long(65)),
                400,
                "should not exceed 64",
            ),
            missing("checkNamespaceIdExist=true", "customNamespaceId", "String"),
            case("checkNamespaceIdExist=true&customNamespaceId=a%20b", 400, ILLEGAL),
        ],
        "POST" => vec![
            missing("namespaceName=n", "customNamespaceId", "String"),
            missing("customNamespaceId=new", "namespaceName", "String"),
            case("customNamespaceId=a%20b&namespaceName=n", 400, ILLEGAL),
            case(
                format!("customNamespaceId={}&namespaceName=n", long(129)),
                400,
                "should not exceed 64",
            ),
            // Recorded: these are told by `false` alone.
            case("customNamespaceId=kept&namespaceName=n", 200, "false"),
            case("customNamespaceId=public&namespaceName=n", 200, "false"),
            case("customNamespaceId=new&namespaceName=a%23b", 200, "false"),
            case("customNamespaceId=new&namespaceName=", 200, "false"),
            case(
                format!("customNamespaceId=new&namespaceName={}", long(257)),
                200,
                "false",
            ),
            case(
                format!(
                    "customNamespaceId=new&namespaceName=n&namespaceDesc={}",
                    long(257)
                ),
                200,
                "false",
            ),
        ],
        "PUT" => vec![
            missing("namespaceShowName=n", "namespace", "String"),
            missing("namespace=kept", "namespaceShowName", "String"),
            case("namespace=kept&namespaceShowName=a%23b", 200, "false"),
            case("namespace=a%20b&namespaceShowName=n", 200, "false"),
            case(
                format!("namespace=kept&namespaceShowName=n&namespaceDesc={}", long(257)),
                200,
                "false",
            ),
        ],
        _ => vec![
            missing("", "namespaceId", "String"),
            case("namespaceId=a%20b", 400, ILLEGAL),
            case(format!("namespaceId={}", long(65)), 400, "should not exceed 64"),
        ],
    }
}

fn v2_namespace(verb: &str) -> Vec<Case> {
    let id = |rest: &str| {
        vec![
            case(format!("namespaceId=a%20b{rest}"), 400, ILLEGAL),
            case(
                format!("namespaceId={}{rest}", long(65)),
                400,
                "should not exceed 64",
            ),
        ]
    };
    let parameter =
        "Required request parameter 'namespaceId' for method parameter type String is not present";
    let field = |name: &str| {
        format!(
            "\"code\":10000,\"message\":\"parameter missing\",\"data\":\"required parameter '{name}' is missing\""
        )
    };
    let mut cases = id("&namespaceName=n");
    match verb {
        "GET" => cases.extend([
            case("", 400, parameter),
            case(
                "namespaceId=nothing",
                404,
                "\"code\":22001,\"message\":\"namespace not exist\"",
            ),
        ]),
        "DELETE" => cases.push(case("", 400, parameter)),
        _ => {
            let taken =
                (verb == "POST").then(|| case("namespaceId=kept&namespaceName=n", 400, "\"code\":22000"));
            cases.extend(taken);
            cases.extend([
                case("namespaceName=n", 400, field("namespaceId")),
                case("namespaceId=kept", 400, field("namespaceName")),
                case("namespaceId=new&namespaceName=a%23b", 400, "\"code\":22000"),
                case("namespaceId=new&namespaceName=", 400, "\"code\":22000"),
                case(
                    format!("namespaceId=new&namespaceName=n&namespaceDesc={}", long(257)),
                    400,
                    "\"code\":22000",
                ),
            ]);
        }
    }
    cases
}

/// Every route there is.
pub(crate) fn rows() -> Vec<Row> {
    let row = |verb, path, cases: Vec<Case>| Row {
        verb,
        path,
        reads: true,
        cases,
    };
    let mut rows = vec![
        row("GET", "/v1/cs/configs", read_config()),
        row("POST", "/v1/cs/configs", publish()),
        row("DELETE", "/v1/cs/configs", remove()),
        row("GET", "/v1/cs/configs/catalog", names("")),
        row("POST", "/v1/cs/configs/listener", poll()),
        row("GET", "/v1/cs/configs/listener", names("")),
        row("GET", "/v1/cs/listener", address()),
        row("GET", "/v1/cs/communication/configWatchers", names("")),
        row("GET", "/v1/cs/communication/watcherConfigs", address()),
        row("GET", "/v1/cs/history", history()),
        row("GET", "/v1/cs/history/previous", previous()),
        row(
            "GET",
            "/v1/cs/history/configs",
            vec![
                missing("", "tenant", "String"),
                case("tenant=a%20b", 400, ILLEGAL),
            ],
        ),
        row(
            "GET",
            "/v2/core/loader/reloadCurrent",
            vec![
                missing("", "count", "Integer"),
                unreadable("count=x", "java.lang.Integer", "x"),
                case("count=1&redirectAddress=x", 400, "is not ip:port"),
            ],
        ),
        row(
            "GET",
            "/v2/core/loader/reloadClient",
            vec![
                missing("", "connectionId", "String"),
                case("connectionId=x&redirectAddress=y", 400, "is not ip:port"),
            ],
        ),
    ];
    rows.push(row(
        "GET",
        "/v2/core/loader/smartReloadCluster",
        vec![
            unreadable("loaderFactor=x", "float", "x"),
            unreadable("loaderFactor=-1", "float", "-1"),
            unreadable("loaderFactor=NaN", "float", "NaN"),
        ],
    ));
    for path in ["/v1/cs/metrics/current", "/v1/cs/metrics/cluster"] {
        let mut cases = names("ip=10.0.0.1");
        // Without a config clients are asked about themselves.
        cases.retain(|case| !case.text.contains("invalid dataId") && !case.text.contains("&#39;dataId&#39;"));
        cases.extend([missing("", "ip", "String"), case("ip=a%20b", 400, ILLEGAL)]);
        rows.push(row("GET", path, cases));
    }
    for path in ["/v3/admin/cs/metrics/ip", "/v3/admin/cs/metrics/cluster"] {
        let cases = vec![
            case("", 400, "Required request parameter 'ip'"),
            case("ip=a%20b", 400, ILLEGAL),
        ];
        rows.push(row("GET", path, cases));
    }
    let coded = |input: &str, text: &str| case(input, 400, text);
    for (path, cases) in [
        (
            "/v3/admin/core/loader/reloadCurrent",
            vec![
                coded("", "Required request parameter 'count'"),
                coded("count=x", "\"code\":20002"),
                coded("count=1&redirectAddress=x", "is not ip:port"),
            ],
        ),
        (
            "/v3/admin/core/loader/reloadClient",
            vec![
                coded("", "Required request parameter 'connectionId'"),
                coded("connectionId=x&redirectAddress=y", "is not ip:port"),
            ],
        ),
        (
            "/v3/admin/core/loader/smartReloadCluster",
            vec![coded("loaderFactor=2", "\"code\":20002")],
        ),
    ] {
        rows.push(row("POST", path, cases));
    }
    for path in ["/v1/auth/login", "/v1/auth/users/login"] {
        let cases = vec![
            missing("password=p", "username", "String"),
            missing("username=u", "password", "String"),
        ];
        rows.push(row("POST", path, cases));
    }
    let coded = ["username", "password"].map(|name| {
        let other = if name == "username" {
            "password"
        } else {
            "username"
        };
        let text = format!("Required request parameter '{name}' for method parameter type String");
        case(format!("{other}=x"), 400, text)
    });
    rows.push(row("POST", "/v3/auth/user/login", coded.into()));
    for verb in ["GET", "POST", "PUT", "DELETE"] {
        rows.push(row(verb, "/v1/console/namespaces", v1_namespace(verb)));
        rows.push(row(verb, "/v2/console/namespace", v2_namespace(verb)));
    }
    rows.extend(super::naming::rows());
    let without_parameters = [
        "/v1/cs/health",
        "/v1/console/health/liveness",
        "/v1/console/health/readiness",
        "/v1/console/server/state",
        "/v1/raft/metrics",
        "/v2/core/loader/current",
        "/v2/core/loader/cluster",
        "/v3/admin/core/loader/current",
        "/v3/admin/core/loader/cluster",
        "/v2/console/namespace/list",
        "/v2/console/health/liveness",
        "/v2/console/health/readiness",
        "/",
        "/index.html",
        "/actuator/health",
        "/actuator/prometheus",
        "/health",
        "/metrics",
        "/rnacos/health",
        "/rnacos/metrics",
    ];
    rows.extend(without_parameters.map(|path| Row {
        verb: "GET",
        path,
        reads: false,
        cases: Vec::new(),
    }));
    rows
}

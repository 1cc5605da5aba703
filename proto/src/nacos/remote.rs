//! Messages of the connection itself: check, setup, health, detection, reset, errors.

use super::message::{object, requests, responses};
use super::{BTreeMap, Text, TextMap};

/// Switches a client or a server names in the handshake: key to "can".
pub type AbilityTable<'a> = BTreeMap<Text<'a>, bool>;

requests! { "internal";
    /// First call of a client: is this a Nacos server, and what is the connection called? Unary.
    ServerCheckRequest {}

    /// First payload on the stream: registers the connection. There is no direct answer.
    ConnectionSetupRequest {
        /// `Nacos-Java-Client:v2.5.1` and the like.
        client_version: Text<'a> = "clientVersion",
        /// The namespace the client works in, for listings.
        tenant: Text<'a> = "tenant",
        /// `source`, `module`, `AppName`, `Vipserver-Tag`, `taskId`, `app_<name>`.
        labels: TextMap<'a> = "labels",
        /// Present from clients since 2.3, who then wait five seconds for a [`SetupAckRequest`] and give
        /// the connection up without one. Older clients must not get that push.
        ability_table: Option<AbilityTable<'a>> = "abilityTable",
    }

    /// Server to client: the connection is registered; what the server can do. Needs no acknowledgement.
    SetupAckRequest {
        /// Only what works: a missing key makes the client use its way around.
        ability_table: AbilityTable<'a> = "abilityTable",
    }

    /// "Am I still registered?", every five seconds of silence. Unary.
    HealthCheckRequest {}

    /// Server to client after twenty seconds of silence: answer or be dropped.
    ClientDetectionRequest {}

    /// Server to client: please connect somewhere else.
    ConnectResetRequest {
        /// The server recommended; clients use it only when it is in their list.
        server_ip: Option<Text<'a>> = "serverIp",
        /// Its main (HTTP) port, in digits.
        server_port: Option<Text<'a>> = "serverPort",
        /// The connection meant; a client whose connection is called otherwise ignores the request (3.x).
        connection_id: Option<Text<'a>> = "connectionId",
    }

    /// Acknowledges a push by hand; today's servers take the answer itself. Accepted and ignored.
    PushAckRequest {
        /// Whether the push was handled.
        success: bool = "success",
    }
}

responses! {
    /// Answer to [`ServerCheckRequest`].
    ServerCheckResponse {
        /// The id of this connection. Never absent.
        connection_id: Text<'a> = "connectionId",
        /// True: a client of 2.3 or later sends its abilities and waits for the server's.
        support_ability_negotiation: bool = "supportAbilityNegotiation",
    }

    /// Some SDKs answer the setup push with it; nobody waits for it.
    SetupAckResponse {}

    /// Answer to [`HealthCheckRequest`]; a connection the server does not know gets an [`ErrorResponse`] 301.
    HealthCheckResponse {}

    /// Answer to [`ClientDetectionRequest`].
    ClientDetectionResponse {}

    /// Answer to [`ConnectResetRequest`].
    ConnectResetResponse {}

    /// Understood by every SDK in place of any answer.
    ErrorResponse {}
}

impl<'a> ErrorResponse<'a> {
    /// An error whose result code is the code itself, as the reference does for exceptions and for 300
    /// (starting).
    #[must_use]
    pub fn with_code(code: i32, message: impl Into<Text<'a>>) -> Self {
        Self {
            result_code: code,
            error_code: code,
            message: Some(message.into()),
            ..Self::default()
        }
    }
}

object! {
    /// What counts of an answer to a push, whatever its type: Go and Python answer with types of other
    /// pushes, so an answer finds its push by `request_id` alone.
    Ack {
        /// The push answered; an answer without one is nobody's.
        request_id: Option<Text<'a>> = "requestId",
        /// 200 is success; nothing else counts, not even `success` (Go sends false beside 200).
        result_code: i32 = "resultCode",
        /// For the log.
        error_code: i32 = "errorCode",
        /// For the log.
        message: Option<Text<'a>> = "message",
    }
}

impl Ack<'_> {
    /// Whether the client handled the push.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.result_code == super::SUCCESS
    }
}

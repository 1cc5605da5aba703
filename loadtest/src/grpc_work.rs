//! One connection's part in a run over gRPC: what is asked and how the answer is looked at.

use std::net::SocketAddr;

use proto::nacos::Payload;
use proto::nacos::config::{
    ConfigPublishRequest, ConfigPublishResponse, ConfigQueryRequest, ConfigQueryResponse,
};
use proto::nacos::remote::{HealthCheckRequest, HealthCheckResponse};

use crate::content::Contents;
use crate::grpc::{CallError, Sdk, silent, understood};
use crate::run::{Check, GROUP, Problem, Work, refused};

/// The gRPC connection of one client of a run; dialled when needed.
#[derive(Debug)]
pub(crate) struct Line {
    address: SocketAddr,
    sdk: Option<Sdk>,
}

/// What an answer has to be.
pub(crate) struct Expected<'a> {
    pub(crate) contents: &'a Contents,
    pub(crate) key: u32,
    pub(crate) version: u32,
    pub(crate) check: Check,
    pub(crate) size: usize,
}

impl Line {
    /// A line to a gRPC address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, sdk: None }
    }

    /// Closes the connection; the next call dials anew.
    pub(crate) fn hang_up(&mut self) {
        self.sdk = None;
    }

    /// The connection, dialled now if there is none of use.
    pub(crate) async fn sdk(&mut self) -> Result<&mut Sdk, Problem> {
        if self.sdk.as_ref().is_none_or(|sdk| !sdk.usable()) {
            self.sdk = Some(Sdk::open(self.address, silent()).await?);
        }
        self.sdk
            .as_mut()
            .ok_or_else(|| Problem::Broken("no connection".into()))
    }

    /// Does it once. `content` is what a write stores.
    pub(crate) async fn once(
        &mut self,
        work: Work,
        data_id: &str,
        content: &[u8],
        expected: Expected<'_>,
    ) -> Result<(), Problem> {
        let sdk = self.sdk().await?;
        match work {
            Work::GrpcWrite => {
                let request = ConfigPublishRequest {
                    data_id: data_id.into(),
                    group: GROUP.into(),
                    content: String::from_utf8_lossy(content),
                    ..Default::default()
                };
                let answer = sdk.ask(&request).await?;
                understood::<ConfigPublishResponse<'_>>(&answer).map_err(refused)?;
            }
            Work::GrpcBeat => {
                let answer = sdk.ask(&HealthCheckRequest::default()).await?;
                understood::<HealthCheckResponse<'_>>(&answer).map_err(refused)?;
            }
            _ => {
                let request = ConfigQueryRequest {
                    data_id: data_id.into(),
                    group: GROUP.into(),
                    ..Default::default()
                };
                let answer = sdk.ask(&request).await?;
                expected.is_in(&answer)?;
            }
        }
        Ok(())
    }
}

impl Expected<'_> {
    fn is_in(&self, answer: &Payload) -> Result<(), Problem> {
        let found: ConfigQueryResponse<'_> = understood(answer).map_err(refused)?;
        let content = found.content.as_deref().unwrap_or_default().as_bytes();
        let right = match self.check {
            Check::Content => self.contents.matches(self.key, self.version, content),
            Check::Length => content.len() == self.size,
        };
        if right && found.md5.is_some() {
            return Ok(());
        }
        let shown = answer.json().get(..200).unwrap_or(answer.json());
        let shown = String::from_utf8_lossy(shown);
        Err(Problem::Wrong(format!("an unexpected answer: {shown}")))
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Self::Broken(error.to_string())
    }
}

//! What a run does again and again, and how closely it looks at the answers.

/// What is done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Publish over HTTP: each connection writes its own keys in turn, every time another content.
    Write,
    /// Get over HTTP: random keys of those published before the run.
    Read,
    /// Publish over gRPC; what was acknowledged is looked for over HTTP.
    GrpcWrite,
    /// Query over gRPC.
    GrpcRead,
    /// Health check over gRPC: what an idle client sends.
    GrpcBeat,
    /// Register over HTTP, a new instance each time.
    Register,
    /// Light beats over HTTP, of instances registered before the run.
    Beat,
    /// List over HTTP: random services of ten instances.
    Query,
    /// Register over gRPC, a new instance of another service each time.
    GrpcRegister,
    /// Query services of ten instances over gRPC.
    GrpcQuery,
}

impl Work {
    /// As it is written on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::GrpcWrite => "grpc-write",
            Self::GrpcRead => "grpc-read",
            Self::GrpcBeat => "grpc-beat",
            Self::Register => "register",
            Self::Beat => "beat",
            Self::Query => "query",
            Self::GrpcRegister => "grpc-register",
            Self::GrpcQuery => "grpc-query",
        }
    }

    /// Whether it needs a registered gRPC connection for each client.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        matches!(
            self,
            Self::GrpcWrite | Self::GrpcRead | Self::GrpcBeat | Self::GrpcRegister | Self::GrpcQuery
        )
    }

    /// Whether it is about instances rather than configs.
    #[must_use]
    pub fn is_naming(self) -> bool {
        matches!(
            self,
            Self::Register | Self::Beat | Self::Query | Self::GrpcRegister | Self::GrpcQuery
        )
    }

    /// Whether it publishes configs.
    pub(crate) fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::GrpcWrite)
    }

    /// Whether it reads configs.
    pub(crate) fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::GrpcRead)
    }

    /// Whether it registers instances.
    pub(crate) fn is_register(self) -> bool {
        matches!(self, Self::Register | Self::GrpcRegister)
    }
}

/// How closely the answers to reads are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Every byte, or every instance; and what was acknowledged is looked for on every address after the run.
    Content,
    /// Status and length, or number of instances, only: for the floor server, which stores nothing it could
    /// give back.
    Length,
}

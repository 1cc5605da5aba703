//! rnacos
pub mod clock;
pub mod settings;
pub mod shutdown;
pub mod telemetry;

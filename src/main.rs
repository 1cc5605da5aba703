//! The server's process: settings, logs, signals, exit code.

use std::process::ExitCode;

use rnacos::error::with_causes;
use rnacos::server::Server;
use rnacos::settings::{self, Action, Invocation, Refusal};
use rnacos::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// All memory of the server. With the C library's allocator a write costs a fifth more CPU, and 100,000
/// configs take 40 MiB more: its arenas keep what short-lived requests have left between long-lived
/// configs. mimalloc is as fast and keeps more. Measured: docs/benchmarks.md.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc before `main`. Few arenas: what one has freed another cannot use, and threads have a
/// cache of their own anyway. A thread of jemalloc's gives freed pages back to the system after a second.
#[cfg(feature = "jemalloc")]
#[expect(
    unsafe_code,
    reason = "jemalloc looks for its settings under this name; nothing else has it"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static ALLOCATOR_SETTINGS: &[u8; 70] =
    b"narenas:4,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let invocation = match settings::from_process() {
        Ok(invocation) => invocation,
        Err(Refusal::CommandLine(error)) => error.exit(),
        Err(Refusal::Mistakes(mistakes)) => return refuse(&mistakes),
    };
    match invocation.action {
        Action::Serve => serve(invocation),
        Action::PrintSettings => {
            print(&invocation.printed);
            ExitCode::SUCCESS
        }
        Action::Recover(recover) => rnacos::recover_cli::run(recover, &invocation.settings.storage.dir),
        Action::Cluster(command) => rnacos::cluster_cli::run(&command, &invocation.settings.cluster),
    }
}

fn serve(invocation: Invocation) -> ExitCode {
    let Invocation {
        settings, warnings, ..
    } = invocation;
    // Kept to the end: it writes what is still queued when it is dropped.
    let _logs = match telemetry::start(&settings.operation.log_filter, settings.operation.log_format) {
        Ok(guard) => guard,
        Err(error) => return refuse(&error),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.network.workers)
        .thread_name("worker")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(settings)),
        Err(error) => refuse(&error),
    }
}

async fn run(settings: settings::Settings) -> ExitCode {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return refuse(&"signals cannot be received");
    };
    let started = tokio::select! {
        started = Server::start(settings) => started,
        () = asked_to_stop(&mut terminate, &mut interrupt) => return ExitCode::SUCCESS,
    };
    let server = match started {
        Ok(server) => server,
        Err(error) => return refuse(&with_causes(error.as_ref())),
    };
    let failure = tokio::select! {
        () = asked_to_stop(&mut terminate, &mut interrupt) => None,
        failure = server.failed() => Some(failure),
    };
    tracing::info!("stopping");
    let in_order = server.stop().await;
    match failure {
        Some(reason) => refuse(&reason),
        None if in_order => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

async fn asked_to_stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[expect(
    clippy::print_stderr,
    reason = "why the process ends belongs on the terminal, logs or not"
)]
fn refuse(reason: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("rnacos: {reason}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "the output that was asked for")]
fn print(text: &str) {
    println!("{text}");
}

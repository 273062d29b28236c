//! The decision service without Python, for pools that hold their embedder.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use uniroute_core::error::legible;
use uniroute_core::file::{artifact::Artifact, persist};
use uniroute_core::route::router::Router;
use uniroute_core::{Error, Result};
use uniroute_server::{Config, FileBackend, Server};

/// Open files where the system sets no limit: each connection is one.
const FILES: u64 = 65_536;

/// Serve decisions over HTTP: text in, model out.
///
/// The pool is loaded again when its file changes, and on SIGHUP; SIGTERM and Ctrl-C stop the
/// service once the requests under way are answered. Routes that change something are closed
/// without --admin-token-file; those that learn from texts need the service of `uniroute serve`.
#[derive(Parser)]
#[command(name = "uniroute-server", version)]
struct Arguments {
    /// The pool, as `uniroute fit` or `Router.save` wrote it
    pool: PathBuf,
    /// All settings: TOML, or .json
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Settings that override those of the file.
#[derive(Args, Serialize)]
struct Settings {
    /// Address to listen on [default: 127.0.0.1, this machine]
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8080]
    #[arg(long)]
    port: Option<u16>,
    /// Threads that answer [default: one a core]
    #[arg(long)]
    workers: Option<usize>,
    /// Of requests that name neither one nor a policy [default: 0, quality alone]
    #[arg(long, value_name = "L")]
    cost_weight: Option<f64>,
    /// Bearer token of the routes that change things
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Bearer token without which nothing is routed
    #[arg(long, value_name = "FILE")]
    client_token_file: Option<PathBuf>,
    /// Where /v1/chat/completions passes chats on to: TOML, or .json
    #[arg(long = "upstreams", value_name = "FILE")]
    upstreams_file: Option<PathBuf>,
    /// off, error, warn, info or debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let served = match Arguments::try_parse() {
        Ok(arguments) => serve(arguments).map_err(|error| error.to_string()),
        // Help or the version was asked for.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => Err(error.to_string().replace("error: ", "")),
    };
    let Err(message) = served else {
        return ExitCode::SUCCESS;
    };
    let line: Vec<_> = message.split_whitespace().collect();
    eprintln!("uniroute-server: {}", legible(&line.join(" "), 2000));
    ExitCode::from(2)
}

/// Serves until told to stop.
fn serve(arguments: Arguments) -> Result<()> {
    let Arguments {
        pool: path,
        config,
        settings,
    } = arguments;
    let mut settings = serde_json::json!(settings);
    if let Some(settings) = settings.as_object_mut() {
        settings.retain(|_, value| !value.is_null());
    }
    let config = Config::read(config.as_deref(), &settings.to_string())?;
    let (snapshot, _) = Artifact::load(&path).and_then(persist::from_artifact)?;
    let router = Arc::new(Router::new(snapshot));
    let backend = FileBackend {
        router: Arc::clone(&router),
        path: Some(path.clone()),
    };
    raise_file_limit();
    let obey = signals().map_err(|source| Error::Io {
        path: "signals".into(),
        source,
    })?;
    let server = Server::start(router, Arc::new(backend), &config, Some(path.clone()))?;
    let server = Arc::new(server);
    // Whoever started it may not be interested.
    let _ = writeln!(
        std::io::stdout(),
        "serving {} on http://{}",
        path.display(),
        server.address()
    );
    let served = Arc::clone(&server);
    std::thread::spawn(move || obey(&served));
    while !server.wait(Duration::from_secs(3600)) {}
    Ok(())
}

/// Begins to take note of signals: what has a service obey them.
fn signals() -> std::io::Result<impl FnOnce(&Server) + Send> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    drop(entered);
    Ok(move |server: &Server| {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminated.recv() => server.stop(),
                    _ = interrupted.recv() => server.stop(),
                    _ = hung_up.recv() => server.reload(),
                }
            }
        });
    })
}

/// Allows as many open files as the system lets this process have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        // The lower limit means fewer connections, and the log says so.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

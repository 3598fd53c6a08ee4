//! The command line: LiteLLM's flags with LiteLLM's spelling, and the sub-commands of our own.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

/// [`Serve::drain_delay`] in a Kubernetes pod, unless it is said.
const POD_DRAIN_SECONDS: u32 = 5;

/// An LLM gateway made of Envoy and one Wasm filter, drop-in for the LiteLLM proxy.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, args_conflicts_with_subcommands = true, rename_all = "snake_case")]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// What the command can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print a complete static Envoy configuration for a config.yaml (the filter alone, no command running)
    Render {
        /// LiteLLM configuration file
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
        /// Where the filter module will be on the machine that runs Envoy
        #[arg(long, value_name = "PATH", default_value = "/etc/envoy/tollgate.wasm")]
        module: String,
    },
    /// Print what happens to every setting of a config.yaml; exit 2 when it cannot serve
    Check {
        /// LiteLLM configuration file
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print where a call of a model would go, and why each deployment is in or out
    Explain(Box<super::explain::Flags>),
    /// Run the ledger alone (keys, budgets, spend, management API), for gateways whose `tollgate_settings.ledger_url` names it
    Ledger(Box<LedgerFlags>),
    /// Take over keys, users, teams, budgets and spend from LiteLLM's Postgres; what is here already stays as it is
    Import(super::ledger::import::Options),
    /// Exit 0 when the gateway on this machine answers (for container health checks)
    Healthcheck {
        /// Port the gateway listens on
        #[arg(long, env = "PORT", default_value_t = 4000)]
        port: u16,
    },
}

/// Flags of `tollgate ledger`: those of the gateway, whose configuration it reads, and where it listens.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct LedgerFlags {
    /// What it serves.
    #[command(flatten)]
    pub serve: Serve,
    /// Address and port to listen on for gateways (TOLLGATE_LEDGER_KEY holds the secret they show)
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "socket")]
    pub listen: Option<SocketAddr>,
    /// Unix socket to listen on
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where the SQLite file is when no database is configured [default: the state directory]
    #[arg(long, value_name = "DIR")]
    pub database_dir: Option<PathBuf>,
    /// URL of the gateway, whose deployments `/health` and background health checks call
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
}

/// Flags of `tollgate` itself: LiteLLM's, plus where state and Envoy are.
#[derive(Clone, Debug, Default, Args)]
#[command(rename_all = "snake_case")]
pub struct Serve {
    /// LiteLLM configuration file
    #[arg(long, short, value_name = "FILE", env = "CONFIG_FILE_PATH")]
    pub config: Option<PathBuf>,
    /// Serve this one model (`groq/llama-3`); with --config it overrides the model of every request, as LiteLLM does
    #[arg(long, short)]
    pub model: Option<String>,
    /// Name the model of --model is served under
    #[arg(long)]
    pub alias: Option<String>,
    /// Base URL of the model of --model
    #[arg(long, value_name = "URL")]
    pub api_base: Option<String>,
    /// API version of the model of --model (Azure)
    #[arg(long, value_name = "VERSION")]
    pub api_version: Option<String>,
    /// Default temperature of every model
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Default max_tokens of every model
    #[arg(long)]
    pub max_tokens: Option<u64>,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 4000)]
    pub port: u16,
    /// Worker threads of Envoy
    #[arg(long, env = "NUM_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub num_workers: u16,
    /// Time-out of a call in seconds (litellm_settings.request_timeout)
    #[arg(long, value_name = "SECONDS")]
    pub request_timeout: Option<f64>,
    /// Budget of the whole gateway in USD (litellm_settings.max_budget)
    #[arg(long, value_name = "USD")]
    pub max_budget: Option<f64>,
    /// Leave out parameters that a provider does not know (litellm_settings.drop_params)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub drop_params: Option<bool>,
    /// Put function definitions into the prompt for models without tools
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub add_function_to_prompt: Option<bool>,
    /// Log what Envoy and the filter do
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub debug: Option<bool>,
    /// Log everything Envoy and the filter do
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub detailed_debug: Option<bool>,
    /// Accepted and without effect: nothing is ever sent home
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub telemetry: Option<bool>,
    /// Send a chat completion to a running gateway (http://HOST:PORT, or URL), print the answer and exit
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub test: Option<String>,
    /// Ask a running gateway for its health, print the answer and exit
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub health: Option<bool>,
    /// Private key of the listener's certificate (PEM)
    #[arg(long, value_name = "FILE", env = "SSL_KEYFILE_PATH", requires = "ssl_certfile_path")]
    pub ssl_keyfile_path: Option<PathBuf>,
    /// Certificate chain of the listener (PEM): serve https
    #[arg(long, value_name = "FILE", env = "SSL_CERTFILE_PATH", requires = "ssl_keyfile_path")]
    pub ssl_certfile_path: Option<PathBuf>,
    /// Where generated files are kept [default: $XDG_STATE_HOME/tollgate, else ~/.local/state/tollgate]
    #[arg(long, value_name = "DIR", env = "TOLLGATE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// After SIGTERM, keep taking requests for so long while /health/readiness fails [default: 0; 5 in a Kubernetes pod]
    #[arg(long, value_name = "SECONDS", env = "TOLLGATE_DRAIN_DELAY", value_parser = clap::value_parser!(u32).range(..=3600))]
    pub drain_delay: Option<u32>,
    /// Start without a master key although the database has keys: everybody may then use and manage all of them
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = truth, env = "TOLLGATE_ALLOW_OPEN")]
    pub allow_open: Option<bool>,
    /// Envoy binary, 1.40 or newer [default: $TOLLGATE_ENVOY, else `envoy` on PATH, else what `make envoy` installed]
    #[arg(long, value_name = "PATH")]
    pub envoy: Option<PathBuf>,
    #[command(flatten)]
    without_effect: WithoutEffect,
}

/// LiteLLM flags about its Python server. Accepted so that a start script works unchanged; Envoy has no use for them.
#[derive(Clone, Debug, Default, Args)]
#[command(rename_all = "snake_case")]
struct WithoutEffect {
    #[arg(long, hide = true)]
    run_gunicorn: bool,
    #[arg(long, hide = true)]
    run_hypercorn: bool,
    #[arg(long, hide = true)]
    use_prisma_db_push: bool,
    #[arg(long, hide = true)]
    use_queue: bool,
    #[arg(long, hide = true)]
    local: bool,
    #[arg(long, hide = true, value_name = "FILE")]
    log_config: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "SECONDS")]
    keepalive_timeout: Option<u64>,
}

impl Serve {
    /// How long requests are still taken after a signal to stop. Kubernetes sends requests to a pod for some seconds after it
    /// has told it to stop; elsewhere nobody wants to wait.
    pub fn drain_delay(&self) -> Duration {
        let in_a_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let seconds = self.drain_delay.unwrap_or(if in_a_pod { POD_DRAIN_SECONDS } else { 0 });
        Duration::from_secs(u64::from(seconds))
    }

    /// The gateway's address for a client on this machine.
    pub fn url(&self) -> String {
        let scheme = if self.ssl_certfile_path.is_some() { "https" } else { "http" };
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" | "[::]" => "[::1]",
            host => host,
        };
        format!("{scheme}://{}:{}", bracketed(host), self.port)
    }
}

/// A host as it stands in a URL: an IPv6 address in brackets.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// A boolean as LiteLLM's command line takes it.
fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("expected `True` or `False`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn litellm_command_lines_parse() {
        for line in [
            "tollgate",
            "tollgate -c config.yaml",
            "tollgate --config config.yaml --port 8000 --num_workers 8 --detailed_debug",
            "tollgate --model groq/llama-3 --drop_params --telemetry False",
            "tollgate -m azure/gpt-4o --api_base https://x --api_version 2024-02-01 --temperature 0.2 --max_tokens 10",
            "tollgate --alias gpt-4 --model x --request_timeout 30 --max_budget 1.5 --add_function_to_prompt --debug",
            "tollgate --test",
            "tollgate --test http://127.0.0.1:4000",
            "tollgate --health --port 4001",
            "tollgate --config c.yaml --run_gunicorn --keepalive_timeout 75",
            "tollgate render --config c.yaml --module /m.wasm",
            "tollgate check -c c.yaml",
            "tollgate healthcheck --port 4000",
            "tollgate ledger --config c.yaml --listen 0.0.0.0:4001",
            "tollgate ledger --config c.yaml --listen 0.0.0.0:4001 --gateway http://gateway:4000",
            "tollgate ledger --model groq/llama-3 --socket /run/ledger.sock --database_dir /var/lib/tollgate",
            "tollgate import --from postgresql://u@h/litellm --dry-run --spend-logs --config c.yaml",
            "tollgate import --from postgresql://u@h/litellm --to postgresql://u@h/tollgate",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn wrong_command_lines_do_not() {
        for line in [
            "tollgate --num_workers 0",
            "tollgate --port 70000",
            "tollgate --telemetry perhaps",
            "tollgate --ssl_certfile_path c.pem",
            "tollgate render",
            "tollgate ledger --config c.yaml",
            "tollgate ledger --config c.yaml --listen 4001",
            "tollgate import",
            "tollgate import --from postgresql://a --to postgresql://b --config c.yaml",
            "tollgate --num-workers 2",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn urls_are_for_a_client_here() {
        for (line, url) in [
            ("tollgate", "http://127.0.0.1:4000"),
            ("tollgate --host :: --port 1", "http://[::1]:1"),
            ("tollgate --host example.org", "http://example.org:4000"),
            ("tollgate --ssl_certfile_path c --ssl_keyfile_path k", "https://127.0.0.1:4000"),
        ] {
            assert_eq!(parse(line).unwrap().serve.url(), url);
        }
    }
}

//! The command line: LiteLLM's flags with LiteLLM's spelling, and the sub-commands of our own.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource,
};

use crate::core::config::FilterHost;

/// [`Serve::drain_delay`] in a Kubernetes pod, unless it is said.
const POD_DRAIN_SECONDS: u32 = 5;

/// Below the help of the command.
const EXAMPLES: &str = "\
Examples:
  tollgate --config config.yaml                      serve a LiteLLM configuration on port 4000
  tollgate --config config.yaml --host 127.0.0.1     the same for this machine alone
  OPENAI_API_KEY=sk-… tollgate --model gpt-4o        serve one model without a file
  DATABASE_URL=postgresql://… tollgate               serve the models of a database
  tollgate check config.yaml --only problems         what would not be done as it is written
  tollgate --health                                  ask the running gateway whether its models answer

Variables are read from the environment and from `.env` in the working directory. Flags may be spelt with - or _.";

/// An LLM gateway made of Envoy and one Wasm filter, drop-in for the LiteLLM proxy.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    rename_all = "snake_case",
    after_help = EXAMPLES
)]
pub struct Cli {
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
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
    #[command(after_help = "Example: tollgate render config.yaml > envoy.yaml")]
    Render {
        /// LiteLLM configuration file
        #[arg(value_name = "FILE", required_unless_present = "config")]
        file: Option<PathBuf>,
        /// The same as FILE
        #[arg(long, short, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
        /// Where the filter module will be on the machine that runs Envoy [default: /etc/envoy/tollgate.wasm, or
        /// /etc/envoy/libtollgate.so]
        #[arg(long, value_name = "PATH")]
        module: Option<String>,
        /// The build of the filter: `wasm` for any Envoy from 1.40 on, `native` for Envoy 1.40 alone
        #[arg(long, value_name = "HOST", value_parser = filter_host, default_value = "wasm")]
        host: FilterHost,
    },
    /// Print what happens to every setting of a config.yaml; exit 2 when it cannot serve
    Check(super::check::Flags),
    /// Print where a call of a model would go, and why each deployment is in or out
    Explain(Box<super::explain::Flags>),
    /// Run the ledger alone (keys, budgets, spend, management API), for gateways whose `tollgate_settings.ledger_url` names it
    Ledger(Box<LedgerFlags>),
    /// Take over keys, users, teams, budgets and spend from LiteLLM's Postgres; what is here already stays as it is
    Import(super::ledger::import::Options),
    /// Copy the ledger's SQLite file as it is at this moment, also beside a gateway that serves
    Backup(super::ledger::backup::Backup),
    /// Put a backup in the place of the ledger of a gateway that does not run
    Restore(super::ledger::backup::Restore),
    /// Exit 0 when the gateway on this machine answers (for container health checks)
    Healthcheck(super::client::HealthcheckFlags),
    /// Run Envoy for a gateway
    #[command(hide = true)]
    Guard(super::guard::Flags),
    /// Print a script that completes this command's words in a shell
    #[command(after_help = "Example: source <(tollgate completions bash)")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
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
    #[arg(help_heading = "Models", long, short)]
    pub model: Option<String>,
    /// Name the model of --model is served under
    #[arg(help_heading = "Models", long)]
    pub alias: Option<String>,
    /// Base URL of the model of --model
    #[arg(help_heading = "Models", long, value_name = "URL")]
    pub api_base: Option<String>,
    /// API version of the model of --model (Azure)
    #[arg(help_heading = "Models", long, value_name = "VERSION")]
    pub api_version: Option<String>,
    /// Default temperature of every model
    #[arg(help_heading = "Models", long)]
    pub temperature: Option<f64>,
    /// Default max_tokens of every model
    #[arg(help_heading = "Models", long)]
    pub max_tokens: Option<u64>,
    /// Address to listen on
    #[arg(help_heading = "Serving", long, env = "HOST", default_value = "0.0.0.0")]
    pub host: String,
    /// The build of the filter that Envoy runs: `wasm`, or `native` for Envoy 1.40 (tollgate_settings.host)
    #[arg(help_heading = "Serving", long, value_name = "HOST", env = "TOLLGATE_FILTER_HOST", value_parser = filter_host)]
    pub filter_host: Option<FilterHost>,
    /// Port to listen on; 0 takes a free one
    #[arg(help_heading = "Serving", long, env = "PORT", default_value_t = 4000)]
    pub port: u16,
    /// Worker threads of Envoy
    #[arg(help_heading = "Serving", long, env = "NUM_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub num_workers: u16,
    /// Time-out of a call in seconds (litellm_settings.request_timeout)
    #[arg(help_heading = "Models", long, value_name = "SECONDS")]
    pub request_timeout: Option<f64>,
    /// Budget of the whole gateway in USD (litellm_settings.max_budget)
    #[arg(help_heading = "Models", long, value_name = "USD")]
    pub max_budget: Option<f64>,
    /// Leave out parameters that a provider does not know (litellm_settings.drop_params)
    #[arg(help_heading = "Models", long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub drop_params: Option<bool>,
    /// Put function definitions into the prompt for models without tools
    #[arg(help_heading = "Models", long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub add_function_to_prompt: Option<bool>,
    /// Log what Envoy and the filter do
    #[arg(help_heading = "Logging", long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub debug: Option<bool>,
    /// Log everything Envoy and the filter do
    #[arg(help_heading = "Logging", long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub detailed_debug: Option<bool>,
    /// Accepted and without effect: nothing is ever sent home
    #[arg(help_heading = "Logging", long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub telemetry: Option<bool>,
    /// Send a chat completion to a running gateway (http://HOST:PORT, or URL), print the answer and exit
    #[arg(help_heading = "Asking a running gateway", long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub test: Option<String>,
    /// Check the configuration, print how many models it has and exit
    #[arg(long, hide = true)]
    pub validate_config: bool,
    /// Check the configuration and exit: there is nothing else to prepare
    #[arg(long, hide = true, alias = "check_migrations_against_existing_data")]
    pub skip_server_startup: bool,
    /// Ask a running gateway for its health, print the answer and exit
    #[arg(help_heading = "Asking a running gateway", long, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub health: Option<bool>,
    /// Private key of the listener's certificate (PEM)
    #[arg(
        help_heading = "Serving",
        long,
        value_name = "FILE",
        env = "SSL_KEYFILE_PATH",
        requires = "ssl_certfile_path"
    )]
    pub ssl_keyfile_path: Option<PathBuf>,
    /// Certificate chain of the listener (PEM): serve https
    #[arg(
        help_heading = "Serving",
        long,
        value_name = "FILE",
        env = "SSL_CERTFILE_PATH",
        requires = "ssl_keyfile_path"
    )]
    pub ssl_certfile_path: Option<PathBuf>,
    /// Where generated files are kept [default: $XDG_STATE_HOME/tollgate, else ~/.local/state/tollgate]
    #[arg(help_heading = "Running", long, value_name = "DIR", env = "TOLLGATE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// After SIGTERM, keep taking requests for so long while /health/readiness fails [default: 0; 5 in a Kubernetes pod]
    #[arg(help_heading = "Running", long, value_name = "SECONDS", env = "TOLLGATE_DRAIN_DELAY", value_parser = clap::value_parser!(u32).range(..=3600))]
    pub drain_delay: Option<u32>,
    /// Start without a master key although the database has keys: everybody may then use and manage all of them
    #[arg(help_heading = "Serving", long, num_args = 0..=1, default_missing_value = "true", value_parser = truth, env = "TOLLGATE_ALLOW_OPEN")]
    pub allow_open: Option<bool>,
    /// Envoy binary, 1.40 or newer [default: $TOLLGATE_ENVOY, else `envoy` on PATH, else what `make envoy` installed]
    #[arg(help_heading = "Running", long, value_name = "PATH")]
    pub envoy: Option<PathBuf>,
    #[command(flatten)]
    without_effect: WithoutEffect,
}

/// LiteLLM's flags that mean nothing here. Accepted so that a start script works unchanged; who gives one is told so.
#[derive(Clone, Debug, Default, Args)]
#[command(rename_all = "snake_case")]
struct WithoutEffect {
    #[arg(long, hide = true)]
    run_gunicorn: bool,
    #[arg(long, hide = true)]
    run_hypercorn: bool,
    #[arg(long, hide = true)]
    run_granian: bool,
    #[arg(long, hide = true)]
    granian_threads: Option<String>,
    #[arg(long, hide = true)]
    use_prisma_db_push: bool,
    #[arg(long, hide = true)]
    enforce_prisma_migration_check: bool,
    #[arg(long, hide = true)]
    use_v2_migration_resolver: bool,
    #[arg(long, hide = true)]
    use_legacy_migration_resolver: bool,
    #[arg(long, hide = true)]
    iam_token_db_auth: bool,
    #[arg(long, hide = true)]
    azure_postgresql_auth: bool,
    #[arg(long, hide = true)]
    use_queue: bool,
    #[arg(long, hide = true)]
    local: bool,
    #[arg(long, hide = true)]
    reload: bool,
    #[arg(long, hide = true)]
    setup: bool,
    #[arg(long, hide = true)]
    save: bool,
    #[arg(long, hide = true)]
    headers: Option<String>,
    #[arg(long, hide = true)]
    add_key: Option<String>,
    #[arg(long, hide = true)]
    test_async: bool,
    #[arg(long, hide = true)]
    num_requests: Option<String>,
    #[arg(long, hide = true)]
    ciphers: Option<String>,
    #[arg(long, hide = true)]
    log_config: Option<PathBuf>,
    #[arg(long, hide = true)]
    keepalive_timeout: Option<String>,
    #[arg(long, hide = true)]
    max_request_header_size: Option<String>,
    #[arg(long, hide = true)]
    timeout_worker_healthcheck: Option<String>,
    #[arg(long, hide = true)]
    max_requests_before_restart: Option<String>,
    #[arg(long, hide = true)]
    max_requests_before_restart_jitter: Option<String>,
    #[arg(long, hide = true)]
    limit_concurrency: Option<String>,
    #[arg(long, hide = true)]
    prometheus_metrics_port: Option<String>,
}

/// Why a flag means nothing here.
fn why_without_effect(name: &str) -> &'static str {
    match name {
        "iam_token_db_auth" | "azure_postgresql_auth" => {
            "tokens for the database are not fetched; put a password into DATABASE_URL"
        }
        "use_prisma_db_push"
        | "enforce_prisma_migration_check"
        | "use_v2_migration_resolver"
        | "use_legacy_migration_resolver" => {
            "the ledger brings its tables up to date by itself, in one transaction"
        }
        "reload" => "a changed configuration is always taken over",
        "prometheus_metrics_port" => "metrics are at /metrics of the gateway",
        "limit_concurrency" => "use general_settings.global_max_parallel_requests",
        "ciphers" => "Envoy's own are used",
        "keepalive_timeout" => "idle connections are closed after 15 minutes",
        "max_request_header_size" => "Envoy's own limit holds",
        "headers" | "add_key" | "save" | "setup" => "write a config.yaml",
        "test_async" | "num_requests" | "use_queue" => "the queue of early versions is gone from LiteLLM too",
        "local" => "it has none in LiteLLM either",
        _ => "it is about LiteLLM's Python server",
    }
}

/// A command line that was understood.
#[derive(Debug)]
pub struct Given {
    /// What is to be done.
    pub cli: Cli,
    /// What its author should know about single flags, one line each.
    pub remarks: Vec<String>,
}

/// Reads a command line, program name first. Names of flags may be spelt with dashes or underscores.
pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Given, clap::Error> {
    let matches = Cli::command().try_get_matches_from(underscored(words))?;
    let serving = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    let silent = WithoutEffect::augment_args(Command::new("none"));
    let given = silent.get_arguments().map(|argument| argument.get_id().as_str()).filter(|name| {
        serving.try_contains_id(name).unwrap_or(false)
            && serving.value_source(name) == Some(ValueSource::CommandLine)
    });
    let remarks = given.map(|name| format!("--{name} has no effect: {}", why_without_effect(name))).collect();
    Ok(Given { cli: Cli::from_arg_matches(&matches)?, remarks })
}

/// The words with underscores in the names of long flags, as LiteLLM spells them.
fn underscored(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut only_values = false;
    let one = |word: OsString| {
        only_values |= word == "--";
        let Some(text) = word.to_str().filter(|_| !only_values) else { return word };
        let Some(flag) = text.strip_prefix("--") else { return word };
        let (name, value) = flag.split_at(flag.find('=').unwrap_or(flag.len()));
        format!("--{}{value}", name.replace('-', "_")).into()
    };
    words.into_iter().map(one).collect()
}

/// `wasm` or `native`.
fn filter_host(name: &str) -> Result<FilterHost, String> {
    FilterHost::parse(name).ok_or_else(|| "expected `wasm` or `native`".to_owned())
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
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("expected `True` or `False`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> Result<Given, clap::Error> {
        read(line.split_whitespace().map(OsString::from))
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        given(line).map(|given| given.cli)
    }

    #[test]
    fn every_flag_of_litellm_is_taken() {
        // From `proxy_cli.py` of LiteLLM 1.110.2, with a value where one is wanted.
        let flags = "--host h|--port 1|--num_workers 1|--granian_threads 1|--api_base b|--api_version v|--model m|-m m|--alias a|\
            --add_key k|--headers h|--save|--debug|--detailed_debug|--use_queue|--temperature 1|--max_tokens 1|--request_timeout 1|\
            --drop_params|--add_function_to_prompt|--config c|-c c|--max_budget 1|--telemetry False|--log_config f|--setup|--health|\
            --test|--test_async|--iam_token_db_auth|--azure_postgresql_auth|--num_requests 1|--run_gunicorn|--run_hypercorn|\
            --run_granian|--ssl_keyfile_path k --ssl_certfile_path c|--ciphers c|--use_prisma_db_push|--local|--skip_server_startup|\
            --validate_config|--check_migrations_against_existing_data|--keepalive_timeout 1|--max_request_header_size 1|\
            --timeout_worker_healthcheck 1|--max_requests_before_restart 1|--max_requests_before_restart_jitter 1|\
            --limit_concurrency 1|--enforce_prisma_migration_check|--use_v2_migration_resolver|--use_legacy_migration_resolver|\
            --reload|--prometheus_metrics_port 1";
        let mut told = 0;
        for flag in flags.split('|').map(str::trim) {
            for line in [format!("tollgate {flag}"), format!("tollgate ledger --listen 0.0.0.0:1 {flag}")] {
                let given = given(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                let name = flag.split(' ').next().unwrap();
                assert!(
                    given.remarks.iter().all(|remark| remark.starts_with(&format!("{name} has no effect: ")))
                );
                told += given.remarks.len();
            }
        }
        assert_eq!(told, 2 * WithoutEffect::augment_args(Command::new("x")).get_arguments().count());
        for line in ["tollgate --version", "tollgate -v", "tollgate -V"] {
            assert_eq!(parse(line).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion, "{line}");
        }
        let one = given("tollgate --keepalive-timeout 75").unwrap().remarks;
        assert_eq!(one, ["--keepalive_timeout has no effect: idle connections are closed after 15 minutes"]);
    }

    #[test]
    fn help_is_in_groups_with_examples() {
        let help = Cli::command().render_help().to_string();
        for part in ["Models:", "Serving:", "Logging:", "Running:", "Examples:", "tollgate check config.yaml"]
        {
            assert!(help.contains(part), "{part} is not in\n{help}");
        }
        assert!(!help.contains("run_gunicorn"));
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
            "tollgate import --from postgresql://u@h/litellm --dry_run --spend_logs --state-dir /s",
            "tollgate --num-workers 2 --state-dir=/a-b --drop-params",
            "tollgate check c.yaml --json --only problems --strict",
            "tollgate render c.yaml",
            "tollgate healthcheck",
            "tollgate healthcheck --config c.yaml",
            "tollgate completions bash",
            "tollgate --config c.yaml --use_v2_migration_resolver --max_requests_before_restart 1000 --skip_server_startup",
            "tollgate --config c.yaml --validate_config",
            "tollgate import --from postgresql://u@h/litellm --to postgresql://u@h/tollgate",
            "tollgate import --from postgresql://u@h/litellm --dry_run --spend_logs --salt_key sk-1",
            "tollgate --drain_delay 15",
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
            "tollgate --no-such-flag 2",
            "tollgate check",
            "tollgate check a.yaml --config b.yaml",
            "tollgate completions cobol",
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

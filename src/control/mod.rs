//! The `tollgate` command (native only): reads `config.yaml`, writes Envoy's configuration, starts Envoy and looks after it.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`document`] | `config.yaml`, its includes and the flags, as one document with its secrets sealed |
//! | [`dotenv`] | `.env` in the working directory |
//! | [`dynamic`] | models added through the API, as part of the document |
//! | [`follow`] | asking the ledger for those models |
//! | [`secrets`] | which values are secrets |
//! | [`check`] | `tollgate check` |
//! | [`checked`] | a document's meaning, or what is wrong with it |
//! | [`explain`] | where a call would go, and why |
//! | [`envoy`] | Envoy's configuration |
//! | [`render`] | one static file for an Envoy that runs without the command |
//! | [`flush`] | Envoy's last usage |
//! | [`guard`] | what Envoy runs under, which outlives a command that was killed |
//! | [`keeper`] | the ledger's process, kept alive |
//! | [`ledger`] | keys, budgets and spend: the database, the management API, what the filter asks |
//! | [`log`] | lines of our own about what happens |
//! | [`machine`] | what this machine gives: an address, certificate authorities, environment variables |
//! | [`metrics`] | `/metrics`, so that it never keeps Envoy busy |
//! | [`process`] | child processes |
//! | [`start`] | what a start tells |
//! | [`state`] | the folder of an instance: module, generated files, admin socket |
//! | [`binary`] | finding an Envoy that is new enough |
//! | [`admin`] | talking to Envoy's admin socket |
//! | [`supervise`] | serving: start, reload, restart, drain |
//! | [`watch`] | noticing that files changed |
//! | [`client`] | calls to a running gateway: `--test`, `--health`, `healthcheck` |
//!
//! It is never in the way of a completion: requests go from the client to Envoy and the filter in it.

#![allow(
    clippy::disallowed_methods,
    reason = "the command has a clock, an environment and threads of its own"
)]

pub mod admin;
pub mod binary;
pub mod check;
pub mod checked;
pub mod cli;
pub mod client;
pub mod document;
pub mod dotenv;
pub mod dynamic;
pub mod envoy;
pub mod explain;
pub mod flush;
pub mod follow;
pub mod guard;
pub mod host;
pub mod keeper;
pub mod ledger;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod process;
pub mod render;
pub mod secrets;
pub mod start;
pub mod state;
pub mod supervise;
pub mod watch;

use std::{fmt, io::Write, process::ExitCode};

use clap::CommandFactory;

use cli::{Action, Cli, LedgerFlags, Serve};

/// Why the command ends without having done what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The configuration or the command line must be changed first: exit code 2.
    Configuration(Vec<String>),
    /// It could not be done now: exit code 1.
    Running(String),
}

impl Failure {
    /// One problem of the configuration.
    pub fn configuration(problem: impl Into<String>) -> Failure {
        Failure::Configuration(vec![problem.into()])
    }

    /// Something that failed on the way.
    pub fn running(problem: impl Into<String>) -> Failure {
        Failure::Running(problem.into())
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Configuration(_) => ExitCode::from(2),
            Failure::Running(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Configuration(problems) => f.write_str(&problems.join("\n")),
            Failure::Running(problem) => f.write_str(problem),
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // First of all: it sets variables. Envoy's guard has those of the command.
    let guards = std::env::args_os().nth(1).is_some_and(|word| word == "guard");
    let mut remarks = if guards { Vec::new() } else { dotenv::load() };
    let given = cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    remarks.extend(given.remarks);
    let cli = given.cli;
    let serves = matches!(cli.action, None | Some(Action::Ledger(_)));
    if cli.action.is_none() {
        remarks.iter().for_each(|remark| complain(remark));
    }
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            match &failure {
                // What has run for a while is looked for in a log.
                Failure::Running(problem) if serves => log::error(problem),
                // The person who typed the command reads it.
                _ => failure.to_string().lines().for_each(refuse),
            }
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.action {
        Some(Action::Guard(flags)) => guard::run(&flags),
        action => act(action, cli.serve).map(|()| ExitCode::SUCCESS),
    }
}

fn act(action: Option<Action>, flags: Serve) -> Result<(), Failure> {
    match action {
        Some(Action::Render { file, config, module, host }) => {
            print(&render::render(file.or(config).unwrap_or_default(), host, module.as_deref())?)
        }
        Some(Action::Check(flags)) => {
            let answer = check::answer(&flags)?;
            print(&answer.text)?;
            answer.failure.map_or(Ok(()), Err)
        }
        Some(Action::Explain(flags)) => explain::run(*flags),
        Some(Action::Ledger(flags)) => ledger::run(&ledger_options(*flags)?),
        Some(Action::Import(options)) => print(&ledger::import::run(&options)?),
        Some(Action::Backup(options)) => print(&ledger::backup::backup(&options)?),
        Some(Action::Restore(options)) => print(&ledger::backup::restore(&options)?),
        Some(Action::Healthcheck(flags)) => client::healthcheck(&flags),
        Some(Action::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut std::io::stdout());
            Ok(())
        }
        Some(Action::Guard(_)) => Ok(()),
        None => serve(flags),
    }
}

fn ledger_options(flags: LedgerFlags) -> Result<ledger::Options, Failure> {
    let LedgerFlags { serve, listen, socket, database_dir, gateway } = flags;
    let folder = match database_dir {
        Some(folder) => folder,
        None => {
            let (folder, elsewhere) = state::folder(serve.state_dir.as_deref(), "ledger")?;
            elsewhere.iter().for_each(|remark| complain(remark));
            folder
        }
    };
    Ok(ledger::Options { serve, socket, listen, folder, gateway })
}

fn serve(mut serve: Serve) -> Result<(), Failure> {
    if let Some(url) = &serve.test {
        return print(&client::test(&serve, url)?);
    }
    if serve.health == Some(true) {
        return print(&client::health(&serve)?);
    }
    if serve.validate_config || serve.skip_server_startup {
        let checked = checked::check_document(&document::read(&serve)?)?;
        let models = checked.config.deployments.len();
        return print(&format!("the configuration is good: {models} deployments"));
    }
    // LiteLLM's variable for the same.
    if std::env::var("LITELLM_LOG").is_ok_and(|level| level.eq_ignore_ascii_case("debug")) {
        serve.debug = serve.debug.or(Some(true));
    }
    supervise::serve(&serve)
}

/// Prints a result. A reader that went away (`| head`) is not an error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
    Ok(())
}

/// One line about what must be changed, for the person who started the command.
fn refuse(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tollgate: {line}");
}

/// One line about what happens while something serves.
fn complain(line: &str) {
    log::warn(line);
}

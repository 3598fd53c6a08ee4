//! `tollgate backup` and `tollgate restore`: the ledger's SQLite file, copied as it was at one moment, and put back.
//!
//! A plain copy of the file is none: what was answered last stands in the log beside it. The copy is made by SQLite itself, so it
//! works beside a gateway that serves. Postgres has tools of its own, which are named.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use sqlx::{AnyConnection, ConnectOptions, Connection, Executor, Row as _, any::AnyConnectOptions};

use super::{
    db::{DbError, target::Target},
    schema,
};
use crate::control::{Failure, checked, document, process::keep_private, state};

/// How long to wait for a lock, in milliseconds.
const PATIENCE: &str = "PRAGMA busy_timeout = 10000";

/// Which ledger.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct Where {
    /// LiteLLM configuration file of the gateway: its `general_settings.database_url` (or DATABASE_URL) may name a Postgres
    #[arg(long, short, value_name = "FILE", env = "CONFIG_FILE_PATH")]
    pub config: Option<PathBuf>,
    /// Where the gateway keeps its state [default: $XDG_STATE_HOME/tollgate, else ~/.local/state/tollgate]
    #[arg(long = "state_dir", value_name = "DIR", env = "TOLLGATE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Address the gateway listens on: with the port it names the folder of an earlier version's state
    #[arg(long, env = "HOST", default_value = "0.0.0.0", hide = true)]
    pub host: String,
    /// Port the gateway listens on
    #[arg(long, env = "PORT", default_value_t = 4000, hide = true)]
    pub port: u16,
}

/// What to back up, and where to.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "snake_case", after_help = "Example: tollgate backup /backups/ledger-$(date +%F).db")]
pub struct Backup {
    /// The file to write
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace the file when it is there
    #[arg(long)]
    pub force: bool,
    /// Which ledger.
    #[command(flatten)]
    pub ledger: Where,
}

/// What to put back.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "snake_case", after_help = "Example: tollgate restore /backups/ledger-2026-01-14.db")]
pub struct Restore {
    /// A file that `tollgate backup` has written
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace the ledger that is there; it is kept beside the new one as `ledger.db.replaced`
    #[arg(long)]
    pub force: bool,
    /// Which ledger.
    #[command(flatten)]
    pub ledger: Where,
}

/// Backs up and says what was done.
pub fn backup(options: &Backup) -> Result<String, Failure> {
    keep_private();
    if let Some(url) = postgres(&options.ledger)? {
        return Err(elsewhere("pg_dump --format=custom --file=", &options.file, &url));
    }
    let from =
        state::ledger_file(options.ledger.state_dir.as_deref(), &options.ledger.host, options.ledger.port);
    if !from.exists() {
        return Err(Failure::configuration(format!(
            "there is no ledger at `{}`: name the gateway's state directory with --state_dir; when it keeps keys in Postgres, \
             name that with --config or DATABASE_URL",
            from.display()
        )));
    }
    let to = &options.file;
    let draft = beside(to, ".new")?;
    let reserved = reserve(to, options.force)?;
    let done = running(async {
        let held = copied(&from, &draft).await.map_err(|error| problem("backup", &from, &error))?;
        File::open(&draft)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&draft, to))
            .and_then(|()| sync_folder(to))
            .map_err(|error| cannot_write(to, &error))?;
        Ok(held)
    });
    if done.is_err() {
        let _ = fs::remove_file(&draft);
        if reserved {
            let _ = fs::remove_file(to);
        }
    }
    let held = done?;
    Ok(format!("`{}` is in `{}` as it was at one moment: {held}", from.display(), to.display()))
}

/// Puts a backup in the place of the ledger of a gateway that does not run.
pub fn restore(options: &Restore) -> Result<String, Failure> {
    keep_private();
    if let Some(url) = postgres(&options.ledger)? {
        return Err(elsewhere("pg_restore --clean --if-exists ", &options.file, &url));
    }
    let from = &options.file;
    // For as long as this lives no gateway starts on the folder.
    let (folder, _lock) = state::lock(options.ledger.state_dir.as_deref())?;
    let to = folder.join("ledger.db");
    let (draft, replaced) = (beside(&to, ".restored")?, beside(&to, ".replaced")?);
    let there = to.exists();
    if there && !options.force {
        return Err(Failure::configuration(format!(
            "there is a ledger at `{}`: say --force to replace it (it is kept as `{}`)",
            to.display(),
            replaced.display()
        )));
    }
    let _ = fs::remove_file(&draft);
    let held =
        running(async { copied(from, &draft).await.map_err(|error| problem("restore", from, &error)) })
            .inspect_err(|_| {
                let _ = fs::remove_file(&draft);
            })?;
    let put = || -> io::Result<()> {
        File::open(&draft)?.sync_all()?;
        if there {
            fs::rename(&to, &replaced)?;
        }
        // The log goes with the file that it belongs to.
        for end in ["-wal", "-shm"] {
            match fs::rename(with_end(&to, end), with_end(&replaced, end)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&draft, &to)?;
        sync_folder(&to)
    };
    put().map_err(|error| cannot_write(&to, &error))?;
    let kept = if there {
        format!("\nWhat was there before is in `{}`.", replaced.display())
    } else {
        String::new()
    };
    Ok(format!("`{}` is what the gateway will start with: {held}{kept}", to.display()))
}

/// The URL of the Postgres that a gateway with this configuration uses.
fn postgres(ledger: &Where) -> Result<Option<String>, Failure> {
    let checked = match &ledger.config {
        Some(config) => checked::examine(&document::read_file(config.clone())?)?,
        None => checked::check("general_settings: {}", None)?,
    };
    let url = checked.config.ledger.database_url.map(|url| url.reveal().to_owned());
    Ok(url.filter(|url| !url.is_empty()))
}

/// Says which command does it for Postgres. The password is not in it: it is taken from where the gateway's is, or asked for.
fn elsewhere(command: &str, file: &Path, url: &str) -> Failure {
    let told = AnyConnectOptions::from_str(url).ok().and_then(|options| {
        let mut shown = options.database_url;
        if shown.password().is_some() {
            shown.set_password(None).ok()?;
        }
        // Prisma's parameters mean nothing to Postgres' tools, and a password may stand among the others.
        let kept: Vec<(String, String)> = shown
            .query_pairs()
            .filter(|(name, _)| matches!(name.as_ref(), "host" | "port" | "user" | "sslmode" | "sslrootcert"))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        shown.set_query(None);
        if !kept.is_empty() {
            shown.query_pairs_mut().extend_pairs(kept);
        }
        Some(shown.to_string())
    });
    let place = told.unwrap_or_else(|| "$DATABASE_URL".to_owned());
    let (first, last) = match command.starts_with("pg_dump") {
        true => (format!("{command}{}", quoted(&file.display().to_string())), quoted(&place)),
        false => (format!("{command}--dbname={}", quoted(&place)), quoted(&file.display().to_string())),
    };
    Failure::configuration(format!(
        "the ledger is in Postgres, which has a tool for it (PGPASSWORD or ~/.pgpass holds the password):\n  {first} {last}"
    ))
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Copies a database as it is at this moment, and reads the copy as a whole. Says what is in it.
async fn copied(from: &Path, draft: &Path) -> Result<String, DbError> {
    let _ = fs::remove_file(draft);
    let mut source = opened(from, "rw").await?;
    schema_is_known(&mut source).await?;
    sqlx::query("VACUUM INTO $1").bind(draft.display().to_string()).execute(&mut source).await?;
    source.close().await?;
    let mut copy = opened(draft, "ro").await?;
    let found = copy.fetch_one("PRAGMA integrity_check(1)").await?.try_get::<String, _>(0)?;
    if found != "ok" {
        return Err(DbError::Storage(super::db::error::Trouble::Damaged, found.replace('\n', " ")));
    }
    let mut told = Vec::new();
    for (table, what) in [("tollgate_keys", "keys"), ("tollgate_users", "users"), ("tollgate_teams", "teams")]
    {
        let count = copy.fetch_one(sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"))).await?;
        told.push(format!("{} {what}", count.try_get::<i64, _>(0)?));
    }
    copy.close().await?;
    Ok(told.join(", "))
}

async fn opened(file: &Path, mode: &str) -> Result<AnyConnection, DbError> {
    let mut options = Target::file(file)?.options;
    options.database_url.set_query(Some(&format!("mode={mode}")));
    let mut connection = options.connect().await.map_err(|error| match DbError::from(error) {
        DbError::Unavailable(text) => DbError::Statement(text),
        error => error,
    })?;
    connection.execute(PATIENCE).await?;
    Ok(connection)
}

/// Refuses what is no ledger, and one of a newer version.
async fn schema_is_known(connection: &mut AnyConnection) -> Result<(), DbError> {
    let found = connection.fetch_optional("SELECT schema_version FROM tollgate_state WHERE id = 1").await;
    let version = match found.map_err(DbError::from) {
        Ok(Some(row)) => row.try_get::<i64, _>(0)?,
        Ok(None) | Err(DbError::Statement(_)) => {
            return Err(DbError::Statement("it is not a ledger of tollgate".to_owned()));
        }
        Err(error) => return Err(error),
    };
    schema::knows(version)
}

fn running<T>(task: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::running(format!("cannot start: {error}")))?;
    runtime.block_on(task)
}

/// Makes an empty file of this name, unless what is there may be replaced. Says whether it is new.
fn reserve(to: &Path, force: bool) -> Result<bool, Failure> {
    match File::options().write(true).create_new(true).open(to) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match force && to.is_file() {
            true => Ok(false),
            false => Err(Failure::configuration(format!(
                "`{}` is there already: choose another name, or say --force to replace it",
                to.display()
            ))),
        },
        Err(error) => Err(cannot_write(to, &error)),
    }
}

/// The same name with something behind it.
fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A file in the same folder.
fn beside(path: &Path, end: &str) -> Result<PathBuf, Failure> {
    match path.file_name() {
        Some(_) => Ok(with_end(path, end)),
        None => Err(Failure::configuration(format!("`{}`: expected the name of a file", path.display()))),
    }
}

/// Has the name of a file survive a power cut too.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn problem(what: &str, file: &Path, error: &DbError) -> Failure {
    Failure::running(format!("{what}: `{}`: {error}", file.display()))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::running(format!("cannot write `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests;

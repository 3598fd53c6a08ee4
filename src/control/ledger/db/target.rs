//! Where the database is, and how a connection to it is set up.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions, Executor, any::AnyConnectOptions};
use tokio::time::timeout;

use super::error::DbError;

/// How long one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Each connection of an SQLite file: a log beside the file that every commit is synced to (an answered change survives a power
/// cut), and patience with other writers.
const SQLITE_SETTINGS: &[&str] =
    &["PRAGMA busy_timeout = 10000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"];
/// A connection that only asks how things are is not patient.
const IMPATIENT: &str = "PRAGMA busy_timeout = 1000";

/// A database by its address.
#[derive(Clone, Debug)]
pub struct Target {
    /// For people: `HOST:PORT` or the path of the file.
    pub place: String,
    /// The SQLite file; none for Postgres.
    pub file: Option<PathBuf>,
    /// How to connect.
    pub options: AnyConnectOptions,
    /// What every connection is told first.
    pub settings: Vec<String>,
    /// The schema that has to be there.
    schema: Option<String>,
}

impl Target {
    /// An SQLite file, made when it is missing.
    pub fn file(path: &Path) -> Result<Target, DbError> {
        sqlx::any::install_default_drivers();
        // In a URL these characters mean something.
        let escaped = path.display().to_string().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        Ok(Target {
            place: path.display().to_string(),
            file: Some(path.to_owned()),
            options: AnyConnectOptions::from_str(&format!("sqlite://{escaped}?mode=rwc"))?,
            settings: SQLITE_SETTINGS.iter().map(|setting| (*setting).to_owned()).collect(),
            schema: None,
        })
    }

    /// A Postgres server by its URL. `?schema=NAME`, Prisma's parameter, says where the tables are.
    pub fn server(url: &str) -> Result<Target, DbError> {
        sqlx::any::install_default_drivers();
        let options = AnyConnectOptions::from_str(url)?;
        let parameter = |name: &str| {
            let mut pairs = options.database_url.query_pairs();
            pairs.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
        };
        let host = options.database_url.host_str().filter(|host| !host.is_empty()).map(str::to_owned);
        let host = parameter("host").or(host).unwrap_or_else(|| "localhost".to_owned());
        let port = parameter("port").or_else(|| options.database_url.port().map(|port| port.to_string()));
        let place = format!("{host}:{}", port.as_deref().unwrap_or("5432"));
        let schema = parameter("schema").filter(|schema| !schema.is_empty());
        let settings =
            schema.iter().map(|schema| format!("SET search_path TO {}", quoted(schema))).collect::<Vec<_>>();
        Ok(Target { place, file: None, options, settings, schema })
    }

    /// Connects, and sets the connection up.
    pub async fn connect(&self) -> Result<AnyConnection, DbError> {
        let connected = timeout(CONNECT_LIMIT, async {
            let mut connection = self.options.connect().await?;
            if self.file.is_some() {
                connection.execute(IMPATIENT).await?;
            }
            for setting in self.settings.iter().filter(|setting| !setting.contains("busy_timeout")) {
                connection.execute(AssertSqlSafe(setting.clone())).await?;
            }
            Ok::<_, sqlx::Error>(connection)
        });
        let Ok(connected) = connected.await else {
            return Err(DbError::Unavailable(format!("no answer within {} s", CONNECT_LIMIT.as_secs())));
        };
        connected.map_err(|error| match DbError::from(error) {
            // Files get their names before anything is known of their insides.
            DbError::Statement(text) => DbError::Unavailable(text),
            error => error,
        })
    }

    /// Connects for the first time: makes the schema when it is missing.
    pub async fn prepare(&self) -> Result<(), DbError> {
        let mut connection = self.connect().await?;
        let Some(schema) = &self.schema else { return Ok(()) };
        let there = sqlx::query("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1")
            .bind(schema.as_str())
            .fetch_optional(&mut connection)
            .await?;
        if there.is_none() {
            let make = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
            connection.execute(AssertSqlSafe(make)).await?;
        }
        Ok(())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_host_and_port_and_never_a_password() {
        for (url, place) in [
            ("postgres://u:secret@db.internal:6543/x", "db.internal:6543"),
            ("postgresql://u:secret@db/x?schema=prod", "db:5432"),
            ("postgresql://u:secret@[::1]/x", "[::1]:5432"),
            ("postgresql:///x?host=/run/pg&port=5433", "/run/pg:5433"),
        ] {
            assert_eq!(Target::server(url).unwrap().place, place, "{url}");
        }
    }

    #[test]
    fn a_schema_of_the_url_is_where_tables_are_looked_for() {
        let settings = |url: &str| Target::server(url).unwrap().settings;
        assert_eq!(settings("postgres://h/d?schema=a%22b"), ["SET search_path TO \"a\"\"b\""]);
        assert!(settings("postgres://h/d?schema=").is_empty());
    }
}

//! Following the ledger: models that were added through the API, asked for again and again on a thread of their own, and merged
//! behind the configuration's own.
//!
//! Each question says which revision is here and waits a while for a newer one, so a change arrives at once and quiet costs
//! next to nothing. The next question is asked once the last answer is in force, which is how the ledger that runs under
//! this command knows that a management call may be answered.

use std::{
    collections::HashSet,
    env,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use super::{
    Failure, admin, complain,
    document::Document,
    dynamic::{self, StoredModel, StoredModels},
    envoy::LedgerAddress,
};
use crate::core::{config::Endpoint, ledger::MODELS_PATH};

/// How long the ledger keeps a question waiting. Shorter than what an answer over the socket may take.
const WAIT: Duration = Duration::from_secs(2);
/// How long an answer may take beyond that.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a question that was not answered.
const PAUSE: Duration = Duration::from_millis(250);

/// Somebody who asks the ledger on a thread of his own.
#[derive(Debug)]
pub struct Follower {
    answers: Receiver<StoredModels>,
    in_force: Sender<()>,
}

impl Follower {
    /// Asks a first time, then goes on asking. When the ledger cannot be reached at first, there are no models for now.
    pub fn start(ledger: Ledger) -> (Follower, Vec<StoredModel>) {
        let mut known = Known::default();
        let first = match ledger.ask(&known, Duration::ZERO) {
            Ok(found) => found.map(|found| known.take(found)),
            Err(why) => {
                known.complain(&why);
                None
            }
        };
        let (sends, answers) = channel();
        let (in_force, confirmed) = channel();
        thread::spawn(move || ask_on(&ledger, known, &sends, &confirmed));
        (Follower { answers, in_force }, first.unwrap_or_default())
    }

    /// The models as they are now, once they have changed; waits at most `wait`.
    pub fn next(&self, wait: Duration) -> Option<Vec<StoredModel>> {
        match self.answers.recv_timeout(wait) {
            Ok(found) => Some(found.models),
            Err(RecvTimeoutError::Timeout) => None,
            // Nobody asks any more; the caller's own pace stays.
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(wait);
                None
            }
        }
    }

    /// What [`Follower::next`] gave is in force, as far as it can be.
    pub fn taken(&self) {
        // The thread outlives everything that could ask this.
        let _ = self.in_force.send(());
    }
}

fn ask_on(ledger: &Ledger, mut known: Known, answers: &Sender<StoredModels>, in_force: &Receiver<()>) {
    loop {
        match ledger.ask(&known, WAIT) {
            Ok(None) => known.relieve(),
            Ok(Some(found)) => {
                known.relieve();
                known.revision = Some(found.revision);
                if answers.send(found).is_err() || in_force.recv().is_err() {
                    return;
                }
            }
            Err(why) => {
                known.complain(&why);
                thread::sleep(PAUSE);
            }
        }
    }
}

/// What is known here.
#[derive(Debug, Default)]
struct Known {
    revision: Option<u64>,
    is_away: bool,
}

impl Known {
    fn take(&mut self, found: StoredModels) -> Vec<StoredModel> {
        self.revision = Some(found.revision);
        found.models
    }

    /// Says once that the ledger is away.
    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_away, true) {
            complain(&format!(
                "the ledger does not say which models were added to it: {why}. What is served stays served."
            ));
        }
    }

    fn relieve(&mut self) {
        if std::mem::replace(&mut self.is_away, false) {
            complain("the ledger says again which models were added to it");
        }
    }
}

/// The ledger that is asked.
#[derive(Debug)]
pub struct Ledger {
    way: Way,
    secret: String,
}

#[derive(Debug)]
enum Way {
    /// Our own: it waits for us before it answers management calls.
    Socket(PathBuf),
    Remote {
        agent: ureq::Agent,
        url: String,
    },
}

impl Ledger {
    /// The one at an address. `authorities` is the file with those that its certificate is checked against.
    pub fn at(address: &LedgerAddress, secret: &str, authorities: &str) -> Result<Ledger, Failure> {
        let way = match address {
            LedgerAddress::Socket(path) => Way::Socket(path.clone()),
            LedgerAddress::Remote(endpoint) => Way::Remote {
                agent: agent(endpoint, authorities)?,
                url: format!(
                    "{}://{}{MODELS_PATH}",
                    if endpoint.tls { "https" } else { "http" },
                    endpoint.authority()
                ),
            },
        };
        Ok(Ledger { way, secret: secret.to_owned() })
    }

    /// The models, when they are others than those that are known. The error is why there is no answer.
    fn ask(&self, known: &Known, wait: Duration) -> Result<Option<StoredModels>, String> {
        let mut query = format!("?wait_ms={}", wait.as_millis());
        if let Some(revision) = known.revision {
            query += &format!("&since={revision}");
        }
        let (status, body) = match &self.way {
            Way::Socket(path) => {
                if let Some(revision) = known.revision {
                    query += &format!("&applied={revision}");
                }
                let header = format!("authorization: Bearer {}\r\n", self.secret);
                admin::call(path, "GET", &format!("{MODELS_PATH}{query}"), &header)
                    .map_err(|error| error.to_string())?
            }
            Way::Remote { agent, url } => {
                let request = agent
                    .get(format!("{url}{query}"))
                    .header("authorization", format!("Bearer {}", self.secret));
                let mut answer = request.call().map_err(|error| error.to_string())?;
                let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
                (answer.status().as_u16(), body)
            }
        };
        match status {
            204 => Ok(None),
            200 => serde_json::from_str(&body)
                .map(Some)
                // Its text would show parts of the answer.
                .map_err(|_| "its answer is no list of models, or broke off".to_owned()),
            status => Err(format!("it answered {status}: {}", body.chars().take(300).collect::<String>())),
        }
    }
}

/// Calls the ledger the way Envoy does: no proxy, the same authorities.
fn agent(endpoint: &Endpoint, authorities: &str) -> Result<ureq::Agent, Failure> {
    use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

    let mut tls = TlsConfig::builder().disable_verification(!endpoint.verify);
    if endpoint.tls && endpoint.verify {
        let text = std::fs::read(authorities).map_err(|error| {
            Failure::configuration(format!(
                "cannot read the certificate authorities `{authorities}`: {error}"
            ))
        })?;
        let certificates: Vec<_> = parse_pem(&text)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    Ok(ureq::Agent::config_builder()
        .timeout_global(Some(WAIT + PATIENCE))
        .http_status_as_error(false)
        .proxy(None)
        .tls_config(tls.build())
        .build()
        .into())
}

/// The models of the database that are served beside the configuration's own.
#[derive(Debug, Default)]
pub struct Stored {
    models: Vec<StoredModel>,
    /// What is wrong with them and was said already.
    told: HashSet<String>,
}

impl Stored {
    /// Takes the place of those before.
    pub fn replace(&mut self, models: Vec<StoredModel>) {
        self.models = models;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.models.len()
    }

    /// The document with the models behind its own, and what has to be said about them and was not said yet.
    pub fn merged(&mut self, document: &Document) -> (Document, Vec<String>) {
        self.merged_with(document, &|name| env::var(name).ok())
    }

    fn merged_with(
        &mut self,
        document: &Document,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> (Document, Vec<String>) {
        let (merged, left_out) = dynamic::merged(document, &self.models, env);
        let mut now: Vec<String> = left_out
            .into_iter()
            .map(|why| format!("{why}. It is left out; all others are served."))
            .collect();
        let settings = dynamic::settings(document);
        for model in &self.models {
            for name in model.missing_variables(&settings, env) {
                now.push(format!(
                    "model `{}` of the database (id `{}`): `os.environ/{name}` names an environment variable that this \
                     gateway does not have: set {name} and start it again",
                    model.model_name,
                    model.id()
                ));
            }
        }
        let told = std::mem::take(&mut self.told);
        self.told = now.iter().cloned().collect();
        now.retain(|line| !told.contains(line));
        (merged, now)
    }
}

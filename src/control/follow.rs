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
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    Failure, admin, complain,
    document::Document,
    dynamic::{self, StoredModel, StoredModels},
    envoy::LedgerAddress,
};
use crate::core::{model::endpoint::Endpoint, protocol::MODELS_PATH};

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
    is_over: Arc<AtomicBool>,
}

impl Follower {
    /// Asks a first time, then goes on asking. When the ledger cannot be reached at first, there are no models for now.
    pub fn start(ledger: Ledger) -> (Follower, Vec<StoredModel>) {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut known = Known { is_over: Arc::clone(&is_over), ..Known::default() };
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
        (Follower { answers, in_force, is_over }, first.unwrap_or_default())
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

    /// From now on it is no news that the ledger is away.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
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
    is_over: Arc<AtomicBool>,
}

impl Known {
    fn take(&mut self, found: StoredModels) -> Vec<StoredModel> {
        self.revision = Some(found.revision);
        found.models
    }

    /// Says once that the ledger is away.
    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_away, true) && !self.is_over.load(Ordering::Relaxed) {
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
            // An object and nothing else: a list would read as one without members, and as if all models were gone.
            200 => serde_json::from_str::<Map<String, Value>>(&body)
                .and_then(|object| serde_json::from_value(Value::Object(object)))
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        os::unix::net::UnixListener,
    };

    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "s3cret";

    fn stored(name: &str, id: &str, params: Value) -> StoredModel {
        let map = |value: Value| value.as_object().unwrap().clone();
        StoredModel {
            model_name: name.to_owned(),
            litellm_params: map(params),
            model_info: map(json!({"id": id})),
        }
    }

    fn told(revision: u64, names: &[&str]) -> String {
        let models = names.iter().map(|name| stored(name, name, json!({"model": "openai/x"}))).collect();
        serde_json::to_string(&StoredModels { revision, models }).unwrap()
    }

    /// Answers the next question with a status and a body, and gives its first line.
    fn answer(stream: &mut (impl Read + Write), status: u16, body: &str) -> String {
        let mut request = Vec::new();
        let mut part = [0; 512];
        while !request.ends_with(b"\r\n\r\n") {
            let size = stream.read(&mut part).unwrap();
            request.extend_from_slice(&part[..size]);
        }
        let request = String::from_utf8(request).unwrap();
        assert!(request.contains("authorization: Bearer s3cret"), "{request}");
        let length = body.len();
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
            .unwrap();
        request.lines().next().unwrap().to_owned()
    }

    fn names(models: &[StoredModel]) -> Vec<&str> {
        models.iter().map(|model| model.model_name.as_str()).collect()
    }

    #[test]
    fn our_own_ledger_hears_what_is_in_force() {
        let path = env::temp_dir().join(format!("tollgate-follow-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (asks, asked) = channel();
        thread::spawn(move || {
            let answers = [
                (200, told(5, &["a"])),
                (204, String::new()),
                (500, "?".to_owned()),
                (200, told(7, &["a", "b"])),
            ];
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                asks.send(answer(&mut stream, status, &body)).unwrap();
            }
            // Only once that is in force.
            let (mut stream, _) = listener.accept().unwrap();
            asks.send(answer(&mut stream, 204, "")).unwrap();
        });
        let ledger = Ledger::at(&LedgerAddress::Socket(path.clone()), SECRET, "").unwrap();
        let (follower, first) = Follower::start(ledger);
        assert_eq!(names(&first), ["a"]);
        assert_eq!(names(&follower.next(Duration::from_secs(20)).unwrap()), ["a", "b"]);
        let lines: Vec<String> = asked.try_iter().collect();
        assert_eq!(
            lines,
            [
                "GET /internal/models?wait_ms=0 HTTP/1.1",
                "GET /internal/models?wait_ms=2000&since=5&applied=5 HTTP/1.1",
                "GET /internal/models?wait_ms=2000&since=5&applied=5 HTTP/1.1",
                "GET /internal/models?wait_ms=2000&since=5&applied=5 HTTP/1.1",
            ]
        );
        assert!(asked.recv_timeout(Duration::from_millis(50)).is_err(), "it is not in force yet");
        follower.taken();
        let line = asked.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(line, "GET /internal/models?wait_ms=2000&since=7&applied=7 HTTP/1.1");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_ledger_that_is_away_at_first_is_heard_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("http://{}/ignored", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            [(503, "later".to_owned()), (200, told(3, &["a"]))].map(|(status, body)| {
                let (mut stream, _) = listener.accept().unwrap();
                answer(&mut stream, status, &body)
            })
        });
        let address = LedgerAddress::Remote(Endpoint::parse(&at).unwrap());
        let (follower, first) = Follower::start(Ledger::at(&address, SECRET, "").unwrap());
        assert_eq!(names(&first), [""; 0]);
        assert_eq!(names(&follower.next(Duration::from_secs(20)).unwrap()), ["a"]);
        let lines = server.join().unwrap();
        // A ledger of many gateways waits for none of them.
        assert_eq!(lines[1], "GET /internal/models?wait_ms=2000 HTTP/1.1");
    }

    #[test]
    fn answers_that_are_none_are_told_without_their_text() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            for body in ["{\"models\": [{\"litellm_params\": {\"api_key\": \"sk-7", "[]"] {
                let (mut stream, _) = listener.accept().unwrap();
                answer(&mut stream, 200, body);
            }
        });
        let address = LedgerAddress::Remote(Endpoint::parse(&at).unwrap());
        let ledger = Ledger::at(&address, SECRET, "").unwrap();
        for _ in 0..2 {
            let why = ledger.ask(&Known::default(), Duration::ZERO).unwrap_err();
            assert_eq!(why, "its answer is no list of models, or broke off");
        }
        server.join().unwrap();
        let missing = LedgerAddress::Remote(Endpoint::parse("https://ledger.example.com").unwrap());
        let failure = Ledger::at(&missing, SECRET, "/nonexistent/authorities.pem").unwrap_err();
        assert!(failure.to_string().contains("/nonexistent/authorities.pem"), "{failure}");
    }

    #[test]
    fn what_is_wrong_with_models_is_said_once() {
        let own = "model_list: [{model_name: a, litellm_params: {model: openai/a}, model_info: {id: one}}]\n";
        let document = Document {
            value: serde_yaml::from_str(own).unwrap(),
            files: Vec::new(),
            text: Some(own.to_owned()),
            remarks: Vec::new(),
        };
        let bad = stored("b", "one", json!({"model": "openai/b"}));
        let unset = stored("c", "two", json!({"model": "openai/c", "api_key": "os.environ/UNSET"}));
        let good = stored("d", "three", json!({"model": "openai/d", "api_key": "os.environ/SET"}));
        let env = |name: &str| (name == "SET").then(|| "sk-x".to_owned());
        let mut models = Stored::default();
        assert_eq!(models.merged_with(&document, &env), (document.clone(), Vec::new()));
        models.replace(vec![bad.clone(), unset, good.clone()]);
        let (merged, said) = models.merged_with(&document, &env);
        assert_eq!(merged.value.get("model_list").unwrap().as_sequence().unwrap().len(), 3);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("`b`") && said[0].contains("It is left out"), "{}", said[0]);
        assert!(said[1].contains("`c`") && said[1].contains("`os.environ/UNSET`"), "{}", said[1]);
        // Another change does not say it again; a return of the fault does.
        models.replace(vec![bad.clone(), good.clone()]);
        assert_eq!(models.merged_with(&document, &env).1, [""; 0]);
        models.replace(vec![good]);
        assert_eq!(models.merged_with(&document, &env).1, [""; 0]);
        models.replace(vec![bad]);
        assert_eq!(models.merged_with(&document, &env).1.len(), 1);
    }
}

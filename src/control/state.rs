//! The folder of a running instance: the filter modules, Envoy's generated files and its admin socket.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Failure;
use crate::core::codec::hex::hex;

/// Longest path of a Unix socket.
const SOCKET_PATH_BYTES: usize = 100;

/// The name of Envoy's admin socket, beside the ledger's.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// How long what a killed gateway has left behind may take to end.
const LEFT_BEHIND: Duration = Duration::from_secs(15);

/// The file that says where the gateway of a folder listens.
const ADDRESS: &str = "gateway.json";

/// The ledger's own database, and the files that SQLite keeps beside it. The database comes last: while it is not there, what
/// was moved so far is moved on.
const LEDGER_FILES: [&str; 3] = ["ledger.db-wal", "ledger.db-shm", "ledger.db"];

/// The folder of one instance, locked for as long as this value lives.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    socket: PathBuf,
    ledger_socket: PathBuf,
    /// What whoever starts it should know.
    remarks: Vec<String>,
    lock: File,
}

/// Where a running gateway listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// For a client on this machine: `https://127.0.0.1:4000`.
    pub url: String,
    /// Its process.
    pub pid: u32,
}

/// The folder in which earlier versions kept the state of the instance that listened on `host` and `port`.
fn name_of(host: &str, port: u16) -> String {
    let any = matches!(host, "0.0.0.0" | "::" | "[::]");
    if any { port.to_string() } else { format!("{}-{port}", host.replace([':', '/', '[', ']'], "_")) }
}

impl State {
    /// Makes and locks the folder `base`, or the one where state is kept by convention. What an earlier version kept in it for
    /// each address is taken over; `host` and `port` say which, should there be several.
    pub fn open(base: Option<&Path>, host: &str, port: u16) -> Result<State, Failure> {
        let mut remarks = Vec::new();
        let (folder, elsewhere) = make_base(base)?;
        remarks.extend(elsewhere);
        let lock = locked(&folder)?;
        remarks.extend(adopt(&folder, &name_of(host, port))?);
        shut(&folder);
        let mut sockets = folder.clone();
        // The longest name of a socket. The access log shows it as it is.
        let longest = folder.join("ledger.sock");
        if longest.as_os_str().len() > SOCKET_PATH_BYTES || !is_plain(&longest) {
            let short = short_hex(&Sha256::digest(folder.as_os_str().as_encoded_bytes()), 8);
            let other = env::temp_dir().join(format!("tollgate-{}-{short}", user()));
            make(&other).map_err(|error| cannot_use(&other, &error))?;
            sockets = other;
        }
        let socket = sockets.join(ADMIN_SOCKET);
        let ledger_socket = sockets.join("ledger.sock");
        Ok(State { folder, socket, ledger_socket, remarks, lock })
    }

    /// What whoever starts it should know of where the state is, one line each.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Notes where the gateway listens, for [`address`].
    pub fn note_address(&self, url: String) -> Result<(), Failure> {
        let address = Address { url, pid: std::process::id() };
        let text = serde_json::to_vec(&address)
            .map_err(|error| Failure::running(format!("the address cannot be written: {error}")))?;
        self.replace(ADDRESS, &text).map(|_| ())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What keeps others out as long as a process has it open.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// Envoy's admin socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The ledger's socket.
    pub fn ledger_socket(&self) -> &Path {
        &self.ledger_socket
    }

    /// Writes the filter's Wasm module under a name that tells its content, and says where it is.
    pub fn write_module(&self, module: &[u8]) -> Result<PathBuf, Failure> {
        self.write_named(module, "tollgate-", ".wasm")
    }

    /// Writes the filter's dynamic module under a name that tells its content, and gives the name that Envoy has for it: new code
    /// needs a new one.
    pub fn write_native_module(&self, module: &[u8]) -> Result<String, Failure> {
        let path = self.write_named(module, "libtollgate-", ".so")?;
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        Ok(name.trim_start_matches("lib").to_owned())
    }

    fn write_named(&self, module: &[u8], prefix: &str, suffix: &str) -> Result<PathBuf, Failure> {
        let name = format!("{prefix}{}{suffix}", short_hex(&Sha256::digest(module), 16));
        let path = self.folder.join(&name);
        if fs::read(&path).is_ok_and(|there| there == module) {
            return Ok(path);
        }
        self.clean_modules(prefix);
        self.replace(&name, module)?;
        Ok(path)
    }

    /// Replaces a file in one step: a reader sees the old content or the new one.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        let draft = self.folder.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let mut file =
                File::options().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| cannot_use(&path, &error))?;
        Ok(path)
    }

    /// Removes modules of earlier versions.
    fn clean_modules(&self, prefix: &str) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether a path can stand in a JSON text as it is.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_control() && !matches!(byte, b'"' | b'\\'))
}

/// Has only their owner read files that an earlier version made readable for others, when the folder did not keep those out.
pub fn shut(folder: &Path) {
    for name in LEDGER_FILES.into_iter().chain(["lock"]) {
        let path = folder.join(name);
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_file() && found.mode() & 0o077 != 0 {
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        }
    }
}

/// Locks a folder. The error names who has it.
fn locked(folder: &Path) -> Result<File, Failure> {
    let lock = File::options()
        .create(true)
        .append(true)
        .open(folder.join("lock"))
        .map_err(|error| cannot_use(folder, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let who = address_in(folder).map_or_else(String::new, |Address { url, pid }| {
                format!(" (process {pid}, which serves {url})")
            });
            Err(Failure::configuration(format!(
                "the state directory `{}` is in use by another tollgate{who}: stop it, or choose another with --state_dir. \
                 Gateways that shall share keys and spend share a Postgres (DATABASE_URL)",
                folder.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(cannot_use(folder, &error)),
    }
}

/// Waits for what a gateway has left behind that was killed: its Envoy ends once its usage is in the ledger. What another holds
/// that lives is not waited for.
pub fn await_end_of_the_last(base: Option<&Path>) {
    let folder = base.map_or_else(default_base, Path::to_owned);
    let deadline = Instant::now() + LEFT_BEHIND;
    // In a container the numbers of processes begin anew.
    let is_dead = |pid| pid == std::process::id() || !is_process(pid);
    while Instant::now() < deadline
        && address_in(&folder).is_some_and(|last| is_dead(last.pid))
        && File::open(folder.join("lock"))
            .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Locks the folder `base`, or the one where state is kept by convention, as a gateway does that runs on it.
pub fn lock(base: Option<&Path>) -> Result<(PathBuf, File), Failure> {
    let (folder, _) = make_base(base)?;
    let lock = locked(&folder)?;
    Ok((folder, lock))
}

/// The folders in `base` in which earlier versions kept a ledger for each address, the one that was written last first.
fn earlier(base: &Path) -> Vec<String> {
    let port_of = |name: &str| name.rsplit('-').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let mut found: Vec<(SystemTime, String)> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| port_of(name))?;
            let files = ["ledger.db", "ledger.db-wal"].map(|file| fs::metadata(entry.path().join(file)));
            let [Ok(_), _] = &files else { return None };
            let written = files.iter().flatten().filter_map(|file| file.modified().ok()).max()?;
            Some((written, name))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, name)| name).collect()
}

/// Takes over the ledger that an earlier version kept for one address, when there is none yet. Says what it did.
fn adopt(folder: &Path, preferred: &str) -> Result<Vec<String>, Failure> {
    if folder.join("ledger.db").exists() {
        return Ok(Vec::new());
    }
    let found = earlier(folder);
    let Some(name) = found.iter().find(|name| *name == preferred).or(found.first()) else {
        return Ok(Vec::new());
    };
    let from = folder.join(name);
    // An earlier version that still runs must not lose its database.
    let _running = locked(&from)?;
    for file in LEDGER_FILES {
        match fs::rename(from.join(file), folder.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_use(folder, &error)),
            _ => {}
        }
    }
    let mut told = vec![format!(
        "the ledger of `{}` is kept in `{}` from now on, whatever the address is",
        from.display(),
        folder.display()
    )];
    let others: Vec<String> =
        found.iter().filter(|other| *other != name).map(|other| format!("`{other}`")).collect();
    if !others.is_empty() {
        told.push(format!(
            "other ledgers of earlier versions stay unused in {}: to serve one, stop the gateway and put its ledger.db into `{}`, \
             or start with --state_dir",
            others.join(", "),
            folder.display()
        ));
    }
    Ok(told)
}

/// Where the gateway listens whose state is in `base`, or where state is kept by convention; `None` when none runs there. One that
/// was killed leaves its address behind: that says nothing of the gateway that is asked for.
pub fn address(base: Option<&Path>) -> Option<Address> {
    let running = |folder: &Path| address_in(folder).filter(|address| is_process(address.pid));
    let preferred = base.map_or_else(default_base, Path::to_owned);
    running(&preferred).or_else(|| if base.is_none() { running(&fallback_base()) } else { None })
}

/// Whether there is a process of this number.
fn is_process(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn address_in(folder: &Path) -> Option<Address> {
    serde_json::from_slice(&fs::read(folder.join(ADDRESS)).ok()?).ok()
}

/// Where the ledger's database is of the gateway whose state is in `base`, or where state is kept by convention. One that an
/// earlier version kept for an address is named as long as no gateway has taken it over.
pub fn ledger_file(base: Option<&Path>, host: &str, port: u16) -> PathBuf {
    let folder = base.map_or_else(default_base, Path::to_owned);
    let file = folder.join("ledger.db");
    if file.exists() {
        return file;
    }
    let found = earlier(&folder);
    let preferred = name_of(host, port);
    match found.iter().find(|name| **name == preferred).or(found.first()) {
        Some(name) => folder.join(name).join("ledger.db"),
        None => file,
    }
}

/// Makes the folder `name` in `base`, or where state is kept by convention. Also says when that is elsewhere than wanted.
pub fn folder(base: Option<&Path>, name: &str) -> Result<(PathBuf, Option<String>), Failure> {
    let (base, elsewhere) = make_base(base)?;
    let folder = base.join(name);
    make(&folder).map(|folder| (folder, elsewhere)).map_err(|error| cannot_use(&folder, &error))
}

/// Makes `base`, or the folder where state is kept by convention. When that cannot be, says where it is instead.
fn make_base(base: Option<&Path>) -> Result<(PathBuf, Option<String>), Failure> {
    let wanted = base.map_or_else(default_base, Path::to_owned);
    if wanted.to_str().is_none() {
        return Err(Failure::configuration(format!(
            "the state directory `{}` is not UTF-8, so that Envoy cannot be told of it: choose another with --state_dir",
            wanted.display()
        )));
    }
    match make(&wanted) {
        Ok(folder) => Ok((folder, None)),
        Err(error) if base.is_none() => {
            let other = fallback_base();
            let folder = make(&other).map_err(|error| cannot_use(&other, &error))?;
            let told = format!(
                "`{}` cannot be written ({error}): keys and spend are kept in `{}`, which may be gone after the next boot. \
                 Choose a state directory with --state_dir, or a database with DATABASE_URL",
                wanted.display(),
                folder.display()
            );
            Ok((folder, Some(told)))
        }
        Err(error) => Err(cannot_use(&wanted, &error)),
    }
}

fn fallback_base() -> PathBuf {
    env::temp_dir().join(format!("tollgate-{}", user()))
}

fn default_base() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(state), _) => state.join("tollgate"),
        (None, Some(home)) => home.join(".local/state/tollgate"),
        (None, None) => fallback_base(),
    }
}

/// Makes a folder that only its owner can read, and says its absolute path. One that is there already must be writable, and
/// ours: in a shared temporary directory somebody else may have made it first, to read along.
fn make(folder: &Path) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let folder = folder.canonicalize()?;
    let probe = folder.join(".writable");
    fs::write(&probe, b"")?;
    let ours = fs::metadata(&probe)?.uid() == fs::metadata(&folder)?.uid();
    fs::remove_file(&probe)?;
    if !ours && folder.starts_with(env::temp_dir()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(folder)
}

/// Tells the folders of different people apart in a shared temporary directory.
fn user() -> String {
    env::var("USER")
        .ok()
        .filter(|user| user.chars().all(|c| c.is_ascii_alphanumeric()))
        .unwrap_or_else(|| "state".to_owned())
}

fn cannot_use(path: &Path, error: &io::Error) -> Failure {
    Failure::configuration(format!(
        "cannot write `{}`: {error}. Choose a state directory with --state_dir",
        path.display()
    ))
}

/// The first digits of bytes in hexadecimal.
fn short_hex(bytes: &[u8], length: usize) -> String {
    let mut text = hex(bytes);
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder of this test's own.
    fn base(name: &str) -> PathBuf {
        let base = env::temp_dir().join(format!("tollgate-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        fs::create_dir_all(&base).unwrap();
        base.canonicalize().unwrap()
    }

    fn put(folder: &Path, file: &str, content: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(file), content).unwrap();
    }

    #[test]
    fn sockets_have_paths_that_can_be_logged_as_they_are() {
        for name in ["a\"b", "a\\b", "a\nb", "\u{e4}"] {
            let base = base(&format!("sockets-{name}"));
            let state = State::open(Some(&base), "127.0.0.1", 4000).unwrap();
            assert_eq!(state.folder(), base);
            for socket in [state.socket(), state.ledger_socket()] {
                assert!(is_plain(socket), "{socket:?}");
                assert!(!socket.starts_with(&base), "{socket:?}");
            }
            let sockets = state.socket().parent().unwrap().to_owned();
            drop(state);
            fs::remove_dir_all(base).unwrap();
            fs::remove_dir_all(sockets).unwrap();
        }
        let base = base("sockets-50%");
        let state = State::open(Some(&base), "127.0.0.1", 4000).unwrap();
        assert_eq!(state.ledger_socket(), base.join("ledger.sock"));
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_folder_that_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let folder = base("text").join(std::ffi::OsStr::from_bytes(b"\xff"));
        let Err(failure) = State::open(Some(&folder), "127.0.0.1", 4000) else { panic!("it is taken") };
        assert!(failure.to_string().contains("is not UTF-8"), "{failure}");
        assert!(!folder.exists());
    }

    #[test]
    fn the_state_is_the_same_whatever_the_address() {
        let base = base("same");
        for (host, port) in [("0.0.0.0", 4000), ("0.0.0.0", 4001), ("127.0.0.1", 4000), ("::1", 1)] {
            let state = State::open(Some(&base), host, port).unwrap();
            assert_eq!((state.folder(), state.remarks().len()), (base.as_path(), 0));
        }
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn two_gateways_do_not_share_a_folder() {
        let base = base("two");
        assert_eq!(address(Some(&base)), None);
        let first = State::open(Some(&base), "0.0.0.0", 4000).unwrap();
        first.note_address("http://127.0.0.1:4000".to_owned()).unwrap();
        let refused = State::open(Some(&base), "0.0.0.0", 4001).unwrap_err().to_string();
        let here = format!("process {}, which serves http://127.0.0.1:4000", std::process::id());
        assert!(refused.contains("in use by another") && refused.contains(&here), "{refused}");
        drop(first);
        State::open(Some(&base), "0.0.0.0", 4001).unwrap();
        assert_eq!(address(Some(&base)).unwrap().url, "http://127.0.0.1:4000");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn the_address_of_a_gateway_that_was_killed_is_not_asked() {
        let base = base("killed");
        let state = State::open(Some(&base), "0.0.0.0", 4000).unwrap();
        // No process has this number: the kernel's own limit is 2^22.
        let dead = Address { url: "http://127.0.0.1:4000".to_owned(), pid: 1 << 30 };
        state.replace(ADDRESS, &serde_json::to_vec(&dead).unwrap()).unwrap();
        assert_eq!(address(Some(&base)), None);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn the_ledger_of_an_earlier_version_is_taken_over() {
        let base = base("adopt");
        let old = base.join("4000");
        put(&old, "ledger.db", "keys");
        put(&old, "ledger.db-wal", "more keys");
        put(&base.join("notes"), "ledger.db", "not ours");
        assert_eq!(ledger_file(Some(&base), "::1", 7), old.join("ledger.db"));
        let state = State::open(Some(&base), "127.0.0.1", 5000).unwrap();
        assert!(state.remarks().len() == 1 && state.remarks()[0].contains("4000`"), "{:?}", state.remarks());
        assert_eq!(fs::read_to_string(base.join("ledger.db")).unwrap(), "keys");
        assert_eq!(fs::read_to_string(base.join("ledger.db-wal")).unwrap(), "more keys");
        assert!(!old.join("ledger.db").exists());
        assert_eq!(ledger_file(Some(&base), "::1", 7), base.join("ledger.db"));
        drop(state);
        // Once is enough: what lies there later is somebody else's.
        put(&old, "ledger.db", "other keys");
        assert_eq!(State::open(Some(&base), "0.0.0.0", 4000).unwrap().remarks().len(), 0);
        assert_eq!(fs::read_to_string(base.join("ledger.db")).unwrap(), "keys");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn of_several_earlier_ledgers_the_one_of_the_address_is_taken_else_the_newest() {
        for (host, port, taken) in [("127.0.0.1", 4000, "first"), ("0.0.0.0", 9, "newest")] {
            let base = base(&format!("several-{port}"));
            put(&base.join("127.0.0.1-4000"), "ledger.db", "first");
            put(&base.join("4001"), "ledger.db", "newest");
            let file = File::options().append(true).open(base.join("4001/ledger.db")).unwrap();
            file.set_modified(SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
            let state = State::open(Some(&base), host, port).unwrap();
            assert_eq!(fs::read_to_string(base.join("ledger.db")).unwrap(), taken);
            assert!(state.remarks()[1].contains("stay unused in"), "{:?}", state.remarks());
            fs::remove_dir_all(base).unwrap();
        }
    }

    #[test]
    fn an_earlier_version_that_runs_keeps_its_ledger() {
        let base = base("running");
        put(&base.join("4000"), "ledger.db", "keys");
        let running = locked(&base.join("4000")).unwrap();
        let refused = State::open(Some(&base), "0.0.0.0", 4001).unwrap_err().to_string();
        assert!(refused.contains("4000` is in use"), "{refused}");
        drop(running);
        State::open(Some(&base), "0.0.0.0", 4001).unwrap();
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_an_earlier_version_let_others_read_is_shut() {
        let base = base("shut");
        for file in ["ledger.db", "ledger.db-wal", "lock", "notes"] {
            put(&base, file, "");
            fs::set_permissions(base.join(file), fs::Permissions::from_mode(0o644)).unwrap();
        }
        State::open(Some(&base), "0.0.0.0", 4000).unwrap();
        let mode = |file: &str| fs::metadata(base.join(file)).unwrap().mode() & 0o777;
        assert_eq!(["ledger.db", "ledger.db-wal", "lock", "notes"].map(mode), [0o600, 0o600, 0o600, 0o644]);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn modules_replace_each_other() {
        let base = env::temp_dir().join(format!("tollgate-module-{}", std::process::id()));
        let state = State::open(Some(&base), "::1", 4000).unwrap();
        let old = state.write_module(b"one").unwrap();
        assert_eq!(state.write_module(b"one").unwrap(), old);
        let new = state.write_module(b"two").unwrap();
        assert_ne!(old, new);
        assert!(!old.exists());
        assert_eq!(fs::read(new).unwrap(), b"two");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn long_paths_get_a_short_socket() {
        let base = env::temp_dir().join(format!("tollgate-{}-{}", "x".repeat(120), std::process::id()));
        let state = State::open(Some(&base), "::", 1).unwrap();
        assert!(state.socket().as_os_str().len() <= SOCKET_PATH_BYTES);
        fs::remove_dir_all(base).unwrap();
    }
}

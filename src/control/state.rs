//! The folder of a running instance: the filter module, Envoy's generated files and its admin socket.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::Failure;

/// Longest path of a Unix socket.
const SOCKET_PATH_BYTES: usize = 100;

/// The folder of one instance, locked for as long as this value lives.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    socket: PathBuf,
    ledger_socket: PathBuf,
    _lock: File,
}

impl State {
    /// Makes and locks the folder of the instance that listens on `host` and `port`, in `base` or where state is kept by
    /// convention.
    pub fn open(base: Option<&Path>, host: &str, port: u16) -> Result<State, Failure> {
        let any = matches!(host, "0.0.0.0" | "::" | "[::]");
        let name = if any {
            port.to_string()
        } else {
            format!("{}-{port}", host.replace([':', '/', '[', ']'], "_"))
        };
        let folder = folder(base, &name)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(folder.join("lock"))
            .map_err(|error| cannot_use(&folder, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::configuration(format!(
                    "the state directory `{}` is in use by another tollgate: choose another with --state_dir",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot_use(&folder, &error)),
        }
        let mut sockets = folder.clone();
        // The longest name of a socket.
        if folder.join("ledger.sock").as_os_str().len() > SOCKET_PATH_BYTES {
            let short = hex(&Sha256::digest(folder.as_os_str().as_encoded_bytes()), 8);
            let other = env::temp_dir().join(format!("tollgate-{}-{short}", user()));
            make(&other).map_err(|error| cannot_use(&other, &error))?;
            sockets = other;
        }
        let socket = sockets.join("admin.sock");
        let ledger_socket = sockets.join("ledger.sock");
        Ok(State { folder, socket, ledger_socket, _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Envoy's admin socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The ledger's socket.
    pub fn ledger_socket(&self) -> &Path {
        &self.ledger_socket
    }

    /// Writes the filter module under a name that tells its content, and says where it is.
    pub fn write_module(&self, module: &[u8]) -> Result<PathBuf, Failure> {
        let name = format!("tollgate-{}.wasm", hex(&Sha256::digest(module), 16));
        let path = self.folder.join(&name);
        if fs::read(&path).is_ok_and(|there| there == module) {
            return Ok(path);
        }
        self.clean_modules();
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
    fn clean_modules(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "wasm") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Makes the folder `name` in `base`, or where state is kept by convention.
pub fn folder(base: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let folder = match base {
        Some(base) => base.join(name),
        None => default_base().join(name),
    };
    match make(&folder) {
        Ok(folder) => Ok(folder),
        Err(_) if base.is_none() => {
            let other = env::temp_dir().join(format!("tollgate-{}", user())).join(name);
            make(&other).map_err(|error| cannot_use(&other, &error))
        }
        Err(error) => Err(cannot_use(&folder, &error)),
    }
}

fn default_base() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(state), _) => state.join("tollgate"),
        (None, Some(home)) => home.join(".local/state/tollgate"),
        (None, None) => env::temp_dir().join(format!("tollgate-{}", user())),
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

fn hex(bytes: &[u8], length: usize) -> String {
    bytes.iter().take(length / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_do_not_share_a_folder() {
        let base = env::temp_dir().join(format!("tollgate-state-{}", std::process::id()));
        let first = State::open(Some(&base), "0.0.0.0", 4000).unwrap();
        assert!(first.folder().ends_with("4000"));
        assert!(State::open(Some(&base), "0.0.0.0", 4000).unwrap_err().to_string().contains("in use"));
        let other = State::open(Some(&base), "127.0.0.1", 4000).unwrap();
        assert!(other.folder().ends_with("127.0.0.1-4000"));
        drop(first);
        State::open(Some(&base), "0.0.0.0", 4000).unwrap();
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

//! Finding an Envoy that is new enough.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::Failure;

/// The oldest version with everything the gateway needs (cluster choice for each attempt, Wasm in upstream chains).
const OLDEST: (u32, u32) = (1, 40);

/// Where `make envoy` puts it, beside the repository's `target` folder.
const INSTALLED: &str = ".envoy/envoy/_bin/envoy";

/// An Envoy that is new enough.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
}

/// The Envoy to run: `asked` (`--envoy`), else `$TOLLGATE_ENVOY`, else the first on PATH that is new enough, else what
/// `make envoy` installed. One that was named explicitly and does not fit is an error, never passed over.
pub fn find(asked: Option<&Path>) -> Result<Binary, Failure> {
    let named = asked.map(|path| (path.to_owned(), "--envoy")).or_else(|| {
        let path = env::var_os("TOLLGATE_ENVOY").filter(|path| !path.is_empty())?;
        Some((PathBuf::from(path), "$TOLLGATE_ENVOY"))
    });
    if let Some((path, by)) = named {
        return check(path).map_err(|why| Failure::configuration(format!("{by}: {why}")));
    }
    let mut passed_over = Vec::new();
    for path in candidates() {
        match check(path) {
            Ok(binary) => return Ok(binary),
            Err(why) => passed_over.push(why),
        }
    }
    passed_over.push(format!(
        "no Envoy {}.{} or newer was found: name one with --envoy or $TOLLGATE_ENVOY, put one on PATH, or run `make envoy`",
        OLDEST.0, OLDEST.1
    ));
    Err(Failure::Configuration(passed_over))
}

fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("envoy"));
    // The command is target/release/tollgate in a clone of the repository.
    let beside = env::current_exe().ok().into_iter().flat_map(|exe| {
        exe.ancestors().skip(1).take(4).map(|folder| folder.join(INSTALLED)).collect::<Vec<_>>()
    });
    on_path.chain(beside).chain([PathBuf::from(INSTALLED)]).filter(|path| path.is_file()).collect()
}

/// Asks an Envoy for its version: it must run and be new enough.
fn check(path: PathBuf) -> Result<Binary, String> {
    let shown = path.display();
    let output = Command::new(&path)
        .arg("--version")
        .output()
        .map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(version) if version >= OLDEST => Ok(Binary { path, version }),
        Some((major, minor)) => {
            Err(format!("`{shown}` is Envoy {major}.{minor}: expected {}.{} or newer", OLDEST.0, OLDEST.1))
        }
        None => Err(format!("`{shown}` does not say its version as Envoy does")),
    }
}

/// From `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("version:")?;
    let mut numbers = rest.split('/').nth(1)?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("\n/usr/bin/envoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL\n", Some((1, 40))),
            ("envoy  version: abc/1.41.0-dev/Modified/DEBUG/BoringSSL", Some((1, 41))),
            ("something else 1.2", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn a_named_envoy_that_does_not_fit_is_an_error() {
        let failure = find(Some(Path::new("/nonexistent/envoy"))).unwrap_err().to_string();
        assert!(failure.contains("--envoy: cannot run `/nonexistent/envoy`"), "{failure}");
        let failure = find(Some(Path::new("/bin/echo"))).unwrap_err().to_string();
        assert!(failure.contains("`/bin/echo` does not say its version as Envoy does"), "{failure}");
    }
}

//! What this machine gives a gateway: an address to listen on, certificate authorities, environment variables.

use std::{
    env,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

use super::{Failure, cli::bracketed};
use crate::core::{config::seal, protocol::KEY_VARIABLE};

/// Where a machine keeps its certificate authorities (Debian, Fedora, SUSE, Alpine and macOS).
const AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// The address to listen on. Whether it is free is tried here: Envoy shares ports with other Envoys and would not say.
pub fn claim(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let bare = host.trim_matches(['[', ']']);
    let address =
        (bare, port).to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(|| {
            Failure::configuration(format!(
                "--host `{host}`: expected an address of this machine, such as 0.0.0.0"
            ))
        })?;
    let listener = TcpListener::bind(address).map_err(|error| {
        let shown = bracketed(bare);
        Failure::configuration(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "port {port} on {shown} is taken: choose another with --port, or stop what listens there"
                )
            }
            std::io::ErrorKind::PermissionDenied => {
                format!(
                    "port {port} on {shown} may not be used by this user: choose one above 1023 with --port"
                )
            }
            _ => format!("cannot listen on {shown}:{port}: {error}"),
        })
    })?;
    listener
        .local_addr()
        .map_err(|error| Failure::running(format!("cannot listen on {host}:{port}: {error}")))
}

/// Names of this process's environment that the filter may read: all that are ordinary names, once, in order. Listed in
/// full because the list cannot change while Envoy lives, and a later configuration may name any of them.
pub fn variables() -> Vec<String> {
    let mut names: Vec<String> = env::vars_os()
        .filter_map(|(name, value)| name.into_string().ok().filter(|_| value.to_str().is_some()))
        .filter(|name| is_name(name))
        .chain([seal::KEY_VARIABLE, KEY_VARIABLE].map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Half of the memory that this machine has, or the container that this process is in; `None` when nobody says.
pub fn half_of_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| total(&text));
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = container.iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok()).min();
    machine.into_iter().chain(container).min().map(|bytes| bytes / 2)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `$SSL_CERT_FILE`, else the machine's own.
pub fn authorities() -> Result<String, Failure> {
    if let Some(file) = env::var("SSL_CERT_FILE").ok().filter(|file| !file.is_empty()) {
        return Ok(file);
    }
    AUTHORITIES.iter().find(|file| std::path::Path::new(file).is_file()).map(|file| (*file).to_owned()).ok_or_else(|| {
        Failure::configuration(format!(
            "no certificate authorities at {}: install the package `ca-certificates`, or set SSL_CERT_FILE",
            AUTHORITIES.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_say_so() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = claim("127.0.0.1", port).unwrap_err();
        assert!(failure.to_string().contains(&format!("port {port} on 127.0.0.1 is taken")), "{failure}");
        assert!(matches!(failure, Failure::Configuration(_)));
        assert!(claim("127.0.0.1", 0).is_ok_and(|address| address.port() != 0));
        assert!(claim("not an address", 1).unwrap_err().to_string().contains("--host"));
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       16314104 kB\nMemFree: 1 kB\n"), Some(16_314_104 << 10));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(half_of_memory().is_some_and(|bytes| bytes > 64 << 20));
    }

    #[test]
    fn only_ordinary_names_are_passed_on() {
        for (name, expected) in [
            ("PATH", true),
            ("_x9", true),
            ("9x", false),
            ("", false),
            ("BASH_FUNC_x%%", false),
            ("a-b", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
        let names = variables();
        assert!(names.is_sorted() && names.iter().any(|name| name == seal::KEY_VARIABLE));
    }
}

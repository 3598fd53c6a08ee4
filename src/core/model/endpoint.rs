//! Where a provider or a ledger is reached, out of its base URL.

use std::fmt;

/// Where a provider is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https`.
    pub tls: bool,
    /// Host name or address, without brackets or port.
    pub host: String,
    /// Port, filled in from the scheme when the URL has none.
    pub port: u16,
    /// Path before the API's own (`/v1`), without a slash at its end; empty when there is none.
    pub path: String,
    /// Query of the base URL, without `?`.
    pub query: Option<String>,
    /// Verify the certificate (`ssl_verify`).
    pub verify: bool,
}

impl Endpoint {
    /// Reads a base URL. The error says what is wrong with it, without its user info or query.
    pub fn parse(url: &str) -> Result<Endpoint, &'static str> {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").ok_or("no http:// or https:// in front")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("the scheme is neither http nor https"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (before_query, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = before_query.split_at(before_query.find('/').unwrap_or(before_query.len()));
        if authority.contains('@') {
            return Err("credentials in the URL; put them into api_key or headers");
        }
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&b));
        if !plain(path) || !query.is_none_or(plain) {
            return Err("characters that a URL cannot hold");
        }
        Ok(Endpoint {
            tls,
            host,
            port,
            path: path.trim_end_matches('/').to_owned(),
            query: query.filter(|query| !query.is_empty()).map(str::to_owned),
            verify: true,
        })
    }

    /// Host and port as they stand in `:authority`: the port only when it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

/// The base URL without its query, which may hold a key.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }
}

/// `host:port`, with IPv6 addresses in brackets.
fn split_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    let port_of =
        |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or("the port is no number");
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a bracket is missing")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "no IPv6 address in the brackets")?;
        let port = rest.strip_prefix(':').map(port_of).transpose()?;
        return Ok((host.to_owned(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port_of(port)?)),
        None => (authority, None),
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
    match !host.is_empty() && host.len() <= 253 && host.bytes().all(good) {
        true => Ok((host.to_ascii_lowercase(), port)),
        false => Err("no usable host name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let rows = [
            ("https://api.openai.com/v1/", true, "api.openai.com", 443, "/v1", None, "api.openai.com"),
            ("http://0.0.0.0:8001", false, "0.0.0.0", 8001, "", None, "0.0.0.0:8001"),
            ("HTTPS://A.b:443//x//", true, "a.b", 443, "//x", None, "a.b"),
            ("http://[::1]:80/p?x=1&y=2#f", false, "::1", 80, "/p", Some("x=1&y=2"), "[::1]"),
        ];
        for (url, tls, host, port, path, query, authority) in rows {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.tls, endpoint.host.as_str(), endpoint.port), (tls, host, port), "{url}");
            assert_eq!((endpoint.path.as_str(), endpoint.query.as_deref()), (path, query), "{url}");
            assert_eq!(endpoint.authority(), authority);
        }
    }

    #[test]
    fn what_is_no_base_url() {
        for url in [
            "",
            "your_ollama_api_base",
            "https://<my-hosted-endpoint>",
            "ftp://x",
            "https://",
            "https://a:b",
            "https://a:0",
            "https://a:99999",
            "https://user:key@host/",
            "https://a b/",
            "https://a/x\r\ny",
            "http://[::1",
            "http://[zz]/",
        ] {
            assert!(Endpoint::parse(url).is_err(), "{url:?}");
        }
    }
}

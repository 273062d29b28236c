//! Which requests are for this service: whom they name as their host, and whose page sent them.
//!
//! A page of another site reaches a service that only this machine can reach: its name is made to
//! stand for a loopback address (DNS rebinding), or it just posts. The browser says so in `Host`,
//! `Origin` and `Sec-Fetch-Site`, which a page cannot change.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::{Method, Request, StatusCode, Version};
use uniroute_core::{Error, Result};

use crate::config::Config;
use crate::http::refusal::Refusal;

static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Bytes of a header that a refusal repeats.
const SHOWN: usize = 100;

/// The hosts that requests may name, and the origins that they may come from.
pub struct Hosts {
    /// Whatever host is named.
    any: bool,
    names: Vec<String>,
    /// What names end in, dot and all.
    endings: Vec<String>,
    origins: Vec<String>,
}

impl Hosts {
    /// Those of a configuration, for a service that listens on a loopback address or elsewhere.
    pub fn new(config: &Config, loopback: bool) -> Result<Self> {
        let mut hosts = Self {
            any: !loopback && config.allowed_hosts.is_empty(),
            names: Vec::new(),
            endings: Vec::new(),
            origins: config.allowed_origins.clone(),
        };
        for host in &config.allowed_hosts {
            let ending = host.strip_prefix("*.").filter(|rest| is_name(rest));
            if host == "*" {
                hosts.any = true;
            } else if ending.is_some() {
                hosts.endings.push(host[1..].to_owned());
            } else if let Some(name) = split(host.as_bytes())
                .filter(|(_, port)| port.is_empty())
                .map(|(name, _)| name)
            {
                hosts.names.push(name.to_owned());
            } else {
                let expected = "names without a port, such as router.example, *.example or *";
                let found = format!("\"{}\"", shown(host.as_bytes()));
                return Err(Error::invalid("allowed_hosts", found, expected));
            }
        }
        for origin in &config.allowed_origins {
            if authority(origin.as_bytes()).and_then(split).is_none() {
                let expected = "origins as browsers say them, such as https://app.example";
                let found = format!("\"{}\"", shown(origin.as_bytes()));
                return Err(Error::invalid("allowed_origins", found, expected));
            }
        }
        Ok(hosts)
    }

    /// Fails unless a request is for this service, and not sent by a page of another site.
    pub fn check<B>(&self, request: &Request<B>) -> std::result::Result<(), Refusal> {
        let host = named(request)?;
        if let Some((_, name)) = host
            && !self.has(name)
        {
            let expected = "localhost, a loopback address, or a name of the setting allowed_hosts";
            let found = shown(name.as_bytes());
            let message = format!("host: \"{found}\" is not this service's; expected {expected}");
            let status = StatusCode::MISDIRECTED_REQUEST;
            return Err(Refusal::new(status, "unknown_host", message));
        }
        self.check_origin(request, host.map(|(whole, _)| whole))
    }

    /// Whether a host is one of ours. Loopback names are always: no other machine has them.
    fn has(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.any
            || name.eq_ignore_ascii_case("localhost")
            || name
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
            || self.endings.iter().any(|ending| {
                let at = name.len().checked_sub(ending.len());
                at.filter(|at| *at > 0)
                    .and_then(|at| name.get(at..))
                    .is_some_and(|end| end.eq_ignore_ascii_case(ending))
            })
    }

    fn check_origin<B>(
        &self,
        request: &Request<B>,
        host: Option<&[u8]>,
    ) -> std::result::Result<(), Refusal> {
        let headers = request.headers();
        let mut said = false;
        for origin in headers.get_all(ORIGIN) {
            said = true;
            let origin = origin.as_bytes();
            let page = [&b"http://"[..], b"https://"];
            let own = (page.iter().find_map(|scheme| origin.strip_prefix(*scheme))).zip(host);
            let own = own.is_some_and(|(from, host)| from.eq_ignore_ascii_case(host));
            let mut allowed = self.origins.iter().map(String::as_bytes);
            if !own && !allowed.any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
                return Err(other_origin(&format!("origin: \"{}\"", shown(origin))));
            }
        }
        // A page of another site may send some requests without saying its origin. Following a link
        // to this service is all right.
        let is = |name: &HeaderName, value| headers.get(name).is_some_and(|is| is == value);
        let shows = matches!(*request.method(), Method::GET | Method::HEAD);
        if !said && is(&FETCH_SITE, "cross-site") && !(shows && is(&FETCH_MODE, "navigate")) {
            return Err(other_origin("sec-fetch-site: \"cross-site\""));
        }
        Ok(())
    }
}

/// The host that a request names, and its name alone; nothing where HTTP/1.0 names none.
fn named<B>(request: &Request<B>) -> std::result::Result<Option<(&[u8], &str)>, Refusal> {
    let mut all = request.headers().get_all(HOST).iter();
    let (host, more) = (all.next().map(HeaderValue::as_bytes), all.next());
    let target = request
        .uri()
        .authority()
        .map(|target| target.as_str().as_bytes());
    let problem = match (host, target) {
        _ if more.is_some() => "given more than once".into(),
        (Some(host), Some(target)) if !host.eq_ignore_ascii_case(target) => {
            let (host, target) = (shown(host), shown(target));
            format!("\"{host}\", while the request's target is at \"{target}\"")
        }
        (None, None) if request.version() == Version::HTTP_10 => return Ok(None),
        (None, _) if request.version() != Version::HTTP_10 => "missing".into(),
        (Some(host), _) | (None, Some(host)) => match split(host) {
            Some((name, _)) => return Ok(Some((host, name))),
            None => format!("\"{}\"", shown(host)),
        },
        (None, None) => "missing".into(),
    };
    let message = format!("host: {problem}; expected one name or address, with its port");
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "invalid_host",
        message,
    ))
}

fn other_origin(found: &str) -> Refusal {
    let expected = "a page of this service, or an origin of the setting allowed_origins";
    let message = format!("{found} is another site's; expected {expected}");
    Refusal::new(StatusCode::FORBIDDEN, "other_origin", message)
}

/// What an origin says behind its scheme.
fn authority(origin: &[u8]) -> Option<&[u8]> {
    let at = origin.windows(3).position(|part| part == b"://")?;
    Some(&origin[at + 3..]).filter(|_| at > 0)
}

/// The name or address of `name:port`, without brackets, and the port with its colon.
fn split(authority: &[u8]) -> Option<(&str, &str)> {
    let authority = std::str::from_utf8(authority).ok()?;
    let (name, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        (address, port)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (name, port) = authority.split_at(end);
        (is_name(name).then_some(name)?, port)
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = digits.len() == port.len().saturating_sub(1)
        && digits.len() <= 5
        && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_port.then_some((name, port))
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty() && name.bytes().all(is_part)
}

/// The beginning of what a client sent, with nothing in it that a terminal would act on.
fn shown(sent: &[u8]) -> String {
    let beginning = &sent[..sent.len().min(SHOWN)];
    let more = if sent.len() > SHOWN { "..." } else { "" };
    format!("{}{more}", beginning.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(loopback: bool, config: &str) -> Hosts {
        Hosts::new(&Config::read(None, config).unwrap(), loopback).unwrap()
    }

    fn request(lines: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(name, value);
        }
        request
    }

    /// The code of the refusal, if it is one.
    fn code(hosts: &Hosts, lines: &[(&str, &str)]) -> &'static str {
        hosts
            .check(&request(lines))
            .map_or_else(|r| r.code, |()| "")
    }

    #[test]
    fn only_loopback_names_reach_a_loopback_service() {
        let own = hosts(true, "{}");
        for host in [
            "localhost",
            "LOCALHOST:80",
            "localhost.:8080",
            "127.0.0.1",
            "127.1.2.3:9",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "localhost:",
        ] {
            assert_eq!(code(&own, &[("host", host)]), "", "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "[::2]",
            "0.0.0.0",
            "2130706433",
            "0x7f.1",
        ] {
            assert_eq!(code(&own, &[("host", host)]), "unknown_host", "{host}");
        }
    }

    #[test]
    fn other_names_are_listed() {
        let listed = r#"{"allowed_hosts": ["router.example", "*.Inner.example", "[fd00::1]"]}"#;
        for own in [hosts(true, listed), hosts(false, listed)] {
            for host in [
                "Router.example:80",
                "a.b.inner.example",
                "[fd00::1]",
                "127.0.0.1",
            ] {
                assert_eq!(code(&own, &[("host", host)]), "", "{host}");
            }
            for host in [
                "inner.example",
                "xinner.example",
                "router.example.evil",
                "ünner",
            ] {
                assert_ne!(code(&own, &[("host", host)]), "", "{host}");
            }
        }
        for own in [
            hosts(false, "{}"),
            hosts(true, r#"{"allowed_hosts": ["*"]}"#),
        ] {
            assert_eq!(code(&own, &[("host", "any.example")]), "");
        }
    }

    #[test]
    fn a_host_is_said_once_and_well() {
        let any = hosts(false, "{}");
        for host in [
            "", " ", "a b", "a:b", "a:123456", "user@a", "a/b", "[::1", "[::1]x", "::1", "a,b",
            ":80", "[a]", "\u{e9}",
        ] {
            assert_eq!(code(&any, &[("host", host)]), "invalid_host", "{host:?}");
        }
        assert_eq!(code(&any, &[]), "invalid_host");
        assert_eq!(code(&any, &[("host", "a"), ("host", "a")]), "invalid_host");
        let target = |uri: &str, host: Option<&str>, version| {
            let host: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let mut request = request(&host);
            *request.uri_mut() = uri.parse().unwrap();
            *request.version_mut() = version;
            any.check(&request).map_or_else(|r| r.code, |()| "")
        };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        assert_eq!(target("/healthz", None, old), "");
        assert_eq!(target("http://a/healthz", None, old), "");
        assert_eq!(target("http://u@a/healthz", None, old), "invalid_host");
        assert_eq!(target("http://a/", Some("A"), new), "");
        assert_eq!(target("http://a/", Some("b"), new), "invalid_host");
        assert_eq!(target("http://a/", None, new), "invalid_host");
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let config = r#"{"allowed_origins": ["https://app.example"]}"#;
        let own = hosts(true, config);
        let with = |more: &[(&str, &str)]| {
            let mut lines = vec![("host", "localhost:80")];
            lines.extend(more);
            code(&own, &lines)
        };
        for origin in [
            "http://localhost:80",
            "https://LOCALHOST:80",
            "https://app.example",
        ] {
            let lines = [("origin", origin), ("sec-fetch-site", "cross-site")];
            assert_eq!(with(&lines), "", "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:81",
            "http://evil.example",
            "localhost:80",
            "://localhost:80",
            "https://app.example.evil",
            "https://app.example/",
        ] {
            assert_eq!(with(&[("origin", origin)]), "other_origin", "{origin}");
        }
        let two = [
            ("origin", "http://localhost:80"),
            ("origin", "http://evil.example"),
        ];
        assert_eq!(with(&two), "other_origin");
        let site = |site| ("sec-fetch-site", site);
        let mode = |mode| ("sec-fetch-mode", mode);
        assert_eq!(with(&[site("cross-site")]), "other_origin");
        assert_eq!(with(&[site("cross-site"), mode("no-cors")]), "other_origin");
        assert_eq!(with(&[site("cross-site"), mode("navigate")]), "");
        assert_eq!(with(&[site("same-origin")]), "");
        assert_eq!(with(&[site("none"), mode("navigate")]), "");
    }

    #[test]
    fn settings_that_name_no_host_are_refused() {
        for config in [
            r#"{"allowed_hosts": [""]}"#,
            r#"{"allowed_hosts": ["a:80"]}"#,
            r#"{"allowed_hosts": ["http://a"]}"#,
            r#"{"allowed_hosts": ["*a"]}"#,
            r#"{"allowed_hosts": ["*."]}"#,
            r#"{"allowed_origins": ["app.example"]}"#,
            r#"{"allowed_origins": ["https://app.example/"]}"#,
            r#"{"allowed_origins": ["null"]}"#,
        ] {
            let config = Config::read(None, config).unwrap();
            assert!(
                Hosts::new(&config, true).is_err(),
                "{:?}",
                config.allowed_hosts
            );
        }
    }

    #[test]
    fn a_refusal_is_short_and_printable() {
        let long = format!("a{}", "\u{1b}[31m".repeat(5000));
        // A header cannot hold an escape, but a target's bytes are checked by others.
        assert_eq!(shown(long.as_bytes()).find('\u{1b}'), None);
        assert!(shown(long.as_bytes()).len() <= 4 * SHOWN + 3);
        let refused = hosts(true, "{}").check(&request(&[("host", &"a".repeat(30_000))]));
        assert!(refused.unwrap_err().message.len() < 500);
    }
}

//! Bytes of a URL over HTTP: redirects, proxies, timeouts, repeated tries, and going on where a former try broke off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq::http::header::{self, HeaderMap};
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};
use ureq::{Agent, Body};

use super::proxy::{ForwardConnector, ProxyResolver, Route};
use super::transfer::Broken;
use super::*;

/// How many redirects are followed.
const MOST_REDIRECTS: usize = 10;
/// A try that got this many bytes further starts the count of tries anew.
const PROGRESS: u64 = 1024 * 1024;

/// Connections and certificates that requests have in common. Clones share them; timeouts are those of the first use.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<HashMap<Route, Agent>>>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

/// Returns what an HTTP status means, with a leading space; nothing for one that nobody has heard of.
pub(super) fn reason(status: u16) -> String {
    let known = ureq::http::StatusCode::from_u16(status).ok();
    known
        .and_then(|status| status.canonical_reason())
        .map_or(String::new(), |reason| format!(" {reason}"))
}

/// Why a try failed.
enum Failure {
    /// Another try would fail as well.
    Final(Error),
    /// Another try may go through.
    Again {
        url: String,
        why: String,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
}

/// Passes on what `url` holds, from where `transfer` is.
pub(super) fn download(url: &str, settings: &Settings, transfer: &mut Transfer<'_>) -> Result<(), Error> {
    if settings.offline {
        return Err(Error::Offline {
            name: transfer.name().to_owned(),
            place: without_password(url),
            sha256: transfer.expected(),
        });
    }
    let mut resume = Resume {
        possible: transfer.expected().is_some(),
        validator: None,
    };
    let mut tries = 0;
    loop {
        let before = transfer.done();
        let (url, why, wait) = match attempt(url, settings, transfer, &mut resume) {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again { url, why, wait }) => (url, why, wait),
        };
        tries = if transfer.done() - before >= PROGRESS {
            1
        } else {
            tries + 1
        };
        if tries >= settings.patience.tries {
            return Err(Error::Network { url, tries, why });
        }
        let wait = pause(&settings.patience, tries, wait);
        transfer.watch.see(Event::FetchRetried {
            name: transfer.name(),
            why: &why,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        });
        std::thread::sleep(wait);
    }
}

/// Returns how long to wait after try number `tries`: what the server asked for, else twice as long each time.
fn pause(patience: &Patience, tries: u32, asked: Option<Duration>) -> Duration {
    let doubled = patience.back_off.saturating_mul(1 << (tries - 1).min(16));
    asked.unwrap_or(doubled).min(patience.longest_back_off)
}

/// What is known of a server's ability to go on in the middle.
struct Resume {
    /// Whether to ask for it: the digest will tell a wrong rest, or there is a validator.
    possible: bool,
    /// Names the version that the first bytes were of (RFC 9110 section 13.1.5).
    validator: Option<String>,
}

fn attempt(
    url: &str,
    settings: &Settings,
    transfer: &mut Transfer<'_>,
    resume: &mut Resume,
) -> Result<(), Failure> {
    let from = (transfer.done() > 0 && resume.possible).then(|| transfer.done());
    let (url, response) = follow(
        url,
        settings,
        from,
        resume.validator.as_deref(),
        transfer.expected().is_some(),
    )?;
    let again = |why: String, wait| Failure::Again {
        url: without_password(&url),
        why,
        wait,
    };
    let status = response.status().as_u16();
    match status {
        200 => {}
        206 if from.is_some() && range_start(response.headers()) == from => {}
        206 | 416 => {
            resume.possible = false;
            return Err(again(
                format!("no part of it can be had ({status})"),
                Some(Duration::ZERO),
            ));
        }
        408 | 425 | 429 | 500 | 502..=504 | 507 | 509 | 520..=599 => {
            let wait = retry_after(response.headers(), settings.now);
            return Err(again(
                format!("the server answered {status}{}", reason(status)),
                wait,
            ));
        }
        _ => {
            return Err(Failure::Final(Error::Status {
                url: without_password(&url),
                status,
            }));
        }
    }
    if status == 200 && resume.validator.is_none() {
        resume.validator = validator(response.headers());
        resume.possible |= resume.validator.is_some();
    }
    let already = if status == 206 { transfer.done() } else { 0 };
    let total = content_length(response.headers()).map(|rest| rest.saturating_add(already));
    let mut body = response.into_body().into_reader();
    if let Err(error) = transfer.start(&without_password(&url), total) {
        let whole = status != 206;
        return Err(Failure::Final(if whole {
            transfer.explained(error, &mut body)
        } else {
            error
        }));
    }
    let passed = if status == 206 {
        Ok(())
    } else {
        transfer.skip(&mut body)
    };
    match passed.and_then(|()| transfer.take(&mut body)) {
        Ok(()) => {}
        Err(Broken::Final(error)) => return Err(Failure::Final(error)),
        Err(Broken::Sender(error)) => return Err(again(format!("broken off: {error}"), None)),
    }
    match transfer.missing(total) {
        None => Ok(()),
        Some(size) => Err(again(
            format!("it ended after {} of {size} bytes", transfer.done()),
            None,
        )),
    }
}

/// Asks for `url` and wherever it leads; returns the last URL and its answer.
fn follow(
    url: &str,
    settings: &Settings,
    from: Option<u64>,
    validator: Option<&str>,
    pinned: bool,
) -> Result<(String, Response<Body>), Failure> {
    let mut url = url.to_owned();
    for _ in 0..=MOST_REDIRECTS {
        let response = ask(&url, settings, from, validator)?;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok((url, response));
        }
        let location = response.headers().get(header::LOCATION);
        let location = location
            .and_then(|location| location.to_str().ok())
            .unwrap_or_default();
        url = next_hop(&url, location, pinned).map_err(Failure::Final)?;
    }
    let why = format!("it redirects more than {MOST_REDIRECTS} times");
    Err(Failure::Final(Error::BadUrl {
        url: without_password(&url),
        why,
    }))
}

/// Returns where a redirect leads. What was asked for over an encrypted connection is not taken from an open one,
/// unless its digest is known.
fn next_hop(url: &str, location: &str, pinned: bool) -> Result<String, Error> {
    let bad = |why: String| Error::BadUrl {
        url: without_password(url),
        why,
    };
    let next = join(url, location).ok_or_else(|| bad("it redirects to nowhere".into()))?;
    if url.starts_with("https:") && !next.starts_with("https:") && !pinned {
        return Err(bad(format!(
            "it redirects to `{}`, which is not encrypted",
            without_password(&next)
        )));
    }
    Ok(next)
}

/// Sends one request; returns its answer, whatever that says.
fn ask(
    url: &str,
    settings: &Settings,
    from: Option<u64>,
    validator: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let bad = |why: &str| {
        Failure::Final(Error::BadUrl {
            url: without_password(url),
            why: why.to_owned(),
        })
    };
    let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(bad("expected `http://host/path` or `https://host/path`"));
    }
    let route = Route::to(&uri, &settings.proxies).map_err(Failure::Final)?;
    let agent = agent(&route, settings).map_err(Failure::Final)?;
    let mut request = agent.get(uri);
    if let Route::Forward(proxy) = &route
        && let Some(credentials) = credentials(proxy)
    {
        request = request.header(
            header::PROXY_AUTHORIZATION,
            format!("Basic {}", BASE64_STANDARD.encode(credentials)),
        );
    }
    if let Some(from) = from {
        request = request.header(header::RANGE, format!("bytes={from}-"));
        if let Some(validator) = validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    request.call().map_err(|error| failed(url, error))
}

/// Tells what another try may mend from what it cannot.
fn failed(url: &str, error: ureq::Error) -> Failure {
    use ureq::Error as E;
    let url = without_password(url);
    let why = match &error {
        E::Io(error) => error.to_string(),
        E::HostNotFound => "the host name cannot be looked up".into(),
        E::Timeout(timeout) => format!("no answer in time ({timeout})"),
        E::ConnectProxyFailed(why) => format!("the proxy opens no tunnel: {why}"),
        error => error.to_string(),
    };
    // A certificate that is not trusted arrives as an I/O error of this kind.
    let unfit = matches!(&error, E::Io(error) if error.kind() == io::ErrorKind::InvalidData);
    match error {
        E::Io(_) if !unfit => Failure::Again { url, why, wait: None },
        E::Timeout(_) | E::HostNotFound | E::ConnectProxyFailed(_) | E::ConnectionFailed | E::Protocol(_) => {
            Failure::Again { url, why, wait: None }
        }
        _ => Failure::Final(Error::Network { url, tries: 1, why }),
    }
}

fn agent(route: &Route, settings: &Settings) -> Result<Agent, Error> {
    let mut agents = settings
        .connections
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(agent) = agents.get(route) {
        return Ok(agent.clone());
    }
    let bad = |proxy: &str| Error::BadProxy {
        proxy: without_password(proxy),
    };
    let tunnel = match route {
        Route::Tunnel(proxy) => Some(ureq::Proxy::new(proxy).map_err(|_| bad(proxy))?),
        Route::Direct | Route::Forward(_) => None,
    };
    let patience = &settings.patience;
    let config = Agent::config_builder()
        // Without this the library would look for a proxy in the environment.
        .proxy(tunnel)
        .tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::PlatformVerifier)
                .build(),
        )
        .user_agent(concat!("mk/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        // Each hop may take another way, so they are followed here.
        .max_redirects(0)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.read))
        .timeout_per_read(Some(patience.read))
        .timeout_per_write(Some(patience.read))
        .build();
    let agent = match route {
        Route::Forward(proxy) => Agent::with_parts(
            config,
            ().chain(TcpConnector::default()).chain(ForwardConnector),
            ProxyResolver {
                proxy: proxy.parse().map_err(|_| bad(proxy))?,
                inner: DefaultResolver::default(),
            },
        ),
        Route::Direct | Route::Tunnel(_) => Agent::new_with_config(config),
    };
    agents.insert(route.clone(), agent.clone());
    Ok(agent)
}

/// Returns the `user:password` of a URL, decoded.
fn credentials(url: &str) -> Option<Vec<u8>> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let (credentials, _) = authority.rsplit_once('@')?;
    Some(percent_decoded(credentials))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = (*first == b'%').then(|| tail.get(..2)).flatten();
        let decoded = pair
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    bytes
}

/// Returns where the part begins that an answer brings.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Returns what names this version in an `If-Range`: a strong entity tag, else the time of its last change.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &header::HeaderValue| value.to_str().ok())
    };
    let tag = text(header::ETAG).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| text(header::LAST_MODIFIED)).map(str::to_owned)
}

/// Returns how long a server asks to wait: seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = debian::date::parse(text)?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// Returns the URL that `location` means on the page `base` (RFC 3986 section 5.2, for `http` and `https`).
fn join(base: &str, location: &str) -> Option<String> {
    let location = location.trim().split('#').next()?;
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let scheme_end = location
        .find(':')
        .filter(|&end| !location[..end].contains(['/', '?']));
    if scheme_end.is_some() || location.is_empty() {
        return None;
    }
    let path_start = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(path_start);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{}", without_dots(location)));
    }
    if location.starts_with('?') {
        return Some(format!("{scheme}://{host}{path}{location}"));
    }
    let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
    Some(format!(
        "{scheme}://{host}{}",
        without_dots(&format!("{folder}{location}"))
    ))
}

/// Resolves `.` and `..` in an absolute path; a query stays as it is.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut kept: Vec<&str> = Vec::new();
    for name in path.split('/').skip(1) {
        match name {
            "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_rfc_3986_says() {
        let base = "http://a.example/b/c/d?q";
        for (location, expected) in [
            ("https://b.example/x", Some("https://b.example/x")),
            ("//b.example/x", Some("http://b.example/x")),
            ("/x/./y/../z?k=/../v", Some("http://a.example/x/z?k=/../v")),
            ("e", Some("http://a.example/b/c/e")),
            ("../e/", Some("http://a.example/b/e/")),
            ("../../../..", Some("http://a.example/")),
            ("?k", Some("http://a.example/b/c/d?k")),
            ("e#part", Some("http://a.example/b/c/e")),
            ("e:f", None),
            ("ftp://b.example/x", None),
            ("file:///etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
        assert_eq!(
            join("http://a.example", "e").as_deref(),
            Some("http://a.example/e")
        );
        assert_eq!(
            join("http://a.example?q", "/e").as_deref(),
            Some("http://a.example/e")
        );
    }

    #[test]
    fn only_pinned_bytes_may_leave_encryption() {
        let (from, to) = ("https://a.example/x", "http://b.example/x");
        assert_eq!(next_hop(from, to, true).unwrap(), to);
        assert!(next_hop(from, "https://b.example/x", false).is_ok());
        let error = next_hop(from, to, false).unwrap_err().to_string();
        assert_eq!(
            error,
            "`https://a.example/x` cannot be fetched: it redirects to `http://b.example/x`, which is not encrypted"
        );
    }

    #[test]
    fn pauses_double_and_are_never_longer_than_allowed() {
        let patience = Patience {
            back_off: Duration::from_millis(10),
            longest_back_off: Duration::from_millis(50),
            ..Patience::default()
        };
        let waits: Vec<u128> = (1..=40)
            .map(|tries| pause(&patience, tries, None).as_millis())
            .collect();
        assert_eq!(waits[..4], [10, 20, 40, 50]);
        assert!(waits.iter().all(|&wait| wait <= 50));
        assert_eq!(
            pause(&patience, 1, Some(Duration::from_secs(3600))).as_millis(),
            50
        );
    }

    #[test]
    fn servers_say_how_long_to_wait_in_two_ways() {
        let now = debian::date::parse("Sat, 14 Jun 2025 10:00:00 GMT").unwrap();
        let asked = |text: &str| {
            let headers = [(header::RETRY_AFTER, text.parse().unwrap())];
            retry_after(&HeaderMap::from_iter(headers), now)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            asked("Sat, 14 Jun 2025 10:00:09 GMT"),
            Some(Duration::from_secs(9))
        );
        assert_eq!(asked("Sat, 14 Jun 2025 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("-1"), None);
    }

    #[test]
    fn credentials_are_decoded_once() {
        assert_eq!(
            credentials("http://me:p%40ss%2525@proxy.example:1/").unwrap(),
            b"me:p@ss%25"
        );
        assert_eq!(credentials("http://proxy.example/a@b"), None);
        assert_eq!(percent_decoded("100%"), b"100%");
        assert_eq!(percent_decoded("%zz%4"), b"%zz%4");
    }

    #[test]
    fn no_password_is_shown() {
        assert_eq!(
            without_password("http://me:secret@a.example/x@y"),
            "http://me:***@a.example/x@y"
        );
        assert_eq!(without_password("me:secret@a.example"), "me:***@a.example");
        assert_eq!(
            without_password("http://a.example/?k=v@w"),
            "http://a.example/?k=v@w"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_url_is_too_odd(base in "(https?://)?[a@:/?#.%é]{0,12}", location in "(//|\\?|#|[a@:/?#.%é]){0,12}") {
            if let Some(next) = join(&base, &location) {
                join(&next, &location);
            }
            credentials(&location);
            without_password(&base);
            url_name(&base);
        }
    }
}

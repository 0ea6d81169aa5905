//! Which way a request takes: directly, through a tunnel that a proxy opens (`https://`), or forwarded by a proxy
//! (`http://`; RFC 9112 section 3.2.2, absolute-form). Many proxies refuse tunnels to port 80, so both are needed.

use std::net::IpAddr;

use ureq::Error as Failure;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::{Error, Proxies, without_password};

/// The way that a request takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Route {
    /// Straight to the host.
    Direct,
    /// Through a tunnel opened by the proxy at this URL.
    Tunnel(String),
    /// Forwarded by the proxy at this URL.
    Forward(String),
}

impl Route {
    /// Returns the way to `uri`.
    pub(super) fn to(uri: &Uri, proxies: &Proxies) -> Result<Self, Error> {
        let secure = uri.scheme_str() == Some("https");
        let proxy = if secure { &proxies.https } else { &proxies.http };
        let Some(proxy) = proxy.as_deref().map(str::trim).filter(|proxy| !proxy.is_empty()) else {
            return Ok(Self::Direct);
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        if is_exempt(
            proxies.none.as_deref().unwrap_or_default(),
            uri.host().unwrap_or_default(),
            port,
        ) {
            return Ok(Self::Direct);
        }
        let bad = || Error::BadProxy {
            proxy: without_password(proxy),
        };
        let url = if proxy.contains("://") {
            proxy.to_owned()
        } else {
            format!("http://{proxy}")
        };
        let parsed: Uri = url.parse().map_err(|_| bad())?;
        match parsed.scheme_str() {
            // Only a plain connection to the proxy can be forwarded over; a tunnel works over both.
            Some("http") if !secure => Ok(Self::Forward(url)),
            Some("http" | "https") => Ok(Self::Tunnel(url)),
            _ => Err(bad()),
        }
    }
}

/// Whether `list`, as in `no_proxy`, says that `host` is reached directly.
fn is_exempt(list: &str, host: &str, port: u16) -> bool {
    let host = host
        .trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    list.split([',', ' '])
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .any(|item| {
            let item = item.to_ascii_lowercase();
            if item == "*" {
                return true;
            }
            if let (Some(address), Some((network, bits))) = (address, item.split_once('/')) {
                return is_within(address, network, bits);
            }
            let (name, wanted) = split_port(&item);
            if wanted.is_some_and(|wanted| wanted != port) {
                return false;
            }
            if let Some(address) = address {
                return name.parse() == Ok(address);
            }
            let name = name
                .trim_start_matches("*")
                .trim_start_matches('.')
                .trim_end_matches('.');
            host == name
                || host
                    .strip_suffix(name)
                    .is_some_and(|rest| !name.is_empty() && rest.ends_with('.'))
        })
}

/// Splits `name:port`, `[address]:port` or either without a port.
fn split_port(item: &str) -> (&str, Option<u16>) {
    if let Some((address, rest)) = item.strip_prefix('[').and_then(|item| item.split_once(']')) {
        return (address, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match item.split_once(':') {
        Some((name, port)) if !port.contains(':') => (name, port.parse().ok()),
        _ => (item, None),
    }
}

fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else {
        return false;
    };
    match (address, network.parse()) {
        (IpAddr::V4(one), Ok(IpAddr::V4(other))) if bits <= 32 => {
            let differing = u32::from(one) ^ u32::from(other);
            differing.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(one), Ok(IpAddr::V6(other))) if bits <= 128 => {
            let differing = u128::from(one) ^ u128::from(other);
            differing.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Finds the proxy, whatever host is asked for.
#[derive(Debug)]
pub(super) struct ProxyResolver {
    pub(super) proxy: Uri,
    pub(super) inner: DefaultResolver,
}

impl Resolver for ProxyResolver {
    fn resolve(
        &self,
        _: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Failure> {
        self.inner.resolve(&self.proxy, config, timeout)
    }
}

/// Makes each request on a connection to a proxy name its host: `GET http://host/path`.
#[derive(Debug)]
pub(super) struct ForwardConnector;

impl<In: Transport> Connector<In> for ForwardConnector {
    type Out = Forwarded<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Failure> {
        let host = details.uri.authority().map_or("", |authority| {
            // What stands before the host would be a password that the proxy need not see.
            authority.as_str().rsplit('@').next().unwrap_or_default()
        });
        Ok(chained.map(|inner| Forwarded {
            inner,
            origin: format!("http://{host}").into_bytes(),
        }))
    }
}

/// A connection to a proxy.
#[derive(Debug)]
pub(super) struct Forwarded<T> {
    inner: T,
    origin: Vec<u8>,
}

impl<T: Transport> Transport for Forwarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Failure> {
        const BEFORE: &[u8] = b"GET ";
        let output = self.inner.buffers().output();
        let longer = amount + self.origin.len();
        let is_request = output[..amount].starts_with(BEFORE) && output.get(BEFORE.len()) == Some(&b'/');
        if !is_request || longer > output.len() {
            // Only requests are sent, and a header fills a fraction of the buffer.
            return Err(Failure::ConnectionFailed);
        }
        output.copy_within(BEFORE.len()..amount, BEFORE.len() + self.origin.len());
        output[BEFORE.len()..][..self.origin.len()].copy_from_slice(&self.origin);
        self.inner.transmit_output(longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Failure> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_need_no_proxy() {
        let list =
            "localhost, .corp.example,example.org:8080,10.0.0.0/8,fd00::/8,[::1]:80,192.0.2.7,*.wild.example";
        for (host, port) in [
            ("localhost", 80),
            ("LOCALHOST", 80),
            ("corp.example", 80),
            ("a.b.corp.example", 443),
            ("example.org", 8080),
            ("10.9.8.7", 80),
            ("[fd12::1]", 80),
            ("[::1]", 80),
            ("192.0.2.7", 443),
            ("x.wild.example", 80),
        ] {
            assert!(is_exempt(list, host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("notcorp.example", 80),
            ("example.org", 80),
            ("11.0.0.1", 80),
            ("[fe80::1]", 80),
            ("[::1]", 81),
            ("192.0.2.70", 80),
            ("example.com", 80),
        ] {
            assert!(!is_exempt(list, host, port), "{host}:{port}");
        }
        assert!(is_exempt("*", "anything", 1));
        assert!(is_exempt("0.0.0.0/0", "1.2.3.4", 1));
        assert!(!is_exempt("", "anything", 1));
    }

    #[test]
    fn the_way_depends_on_the_scheme() {
        let proxies = Proxies {
            http: Some("proxy.example:3128".into()),
            https: Some("http://user:pw@proxy.example:3129".into()),
            none: Some("direct.example".into()),
        };
        let route = |url: &str| Route::to(&url.parse().unwrap(), &proxies).unwrap();
        assert_eq!(
            route("http://a.example/"),
            Route::Forward("http://proxy.example:3128".into())
        );
        assert_eq!(
            route("https://a.example/"),
            Route::Tunnel("http://user:pw@proxy.example:3129".into())
        );
        assert_eq!(route("https://direct.example/"), Route::Direct);
        assert_eq!(
            Route::to(&"http://a/".parse().unwrap(), &Proxies::default()).unwrap(),
            Route::Direct
        );
        assert!(!format!("{proxies:?}").contains("pw"));
    }

    #[test]
    fn a_proxy_of_another_kind_is_refused_without_its_password() {
        let proxies = Proxies {
            http: Some("socks5://me:secret@proxy.example:1080".into()),
            ..Proxies::default()
        };
        let error = Route::to(&"http://a.example/".parse().unwrap(), &proxies).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`socks5://me:***@proxy.example:1080` is not a proxy: expected `http://host:port`"
        );
    }
}

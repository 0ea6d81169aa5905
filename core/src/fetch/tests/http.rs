use super::*;

/// Fetches `body`, pinned, from `url`; returns what arrived, or why it did not.
fn get(url: String, body: &[u8], settings: &Settings) -> (Result<(Digest, u64), Error>, Vec<u8>) {
    let mut out = Vec::new();
    let pin = pinned(Origin::At(Location::Url(url)), body);
    let result = fetch(&pin, Path::new("."), settings, &mut out, &());
    (result, out)
}

/// Fetches what is at `url`, pinned or not, and holds it against `body`.
fn assert_arrives(server: &Server, body: &[u8], is_pinned: bool) {
    let url = server.url("/file");
    let mut out = Vec::new();
    let result = if is_pinned {
        fetch(
            &pinned(Origin::At(Location::Url(url)), body),
            Path::new("."),
            &impatient(),
            &mut out,
            &(),
        )
    } else {
        pin_url(&url, &impatient(), &mut out, &())
    };
    assert_eq!(result.unwrap(), (Digest::of(body), body.len() as u64));
    assert!(out == body, "other bytes arrived");
}

#[test]
fn bytes_arrive_as_they_are() {
    let body = bytes(300_000);
    let server = Server::new({
        let body = body.clone();
        move |_, _| Answer::ok(body.clone()).with("Content-Encoding", "gzip")
    });
    let seen = Seen::default();
    let mut out = Vec::new();
    let got = pin_url(&server.url("/a/b.tar.gz?c"), &impatient(), &mut out, &seen).unwrap();
    assert_eq!(got, (Digest::of(&body), 300_000));
    assert!(out == body);
    assert_eq!(
        seen.lines(),
        ["started b.tar.gz Some(300000)", "finished b.tar.gz 300000"]
    );
    let asked = server.asked();
    assert_eq!(
        (asked.len(), asked[0].method.as_str(), asked[0].target.as_str()),
        (1, "GET", "/a/b.tar.gz?c")
    );
    assert_eq!(
        asked[0].header("user-agent"),
        Some(concat!("mk/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(
        (asked[0].header("range"), asked[0].header("accept-encoding")),
        (None, None)
    );
}

#[test]
fn host_names_are_looked_up() {
    let server = Server::new(|_, _| Answer::ok("here"));
    let url = server.url("/").replace("127.0.0.1", "localhost");
    let mut out = Vec::new();
    pin_url(&url, &impatient(), &mut out, &()).unwrap();
    assert_eq!(out, b"here");
}

#[test]
fn a_cut_transfer_goes_on_where_it_was() {
    let body = bytes(200_000);
    for (name, value) in [
        ("ETag", "\"v1\""),
        ("Last-Modified", "Sat, 14 Jun 2025 10:00:00 GMT"),
    ] {
        let server = Server::new({
            let body = body.clone();
            move |number, request| {
                let answer = Answer::part(&body, request).with(name, value);
                if number < 2 {
                    answer.cut_after(70_000)
                } else {
                    answer
                }
            }
        });
        assert_arrives(&server, &body, false);
        let asked = server.asked();
        let ranges: Vec<_> = asked.iter().map(|request| request.header("range")).collect();
        assert_eq!(ranges, [None, Some("bytes=70000-"), Some("bytes=140000-")]);
        assert_eq!(asked[1].header("if-range"), Some(value));
    }
}

#[test]
fn where_no_part_can_be_had_the_first_bytes_are_read_again() {
    let body = bytes(200_000);
    type Twist = fn(&[u8], &server::Request) -> Answer;
    let twists: [(&str, Twist); 4] = [
        ("ignores ranges", |body, _| {
            Answer::ok(body).with("ETag", "\"v1\"")
        }),
        ("refuses ranges", |body, request| match request.range_from() {
            Some(_) => Answer::status(416),
            None => Answer::ok(body).with("ETag", "\"v1\""),
        }),
        ("sends another part", |body, request| match request.range_from() {
            Some(_) => Answer {
                status: 206,
                ..Answer::ok(&body[5..])
            }
            .with("Content-Range", "bytes 5-199999/200000"),
            None => Answer::ok(body).with("ETag", "\"v1\""),
        }),
        ("has only a weak tag", |body, request| {
            Answer::part(body, request).with("ETag", "W/\"v1\"")
        }),
    ];
    for (name, twist) in twists {
        for is_pinned in [true, false] {
            let server = Server::new({
                let body = body.clone();
                move |number, request| {
                    let answer = twist(&body, request);
                    if number == 0 {
                        answer.cut_after(70_000)
                    } else {
                        answer
                    }
                }
            });
            assert_arrives(&server, &body, is_pinned);
            let ranged = server
                .asked()
                .iter()
                .any(|request| request.header("range").is_some());
            let has_validator = name != "has only a weak tag";
            assert_eq!(ranged, is_pinned || has_validator, "{name}, pinned: {is_pinned}");
        }
    }
}

#[test]
fn bytes_that_change_under_way_are_never_mixed() {
    let (old, new) = (bytes(200_000), [vec![0], bytes(199_999)].concat());
    let server = Server::new({
        let (old, new) = (old.clone(), new.clone());
        move |number, _| match number {
            0 => Answer::ok(old.clone()).with("ETag", "\"v1\"").cut_after(70_000),
            _ => Answer::ok(new.clone()).with("ETag", "\"v2\""),
        }
    });
    let error = pin_url(&server.url("/file"), &impatient(), &mut Vec::new(), &()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{}` changed while it was fetched", server.url("/file"))
    );

    // A server that takes no notice of `If-Range`: the digest tells.
    let server = Server::new({
        let (old, new) = (old.clone(), new);
        move |number, request| match number {
            0 => Answer::ok(old.clone()).cut_after(70_000),
            _ => Answer::part(&new, request),
        }
    });
    let (result, _) = get(server.url("/file"), &old, &impatient());
    assert!(matches!(result, Err(Error::WrongDigest { .. })), "{result:?}");
}

#[test]
fn a_body_without_a_length_is_whole_only_if_it_has_the_pinned_size() {
    let body = bytes(100_000);
    let server = Server::new({
        let body = body.clone();
        move |number, request| {
            let answer = Answer {
                no_length: true,
                ..Answer::part(&body, request)
            };
            if number == 0 {
                answer.cut_after(30_000)
            } else {
                answer
            }
        }
    });
    assert_arrives(&server, &body, true);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let server = Server::new(move |number, _| match number {
            0 => Answer::status(status).with("Retry-After", "86400"),
            _ => Answer::ok("at last"),
        });
        let seen = Seen::default();
        let mut out = Vec::new();
        pin_url(&server.url("/file"), &impatient(), &mut out, &seen).unwrap();
        assert_eq!(out, b"at last");
        assert!(
            seen.lines()[0].starts_with(&format!("retried: the server answered {status}")),
            "{:?}",
            seen.lines()
        );
    }
}

#[test]
fn tries_are_counted_and_then_given_up() {
    let server = Server::new(|_, _| Answer::status(503));
    let url = server.url("/file");
    let (result, _) = get(url.clone(), b"x", &impatient());
    assert_eq!(
        result.unwrap_err().to_string(),
        format!("cannot fetch `{url}` (4 tries): the server answered 503 Service Unavailable")
    );
    assert_eq!(server.asked().len(), 4);
    drop(server);
    let (result, _) = get(url, b"x", &impatient());
    assert!(
        matches!(result, Err(Error::Network { tries: 4, .. })),
        "{result:?}"
    );
}

#[test]
fn a_transfer_that_gets_on_is_not_given_up() {
    let body = bytes(7 * 1024 * 1024);
    let server = Server::new({
        let body = body.clone();
        move |_, request| {
            Answer::part(&body, request)
                .with("ETag", "\"v1\"")
                .cut_after(1024 * 1024 + 7)
        }
    });
    assert_arrives(&server, &body, true);
    assert_eq!(server.asked().len(), 7);
}

#[test]
fn a_refusal_is_not_asked_again() {
    for (status, reason) in [
        (404, " Not Found"),
        (403, " Forbidden"),
        (410, " Gone"),
        (401, " Unauthorized"),
    ] {
        let server = Server::new(move |_, _| Answer::status(status));
        let (result, out) = get(server.url("/file"), b"x", &impatient());
        assert_eq!(
            result.unwrap_err().to_string(),
            format!("`{}` answered {status}{reason}", server.url("/file"))
        );
        assert_eq!((server.asked().len(), out.len()), (1, 0));
    }
}

#[test]
fn other_bytes_than_the_pinned_are_an_error_that_names_both_digests() {
    let server = Server::new(|_, _| Answer::ok("other"));
    let (result, _) = get(server.url("/file"), b"right", &impatient());
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "`thing` from `{}` is not what was pinned: expected {}, got {}",
            server.url("/file"),
            Digest::of(b"right"),
            Digest::of(b"other")
        )
    );
}

#[test]
fn another_size_than_the_pinned_is_refused_before_a_byte_is_passed_on() {
    let server = Server::new(|_, _| Answer::ok("a page that asks to log in"));
    let (result, out) = get(server.url("/file"), b"right", &impatient());
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "`thing` from `{}` is not what was pinned: expected {}, got {}",
            server.url("/file"),
            Digest::of(b"right"),
            Digest::of(b"a page that asks to log in")
        )
    );
    assert_eq!(out, b"");
}

#[test]
fn where_only_the_pinned_size_is_wrong_the_sizes_are_told() {
    let server = Server::new(|_, _| Answer::ok("right"));
    let pin = Pinned {
        size: Some(4),
        ..pinned(Origin::At(Location::Url(server.url("/file"))), b"right")
    };
    let error = fetch(&pin, Path::new("."), &impatient(), &mut Vec::new(), &()).unwrap_err();
    let told = error.to_string();
    assert!(told.ends_with("expected 4 bytes, got 5"), "{told}");
}

#[test]
fn without_a_pinned_size_a_server_cannot_send_without_end() {
    let mut settings = impatient();
    settings.largest = 2 * CHUNK as u64;
    for no_length in [true, false] {
        let server = Server::new(move |_, _| Answer {
            no_length,
            ..Answer::ok(bytes(4 * CHUNK))
        });
        let mut out = Vec::new();
        let error = pin_url(&server.url("/file"), &settings, &mut out, &()).unwrap_err();
        assert!(
            matches!(&error, Error::TooLarge { name, most: 131_072, .. } if name == "file"),
            "{error}"
        );
        assert!(out.len() <= 2 * CHUNK && (no_length || out.is_empty()));
        let pin = Pinned {
            size: None,
            ..pinned(Origin::At(Location::Url(server.url("/file"))), b"right")
        };
        let error = fetch(&pin, Path::new("."), &settings, &mut Vec::new(), &()).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert_eq!(server.asked().len(), 2, "another try would get no less");
    }
}

#[test]
fn no_more_is_taken_than_was_pinned() {
    let server = Server::new(|_, _| Answer {
        no_length: true,
        ..Answer::ok(bytes(4 * CHUNK))
    });
    let (result, out) = get(server.url("/file"), b"right", &impatient());
    assert!(
        matches!(
            result,
            Err(Error::WrongSize {
                expected: 5,
                more: true,
                ..
            })
        ),
        "{result:?}"
    );
    assert_eq!(out, b"");
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let mut settings = impatient();
    settings.patience.read = Duration::from_millis(100);
    let server = Server::new(|number, _| {
        let pause = Duration::from_millis(if number == 0 { 1000 } else { 0 });
        Answer {
            pause,
            ..Answer::ok("awake")
        }
    });
    let (result, out) = get(server.url("/file"), b"awake", &settings);
    result.unwrap();
    assert_eq!((out.as_slice(), server.asked().len()), (b"awake".as_slice(), 2));
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let server = Server::new(|_, request| match request.target.as_str() {
        "/a/one" => Answer::status(302).with("Location", "two?x"),
        "/a/two?x" => Answer::status(308).with("Location", "/three"),
        "/three" => Answer::ok("there"),
        "/nowhere" => Answer::status(301),
        _ => Answer::status(307).with("Location", "/loop"),
    });
    let (result, out) = get(server.url("/a/one"), b"there", &impatient());
    result.unwrap();
    assert_eq!(out, b"there");
    assert_eq!(server.targets(), ["/a/one", "/a/two?x", "/three"]);
    let (result, _) = get(server.url("/loop"), b"x", &impatient());
    assert!(
        result
            .unwrap_err()
            .to_string()
            .ends_with("it redirects more than 10 times")
    );
    let (result, _) = get(server.url("/nowhere"), b"x", &impatient());
    assert!(
        result
            .unwrap_err()
            .to_string()
            .ends_with("it redirects to nowhere")
    );
}

#[test]
fn what_is_no_url_is_refused() {
    for url in [
        "http://",
        "http:///x",
        "http://a b/",
        "https://",
        "gopher://a/",
        "http://a/\u{7f}",
    ] {
        let result = pin_url(url, &impatient(), &mut Vec::new(), &());
        assert!(matches!(result, Err(Error::BadUrl { .. })), "{url}: {result:?}");
    }
}

#[test]
fn a_plain_request_goes_to_the_proxy_with_its_whole_url() {
    let proxy = Server::new(|_, _| Answer::ok("through"));
    let mut settings = impatient();
    settings.proxies.http = Some(format!("http://me:p%40ss@{}", proxy.authority()));
    for _ in 0..2 {
        let (result, out) = get(
            "http://no-such-host.invalid:81/x/y?z".into(),
            b"through",
            &settings,
        );
        result.unwrap();
        assert_eq!(out, b"through");
    }
    let asked = proxy.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].target, "http://no-such-host.invalid:81/x/y?z");
    assert_eq!(asked[1].header("host"), Some("no-such-host.invalid:81"));
    assert_eq!(asked[1].header("proxy-authorization"), Some("Basic bWU6cEBzcw=="));
}

#[test]
fn an_encrypted_request_asks_the_proxy_for_a_tunnel() {
    let proxy = Server::new(|_, _| Answer::status(403));
    let mut settings = impatient();
    settings.patience.tries = 1;
    settings.proxies.https = Some(format!("http://me:pass@{}", proxy.authority()));
    let (result, _) = get("https://no-such-host.invalid/x".into(), b"x", &settings);
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("the proxy opens no tunnel") && error.contains("403"),
        "{error}"
    );
    let asked = proxy.asked();
    assert_eq!(
        (asked[0].method.as_str(), asked[0].target.as_str()),
        ("CONNECT", "no-such-host.invalid:443")
    );
    assert_eq!(asked[0].header("proxy-authorization"), Some("Basic bWU6cGFzcw=="));
}

#[test]
fn hosts_outside_the_proxy_are_asked_themselves() {
    let proxy = Server::new(|_, _| Answer::status(500));
    let server = Server::new(|_, _| Answer::ok("direct"));
    let mut settings = impatient();
    settings.proxies.http = Some(proxy.url("/"));
    settings.proxies.none = Some("localhost,127.0.0.0/8".into());
    let (result, _) = get(server.url("/file"), b"direct", &settings);
    result.unwrap();
    assert_eq!((proxy.asked().len(), server.asked().len()), (0, 1));
}

#[test]
fn a_redirect_may_take_another_way() {
    let server = Server::new(|_, _| Answer::ok("direct"));
    let there = server.url("/file");
    let proxy = Server::new(move |_, _| Answer::status(302).with("Location", there.clone()));
    let mut settings = impatient();
    settings.proxies.http = Some(proxy.url("/"));
    settings.proxies.none = Some("127.0.0.1".into());
    let (result, _) = get("http://no-such-host.invalid/".into(), b"direct", &settings);
    result.unwrap();
    assert_eq!((proxy.asked().len(), server.asked().len()), (1, 1));
}

#[test]
fn offline_nobody_is_asked() {
    let server = Server::new(|_, _| Answer::ok("x"));
    let settings = Settings {
        offline: true,
        ..impatient()
    };
    let (result, _) = get(server.url("/file"), b"x", &settings);
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "`thing` is in no source folder, and `{}` may not be asked while offline (sha256 {})",
            server.url("/file"),
            Digest::of(b"x")
        )
    );
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn a_full_disk_is_not_the_networks_fault() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let server = Server::new(|_, _| Answer::ok("x"));
    let result = pin_url(&server.url("/file"), &impatient(), &mut Full, &());
    assert!(matches!(result, Err(Error::Write { .. })), "{result:?}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_server_that_does_not_encrypt_is_not_asked_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/file", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        io::copy(&mut stream, &mut io::sink()).unwrap_or_default()
    });
    let (result, out) = get(url, b"plain", &impatient());
    assert!(
        matches!(result, Err(Error::Network { tries: 1, .. })),
        "{result:?}"
    );
    assert_eq!(out, b"");
    server.join().unwrap();
}

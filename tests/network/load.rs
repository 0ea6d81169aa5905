//! Published ports with a thousand clients, fifty of them at once, and after mk was killed.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Stage;
use crate::harness::world::{HOST4, HOST6, OUTSIDE4, OUTSIDE6, Place, ask, get};

const CLIENTS: usize = 1000;
const AT_ONCE: usize = 50;

/// How long a client waits. None asks twice, so a datagram that is lost is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

const PUBLISHED: [&str; 6] = ["--network", "bridge", "-p", "8080:80", "-p", "8080:53/udp"];

#[test]
fn of_a_thousand_connections_to_a_published_port_none_is_lost() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&PUBLISHED, "");
    let web = run.place(&stage).web(80);
    for (place, address, sees) in ways(&stage) {
        let server = SocketAddr::new(address.parse().unwrap(), 8080);
        hammer(place, address, |_| {
            let body = get(server, PATIENCE)?;
            if sees.is_some_and(|sees| sees != body) {
                return Err(io::Error::other(format!("the server saw {body}")));
            }
            Ok(())
        });
    }
    assert_eq!(web.seen().len(), 4 * CLIENTS);
}

#[test]
fn of_a_thousand_datagrams_to_a_published_port_and_their_answers_none_is_lost() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&PUBLISHED, "");
    let echo = run.place(&stage).echo(53);
    for (place, address, sees) in ways(&stage) {
        let server = SocketAddr::new(address.parse().unwrap(), 8080);
        hammer(place, address, |number| {
            let said = ask(server, &number.to_string(), PATIENCE)?;
            let (seen, text) = said.split_once(' ').unwrap();
            if text != number.to_string() || sees.is_some_and(|sees| sees != seen) {
                return Err(io::Error::other(format!("the answer was {said:?}")));
            }
            Ok(())
        });
    }
    assert_eq!(echo.seen().len(), 4 * CLIENTS);
}

#[test]
fn after_mk_was_killed_its_ports_are_free_at_once() {
    let Some(stage) = Stage::new() else { return };
    for round in 0..20 {
        let run = stage.start(
            &PUBLISHED,
            &format!("mkdir /www; echo {round} >/www/index.html; httpd -h /www"),
        );
        for address in ["127.0.0.1", "::1"] {
            assert_eq!(stage.host().get(address, 8080).unwrap(), round.to_string());
        }
        // The next one does not wait.
        run.kill();
    }
}

#[test]
fn after_mk_was_killed_nobody_answers_and_others_may_have_its_ports() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&PUBLISHED, "");
    let place = run.place(&stage);
    let (_web, _echo) = (place.web(80), place.echo(53));
    stage.host().get("127.0.0.1", 8080).unwrap();
    stage.host().ask("127.0.0.1", 8080, "hello").unwrap();
    run.kill();
    crate::run::eventually("the ports to be free", || {
        let free = |address: &str| {
            std::net::TcpListener::bind((address, 8080)).is_ok()
                && std::net::UdpSocket::bind((address, 8080)).is_ok()
        };
        stage.host().enter(|| free("0.0.0.0") && free("::"))
    });
    let _other = stage.host().web(8080);
    assert_eq!(stage.world.outside.get(HOST4, 8080).unwrap(), OUTSIDE4);
    assert_eq!(stage.host().get("127.0.0.1", 8080).unwrap(), "127.0.0.1");
}

/// From where, to which address, and whom the server must see.
fn ways(stage: &Stage) -> [(&Place, &'static str, Option<&'static str>); 4] {
    let (host, outside) = (stage.host(), &stage.world.outside);
    [
        (host, "127.0.0.1", None),
        (host, "::1", None),
        (outside, HOST4, Some(OUTSIDE4)),
        (outside, HOST6, Some(OUTSIDE6)),
    ]
}

/// Lets a thousand clients do `work`, fifty at once, and fails where one fails.
#[track_caller]
fn hammer(place: &Place, what: &str, work: impl Fn(usize) -> io::Result<()> + Sync) {
    let next = AtomicUsize::new(0);
    let failures: Vec<io::Error> = std::thread::scope(|scope| {
        let clients = || {
            place.enter(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                let results = numbers.take_while(|&number| number < CLIENTS).map(&work);
                results.filter_map(Result::err).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(clients)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        failures.is_empty(),
        "{what}: {} of {CLIENTS} were lost: {failures:?}",
        failures.len()
    );
}

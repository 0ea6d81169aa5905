//! Many runs with a network, several at once: none gets what another has, and none leaves anything.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Addresses, Stage};

const RUNS: usize = 200;
const AT_ONCE: usize = 20;

#[test]
fn of_two_hundred_runs_no_two_have_an_address_at_one_time_and_none_leaves_anything() {
    let Some(stage) = Stage::new() else { return };
    stage.says(&["--network", "bridge"], "true");
    let before = stage.traces();
    let held = Mutex::new(Vec::<(Addresses, String)>::new());
    at_once(|number| {
        let run = stage.start(&["--network", "bridge"], "cat /sys/class/net/eth0/address");
        let mine = (Addresses::of(&run.place(&stage), "eth0"), run.said[0].clone());
        {
            let mut held = held.lock().unwrap();
            let taken = held.iter().find(|(addresses, mac)| {
                addresses.v4 == mine.0.v4 || addresses.v6 == mine.0.v6 || *mac == mine.1
            });
            assert!(
                taken.is_none(),
                "run {number} has {mine:?}, and another {taken:?}"
            );
            held.push(mine.clone());
        }
        // The host finds this one there, and not one before it at the same address.
        assert!(
            stage.answers(stage.host(), &mine.0.v4.to_string()),
            "run {number}: {mine:?}"
        );
        held.lock().unwrap().retain(|other| *other != mine);
        run.finish();
    });
    stage.is_again(&before);
}

#[test]
fn runs_at_once_take_about_as_long_with_a_network_as_without() {
    let Some(stage) = Stage::new() else { return };
    stage.says(&["--network", "bridge"], "true");
    let before = stage.traces();
    let time = |network: &str| {
        let times = Mutex::new(Vec::new());
        at_once(|_| {
            let begin = Instant::now();
            assert_eq!(stage.says(&["--network", network], "echo ran"), "ran");
            times.lock().unwrap().push(begin.elapsed());
        });
        let mut times = times.into_inner().unwrap();
        times.sort();
        times[times.len() / 2]
    };
    let (none, bridge): (Duration, Duration) = (time("none"), time("bridge"));
    let _ = writeln!(
        std::io::stderr(),
        "{RUNS} runs, {AT_ONCE} at once: {bridge:.1?} with a bridge and {none:.1?} without (medians), a ratio of {:.2}",
        bridge.as_secs_f64() / none.as_secs_f64()
    );
    stage.is_again(&before);
}

/// Does `work` two hundred times, twenty at once.
fn at_once(work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                numbers.take_while(|&number| number < RUNS).for_each(&work);
            });
        }
    });
}

//! [`World`]: two network namespaces of a test's own. One is the `host`, with a loopback and an uplink, and mk runs in it;
//! the other is the `outside` that the uplink leads to. Nothing in either reaches this machine's own network, and both
//! are gone with the last process and handle in them.
//!
//! Each [`Place`] has a mount namespace, too, because `/sys` shows the network namespace that it was mounted in. There
//! `/run` is empty, and what is written below `/etc` is seen nowhere else. (`/proc/net` and `/proc/sys/net` need no mount:
//! they show the namespace of whoever looks.)

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use fs_err::File;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::needs;

/// The host's address on the uplink.
pub(crate) const HOST4: &str = "192.0.2.1";
/// The same in IPv6.
pub(crate) const HOST6: &str = "2001:db8::1";
/// The address of the outside, which is where the host's default routes lead.
pub(crate) const OUTSIDE4: &str = "192.0.2.2";
/// The same in IPv6.
pub(crate) const OUTSIDE6: &str = "2001:db8::2";
/// The host's end of the uplink.
pub(crate) const UPLINK: &str = "uplink";

/// How long a client of this file waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host, and what is outside of it.
#[derive(Debug)]
pub(crate) struct World {
    /// Where mk runs.
    pub(crate) host: Place,
    /// Who else there is on the network that the host is on.
    pub(crate) outside: Place,
}

/// A network namespace, with a mount namespace whose `/sys` shows it.
#[derive(Debug)]
pub(crate) struct Place {
    net: File,
    mounts: File,
}

impl World {
    /// Makes both namespaces and the link between them, or says what is missing for that.
    pub(crate) fn new() -> Option<Self> {
        if !needs::root() {
            return None;
        }
        needs::program("ip")?;
        let world = Self {
            host: Place::new(),
            outside: Place::new(),
        };
        // Addresses without duplicate detection: they can be used at once, and look the same a second later. Numbers
        // that differ: the kernel takes its time to tell of the carrier of a link that has the number of its peer.
        let link = format!(
            "ip link set lo up
             ip link add {UPLINK} index 20 type veth peer name outside netns /proc/{}/fd/{}
             echo 0 >/proc/sys/net/ipv6/conf/{UPLINK}/accept_dad
             ip address add {HOST4}/24 dev {UPLINK}
             ip address add {HOST6}/64 dev {UPLINK}
             ip link set {UPLINK} up",
            std::process::id(),
            world.outside.net.as_raw_fd(),
        );
        let answer = format!(
            "ip link set lo up
             echo 0 >/proc/sys/net/ipv6/conf/outside/accept_dad
             ip address add {OUTSIDE4}/24 dev outside
             ip address add {OUTSIDE6}/64 dev outside
             ip link set outside up"
        );
        world.host.sh(&link);
        world.outside.sh(&answer);
        for (place, link) in [(&world.host, UPLINK), (&world.outside, "outside")] {
            place.sh(&format!(
                "until grep -qx up /sys/class/net/{link}/operstate; do sleep 0.01; done"
            ));
        }
        // Only now, because a route through a link without a carrier is marked as dead for a moment.
        let routes = format!(
            "ip route add default via {OUTSIDE4}
             ip -6 route add default via {OUTSIDE6}"
        );
        world.host.sh(&routes);
        Some(world)
    }
}

impl Place {
    fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
            mount(
                Some("tmpfs"),
                "/run",
                Some("tmpfs"),
                MsFlags::empty(),
                Some("mode=0755"),
            )
            .unwrap();
            let (upper, work, cgroups) = ("/run/.etc", "/run/.work", "/run/.cgroup");
            for folder in [upper, work, cgroups] {
                fs_err::create_dir(folder).unwrap();
            }
            let bind =
                |from, to| mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
            bind("/sys/fs/cgroup", cgroups);
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
            bind(cgroups, "/sys/fs/cgroup");
            let layers = format!("lowerdir=/etc,upperdir={upper},workdir={work}");
            mount(
                Some("overlay"),
                "/etc",
                Some("overlay"),
                MsFlags::empty(),
                Some(layers.as_str()),
            )
            .unwrap();
            Self::of("/proc/thread-self")
        });
        made.join().unwrap()
    }

    /// Returns the place of a process, which `/proc/PID` says.
    fn of(process: &str) -> Self {
        let open = |kind: &str| File::open(format!("{process}/ns/{kind}")).unwrap();
        Self {
            net: open("net"),
            mounts: open("mnt"),
        }
    }

    /// Returns the network of the process `pid` together with the files of this place.
    pub(crate) fn network_of(&self, pid: u32) -> Self {
        Self {
            net: File::open(format!("/proc/{pid}/ns/net")).unwrap(),
            mounts: self.mounts.try_clone().unwrap(),
        }
    }

    /// Does `work` here; what it starts stays here.
    ///
    /// That is a thread of its own, so what is started must not ask to die with its parent.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join();
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread here.
    fn join(&self) {
        // A thread that shares its root and working folder with others may not change mount namespaces (setns(2)).
        unshare(CloneFlags::CLONE_FS).unwrap();
        setns(&self.net, CloneFlags::CLONE_NEWNET).unwrap();
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).unwrap();
    }

    /// Calls a shell with `script`, each command of which must succeed, and returns what it prints.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        assert!(output.status.success(), "{script}\n{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Calls a shell with `script`, which ends with the first command that fails.
    pub(crate) fn try_sh(&self, script: &str) -> std::process::Output {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-ec", script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        self.enter(|| shell.output().unwrap())
    }

    /// Starts a web server on all addresses of this place; it answers each request with the address of who asks.
    pub(crate) fn web(&self, port: u16) -> Service {
        self.web_on("::", port)
    }

    /// Starts such a web server on one address.
    pub(crate) fn web_on(&self, address: &str, port: u16) -> Service {
        let listener = self.enter(|| TcpListener::bind((address, port)).unwrap());
        let service = Service::default();
        let (ended, seen) = (Arc::clone(&service.ended), Arc::clone(&service.seen));
        listener.set_nonblocking(true).unwrap();
        service.run(move || {
            while !ended.load(Ordering::SeqCst) {
                let Ok((stream, peer)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let peer = peer.ip().to_canonical();
                seen.lock().unwrap().push(peer);
                // A client that hangs up is no failure of the server's.
                std::thread::spawn(move || drop(answer(stream, peer)));
            }
        })
    }

    /// Starts a UDP server on all addresses of this place; it answers each datagram with the address of who asks, a
    /// space, and what was in it.
    pub(crate) fn echo(&self, port: u16) -> Service {
        let socket = self.enter(|| UdpSocket::bind(("::", port)).unwrap());
        let service = Service::default();
        let (ended, seen) = (Arc::clone(&service.ended), Arc::clone(&service.seen));
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        service.run(move || {
            let mut bytes = [0; 1500];
            while !ended.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else {
                    continue;
                };
                let peer = from.ip().to_canonical();
                seen.lock().unwrap().push(peer);
                let said = [format!("{peer} ").as_bytes(), &bytes[..length]].concat();
                drop(socket.send_to(&said, from));
            }
        })
    }

    /// Fetches `/` from a web server, and returns the body.
    pub(crate) fn get(&self, address: &str, port: u16) -> io::Result<String> {
        self.enter(|| get(SocketAddr::new(address.parse().unwrap(), port), PATIENCE))
    }

    /// Sends a datagram, and returns the answer.
    pub(crate) fn ask(&self, address: &str, port: u16, text: &str) -> io::Result<String> {
        self.enter(|| ask(SocketAddr::new(address.parse().unwrap(), port), text, PATIENCE))
    }
}

/// A server in a thread; it ends when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Service {
    seen: Arc<Mutex<Vec<IpAddr>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn run(mut self, work: impl FnOnce() + Send + 'static) -> Self {
        self.thread = Some(std::thread::spawn(work));
        self
    }

    /// Returns the addresses that asked so far; IPv4 ones as such.
    pub(crate) fn seen(&self) -> Vec<IpAddr> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let asked = lines.find(String::is_empty);
    drop(lines);
    if asked.is_some() {
        let body = format!("{peer}\n");
        let length = body.len();
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
    }
    Ok(())
}

/// Fetches `/` from a web server in the network of the calling thread, and returns the body.
pub(crate) fn get(server: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: box\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    match said.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.trim_end().to_owned()),
        _ => Err(io::Error::other(format!("no answer to be used: {said:?}"))),
    }
}

/// Sends a datagram from the network of the calling thread, and returns the answer, which must come from where it went.
pub(crate) fn ask(server: SocketAddr, text: &str, patience: Duration) -> io::Result<String> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(server)?;
    socket.send(text.as_bytes())?;
    let mut bytes = [0; 1500];
    let length = socket.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

//! `mk run`: a command in an image.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use mk_core::container::document::{ImageWord, Known};
use mk_core::container::monitor::{self, Detached, Outcome, Start};
use mk_core::container::{Own, State, check_name, log};
use mk_core::enter::{self, Partner};
use mk_core::net;
use mk_core::net::private::Home;
use mk_core::net::publish::{self, Published};
use mk_core::process;
use mk_core::process::exit::Step;
use mk_core::recipe::{self, Network};
use mk_core::rootfs::Rootfs;
use mk_core::spec::network as on_network;
use mk_core::spec::network::{Protocol, Publish};
use mk_core::spec::streams::Streams;
use mk_core::spec::ulimit::Lowered;
use mk_core::spec::{self, Asked, Extra, RunSpec, Userns};
use mk_core::store::{self, Image, ImageId, Lease, Store};

use super::{Context, Users, build, find};
use crate::args::{self, UsernsArg};
use crate::report::{Failing, Failure};
use crate::settings::{Flags, Settings};
use crate::ui;
use crate::value::{Pair, blank_in_name};

/// The exit code of a command that SIGSYS ended (signal(7)).
const NO_SUCH_CALL: u8 = 128 + 31;

/// Runs the command and returns the exit code that tells how it ended.
pub(super) fn call(args: args::Run, context: &Context) -> Result<u8, Failure> {
    let flags = Flags {
        store: args.store.store.as_deref(),
        durability: args.durability.durability,
        ..Flags::default()
    };
    let settings = context.settings(&flags)?;
    let (word, dry_run) = (args.image.clone(), args.dry_run);
    let life = Life::of(&args.life)?;
    let mut asked = asked(args, context)?;
    if let Some(kind) = &asked.network {
        asked.on_network.check(kind).map_err(spec::Error::from)?;
    }
    let partner = partner(&asked, &settings, context)?;
    let (store, home) = context.store_among(&settings, || match &partner {
        Some(partner) => Ok(Users::Partner(partner)),
        None => users(&word, &asked, dry_run, &settings),
    })?;
    // Before an image is built for it.
    let state = life
        .as_ref()
        .map(|_| State::open_or_make(&settings.state))
        .transpose()?;
    let (id, _lease) = image_of(&word, &settings, &store, context)?;
    let (mut rootfs, image) = laid_out(&word, id, &settings, &store, context)?;
    let shell = asked.command.is_empty() && image.run.command.is_empty();
    if asked.privileges.nesting.unwrap_or(image.run.nesting) {
        asked.in_user_namespace = enter::in_user_namespace().map_err(failed)?;
    }
    let spec = RunSpec::new(&image.run, &image.conf, asked)?;
    attach_images(&mut rootfs, &spec, &settings, &store, context)?;
    rootfs
        .attach_volumes(&store, &spec.mounts)
        .map_err(|error| failed(error.into()))?;
    let mut plan = enter::plan(&rootfs, &spec, partner).map_err(failed)?;
    plan.go_to_network(&spec, &settings.state, home, !dry_run)
        .map_err(failed)?;
    let names = life.as_ref().and_then(|life| life.name.clone());
    plan.decide_network(&spec, &settings.state, names.into_iter().collect())
        .map_err(failed)?;
    if plan.asks_nobody {
        context.ui.note(
            "the host's name servers are on its own loopback, where containers do not reach them: `--dns ADDRESS` names \
             others",
        );
    }
    for lowered in &plan.rlimits.lowered {
        context.ui.note(too_high(lowered));
    }
    if dry_run {
        ui::data(plan.to_string().trim_end())?;
        return Ok(0);
    }
    let filtered = plan.grant.granted.filter.is_some();
    enter::furnish(&mut rootfs, &store, (&id, &image), &spec).map_err(failed)?;
    plan.take_ids().map_err(failed)?;
    if plan.forwards_all() {
        context.ui.note(
            "IPv6 packets are now passed on between all interfaces of the host, because its kernel cannot do so for \
             some (Linux 6.17 can); `mk network rm` puts that back",
        );
    }
    plan.take_network()
        .map_err(|error| not_on_network(error, &settings))?;
    for chosen in chosen(&spec.network.asked.publish, plan.published()) {
        context.ui.note(format_args!(
            "port {} of the host leads to port {}/{} of the container",
            chosen.host, chosen.inside, chosen.protocol
        ));
    }
    let ended = match (life, state) {
        (Some(life), Some(state)) => {
            let image = ImageWord {
                word: word.into(),
                digest: id.to_string(),
            };
            let start = enter::prepare(rootfs, &spec, plan).map_err(failed)?;
            let (own, gone) = start.announce(&state, &spec, life.known(image))?;
            context.tell_of(&gone);
            if let Some(log_size) = life.log_size {
                let outcome = detached(own, log_size, start).map_err(|error| told(error, shell))?;
                return match outcome {
                    Outcome::Runs(id) => ui::data(id).map(|()| 0),
                    Outcome::Failed(code) => Ok(code),
                };
            }
            enter::attend(own, &spec, start)
        }
        _ => enter::carry_out(rootfs, &spec, plan),
    };
    match ended {
        Ok(ended) => {
            if let Some(limit) = ended.out_of_memory {
                context.ui.note(format_args!(
                    "the container ran out of memory: `--memory {limit}` was reached"
                ));
            }
            if ended.exit_code() == NO_SUCH_CALL && filtered {
                context.ui.note(
                    "exit code 159 is that of a system call which the seccomp filter ends a program for, such as any of \
                     a 32-bit program: `--seccomp unconfined` allows all",
                );
            }
            Ok(ended.exit_code())
        }
        Err(error) => Err(told(error, shell)),
    }
}

/// Returns the container whose network the run is to share, where it is; no image asks for that.
fn partner(asked: &Asked, settings: &Settings, context: &Context) -> Result<Option<Partner>, Failure> {
    let Some(Network::Container(word)) = &asked.network else {
        return Ok(None);
    };
    let mut seen = context.look(State::open(&settings.state)?.as_ref())?;
    let partner = Partner::of(&seen.take(word)?).map_err(|error| failed(error.into()))?;
    Ok(Some(partner))
}

/// Returns whose user namespace the run is in, where it needs one: that of its private network, if it will be on one.
/// That has to be known before there is a namespace: nobody gets from one into another beside it.
fn users<'u>(
    word: &OsString,
    asked: &Asked,
    dry_run: bool,
    settings: &Settings,
) -> Result<Users<'u>, Failure> {
    let network = match &asked.network {
        Some(network) => Some(network.clone()),
        None => usual_network(word, settings),
    };
    match network {
        Some(Network::Private(name)) => {
            let home = Home::open(&settings.state, &name, !dry_run)?;
            Ok(home.map_or(Users::Own, Users::Home))
        }
        _ => Ok(Users::Own),
    }
}

/// Returns the network that the image or the recipe `word` asks for, as far as that can be told without a store of one's
/// own to open; what is wrong with it shows later.
fn usual_network(word: &OsString, settings: &Settings) -> Option<Network> {
    let text = word.to_string_lossy();
    let recipe = match find::is_path(Path::new(word)) {
        true => find::Recipe::find(Path::new(word)).ok(),
        false => {
            let owners = Store::owners_at(&settings.store).ok()?;
            let store = owners.and_then(|owners| Store::open_existing(&settings.store, owners).ok());
            let image = store.and_then(|store| store.image(&store.resolve(&text).ok()?).ok());
            if let Some(image) = image {
                return image.run.network;
            }
            find::Recipe::known(&text)
        }
    };
    let recipe = recipe::parse::parse(&recipe?.read().ok()?.recipe, &BTreeMap::new()).ok()?;
    recipe.run.network
}

/// Returns what is told of a run that failed; `shell` says that nobody named its command.
fn told(error: enter::Error, shell: bool) -> Failure {
    match shell {
        true => without_shell(error),
        false => failed(error),
    }
}

/// Has the container looked after by a process of its own. Comes back twice: in the mk that was called, and much later
/// in the monitor, which has nobody left to talk to. What fails before the command runs the monitor returns, and so
/// tells it; the mk that was called ends with its code.
fn detached(own: Own, log_size: u64, start: Start) -> Result<Outcome, enter::Error> {
    Ok(match monitor::detach(own, log_size)? {
        Detached::Front(front) => front.wait()?,
        Detached::Monitor(monitor) => {
            monitor.run(start)?;
            Outcome::Failed(0)
        }
    })
}

/// How others are to know of the container.
struct Life {
    name: Option<String>,
    /// What the log holds, where a monitor looks after the container.
    log_size: Option<u64>,
    keep: bool,
}

impl Life {
    /// Returns what was asked for; nothing for a container that only this process knows of.
    fn of(args: &args::LifeArgs) -> Result<Option<Self>, Failure> {
        if let Some(name) = &args.name {
            check_name(name)?;
        }
        let known = args.detach || args.name.is_some();
        Ok(known.then(|| Self {
            name: args.name.clone(),
            log_size: args.detach.then(|| args.log_size.unwrap_or(log::USUAL)),
            keep: args.detach && !args.rm,
        }))
    }

    fn known(&self, image: ImageWord) -> Known {
        Known {
            name: self.name.clone(),
            image,
            detached: self.log_size.is_some(),
            keep: self.keep,
        }
    }
}

/// Returns the ports that mk has chosen.
fn chosen<'a>(asked: &[Publish], published: &'a [Published]) -> impl Iterator<Item = &'a Published> {
    let named = |one: &Published| {
        let is_it = |asked: &Publish| asked.host == Some(one.host) && asked.protocol == one.protocol;
        asked.iter().any(is_it)
    };
    published.iter().filter(move |one| !named(one))
}

/// An error of the network; who has a taken port is told by the name that its owner knows it by.
fn not_on_network(error: enter::Error, settings: &Settings) -> Failure {
    let holder = match &error {
        enter::Error::Network(net::Error::Publish(publish::Error::Taken { port, protocol, .. })) => {
            container_at(settings, *protocol, *port)
        }
        _ => None,
    };
    let Some(called) = holder else {
        return failed(error);
    };
    let code = error.exit_code();
    let failing = Failing::new(error.to_string()).hint(format!(
        "the container `{called}` has it: `mk stop {called}` ends that"
    ));
    Failure::Coded(code, Box::new(failing))
}

/// Returns what the container is called that a port of the host leads to, if it is one of mk's.
fn container_at(settings: &Settings, protocol: Protocol, port: u16) -> Option<String> {
    let seen = State::open(&settings.state).ok()??.look().ok()?;
    let mut alive = seen.containers.into_iter().filter(|found| found.is_alive());
    let found = alive.find(|found| found.document.ports.iter().any(|one| one.has(protocol, port)))?;
    Some(found.document.called().to_owned())
}

/// What there is of a `--ulimit` whose hard limit cannot be raised so far.
fn too_high(lowered: &Lowered) -> String {
    let Lowered { asked, set } = lowered;
    format!("`--ulimit {asked}` is more than mk may give: the command runs with {set}")
}

/// An error of a run whose command nobody named.
fn without_shell(error: enter::Error) -> Failure {
    match &error {
        enter::Error::Process(process::Error::Step(failed))
            if matches!(failed.step, Step::Exec | Step::Interpreter) =>
        {
            let code = error.exit_code();
            let failing = Failing::new("the image names no command, so `/bin/sh` was tried")
                .because(error)
                .hint("name a program of the image: `mk run IMAGE COMMAND`; `mk inspect --tree IMAGE` lists its files");
            Failure::Coded(code, Box::new(failing))
        }
        _ => failed(error),
    }
}

/// Returns the folders of an image. Where some are gone (`mk verify --discard` took them) and the recipe is known, the
/// image is built again, like one that never was.
fn laid_out(
    word: &OsString,
    id: ImageId,
    settings: &Settings,
    store: &Store,
    context: &Context,
) -> Result<(Rootfs, Image), Failure> {
    match Rootfs::of(store, &id) {
        Ok(found) => Ok(found),
        Err(store::Error::NotLaidOut(_) | store::Error::Missing(_)) => {
            let word = word.to_string_lossy();
            let Some(recipe) = find::Recipe::known(&word) else {
                return Err(
                    Failing::new(format!("parts of image `{word}` are no longer in the store"))
                        .hint("`mk build` its recipe makes them again")
                        .into(),
                );
            };
            let (id, _lease) = build::on_the_way(&recipe, settings, store, context)?;
            Ok(Rootfs::of(store, &id)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Looks up the images that the run shows besides its own, and builds those that are known as recipes only.
fn attach_images(
    rootfs: &mut Rootfs,
    spec: &RunSpec,
    settings: &Settings,
    store: &Store,
    context: &Context,
) -> Result<(), Failure> {
    for extra in &spec.mounts {
        if let Extra::Image(shown) = extra {
            let word = OsString::from(&shown.image);
            let (id, _lease) = image_of(&word, settings, store, context)?;
            let (image, _) = laid_out(&word, id, settings, store, context)?;
            rootfs.attach_image(&shown.image, image);
        }
    }
    Ok(())
}

/// An error of a run brings its own exit code: 126 and 127 tell of the command, 125 of mk.
fn failed(error: enter::Error) -> Failure {
    Failure::Coded(error.exit_code(), Box::new(error))
}

/// Returns the image that `word` names, built on the way where only a recipe is known: then with a lease, for nobody but
/// this run may want it.
fn image_of(
    word: &OsString,
    settings: &Settings,
    store: &Store,
    context: &Context,
) -> Result<(ImageId, Option<Lease>), Failure> {
    let built = |recipe: &find::Recipe| {
        build::on_the_way(recipe, settings, store, context).map(|(image, lease)| (image, Some(lease)))
    };
    if find::is_path(Path::new(word)) {
        let recipe = find::Recipe::find(Path::new(word))?;
        return built(&recipe);
    }
    let word = word.to_string_lossy();
    match store.resolve(&word) {
        Ok(image) => Ok((image, None)),
        Err(store::Error::NoImage(_)) => match find::Recipe::known(&word) {
            Some(recipe) => built(&recipe),
            None => find::image(Some(store), &word).map(|(_, image)| (image, None)),
        },
        Err(error) => Err(error.into()),
    }
}

fn asked(args: args::Run, context: &Context) -> Result<Asked, Failure> {
    let args::Run {
        command,
        files,
        process: of_process,
        terminal,
        life,
        namespaces,
        network,
        limits,
        privileges,
        ..
    } = args;
    let volumes = files.volumes.into_iter().map(Extra::Volume).chain(files.mount);
    let wanted = terminal.wanted(life.detach);
    Ok(Asked {
        command,
        env: environment(of_process.env, &of_process.env_files)?,
        streams: Streams::decide(wanted, process::streams::look()),
        term: context.environment.text("TERM").map(OsString::from),
        hostname: namespaces.hostname,
        workdir: of_process.workdir.map(OsString::from),
        user: of_process.user,
        same_addresses: false,
        later_pids: false,
        input: None,
        network: network.network.clone(),
        on_network: on_network::Asked {
            helpers: context.environment.text("PATH").unwrap_or_default().into(),
            ..network.into()
        },
        read_only: files.read_only,
        as_pid1: namespaces.as_pid1,
        mounts: volumes.chain(files.tmpfs.into_iter().map(Extra::Tmpfs)).collect(),
        scratch: files.scratch.unwrap_or_default(),
        userns: namespaces.userns.map(|asked| match asked {
            UsernsArg::Host => Userns::Host,
            UsernsArg::Auto => Userns::Auto,
        }),
        in_user_namespace: false,
        stop_timeout: life.stop_timeout,
        limits: limits.into(),
        privileges: privileges.into(),
    })
}

/// Returns what `-e` and `--env-file` say, in the order in which it counts.
pub(super) fn environment(pairs: Vec<Pair>, files: &[PathBuf]) -> Result<Vec<OsString>, Failure> {
    let mut env = Vec::new();
    for file in files {
        env.extend(env_file(file)?);
    }
    // After the files: what is said on the command line is the last word.
    env.extend(
        pairs
            .into_iter()
            .map(|pair| OsString::from(format!("{}={}", pair.name, pair.value))),
    );
    Ok(env)
}

/// Reads `NAME=VALUE` lines. Empty lines and those that begin with `#` are passed over; nothing is unquoted.
fn env_file(path: &Path) -> Result<Vec<OsString>, Failure> {
    let bytes = fs_err::read(path)?;
    let mut entries = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        if line
            .iter()
            .position(|&byte| byte == b'=')
            .is_none_or(|at| at == 0)
        {
            let what = format!(
                "`{}`, line {}: `{}` is not NAME=VALUE",
                path.display(),
                number + 1,
                mk_core::path::shown(line)
            );
            return Err(Failing::new(what)
                .hint("a name alone passes nothing on: write its value too")
                .into());
        }
        let name = line.split(|&byte| byte == b'=').next().unwrap_or_default();
        if let Some(why) = blank_in_name(&String::from_utf8_lossy(name)) {
            let place = format!("`{}`, line {}", path.display(), number + 1);
            return Err(Failing::new(format!("{place}: {why}")).into());
        }
        entries.push(OsString::from_vec(line.to_vec()));
    }
    Ok(entries)
}

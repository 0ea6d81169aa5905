//! The table: subcommand → function. Each file here turns its arguments into calls of core and prints the result.

mod build;
mod compare;
mod completions;
mod containers;
mod diff;
mod doctor;
mod du;
mod exec;
mod export;
mod family;
pub(crate) mod find;
mod images;
mod inspect;
mod logs;
mod network;
mod plan;
mod ps;
mod repair;
mod rm;
mod run;
mod stop;
mod stored;
mod top;
mod volumes;

use std::os::fd::AsFd;
use std::path::Path;

use mk_core::enter::{self, Partner};
use mk_core::net::private::Home;
use mk_core::process::idmap::{self, Caller, IdMap, Ids};
use mk_core::store::{self, Owners, Store};

use crate::args::{Command, ProgressMode, StoreArgs, TalkArgs};
use crate::progress::Progress;
use crate::report::{Failing, Failure};
use crate::settings::{Environment, Flags, Settings};
use crate::ui::{self, Ui};

/// Whose user namespace a process goes to that has to become root.
enum Users<'u> {
    /// Its own.
    Own,
    /// That of a container whose network it shares.
    Partner(&'u Partner),
    /// That of a private network.
    Home(Home),
}

/// What every command is given besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) environment: Environment,
}

impl Context {
    /// Returns what holds for this call, given its flags.
    fn settings(&self, flags: &Flags<'_>) -> Result<Settings, Failure> {
        Ok(Settings::read(
            &self.environment,
            flags,
            rustix::process::geteuid().is_root(),
        )?)
    }

    /// Opens the store if there is one, as whoever calls mk: to look, and to change what belongs to them. Needs no
    /// namespace, so it works where those are forbidden.
    fn existing_store(&self, args: &StoreArgs) -> Result<Option<Store>, Failure> {
        let flags = Flags {
            store: args.store.as_deref(),
            ..Flags::default()
        };
        let settings = self.settings(&flags)?;
        let path = settings.store;
        match owners_at(&path)? {
            Some(owners) => Ok(Some(
                Store::open_existing(&path, owners)
                    .map_err(|error| no_store(&path, error))?
                    .with_durability(settings.durability),
            )),
            None => Ok(None),
        }
    }

    /// Opens the store if there is one, as root of it: everything in it can be read and removed.
    fn whole_store(&self, settings: &Settings) -> Result<Option<Store>, Failure> {
        match owners_at(&settings.store)? {
            Some(_) => Ok(Some(self.store(settings)?)),
            None => Ok(None),
        }
    }

    /// Opens the store as root of the user namespace that this process is in already.
    fn store_as_root(&self, settings: &Settings) -> Result<Store, Failure> {
        Store::open_with(&settings.store, own_owners(), settings.durability)
            .map_err(|error| no_store(&settings.store, error))
    }

    /// Becomes root and opens the store, which is made where there is none.
    fn store(&self, settings: &Settings) -> Result<Store, Failure> {
        Ok(self.store_among(settings, || Ok(Users::Own))?.0)
    }

    /// Becomes root like [`Self::store`]; where that takes a user namespace, in the one that `users` says.
    fn store_among<'u>(
        &self,
        settings: &Settings,
        users: impl FnOnce() -> Result<Users<'u>, Failure>,
    ) -> Result<(Store, Option<Home>), Failure> {
        let (owners, home) = become_root(&settings.store, users)?;
        let store = Store::open_with(&settings.store, owners, settings.durability);
        Ok((store.map_err(|error| no_store(&settings.store, error))?, home))
    }

    /// Returns a watcher that says little: for commands that may have to wait, but not for long.
    fn talk(&self) -> Progress {
        Progress::new(
            self.ui,
            TalkArgs {
                progress: ProgressMode::Plain,
                quiet: false,
            },
        )
    }
}

/// Returns how the store at `path` keeps owners, `None` where there is no store yet.
fn owners_at(path: &Path) -> Result<Option<Owners>, Failure> {
    let owners = Store::owners_at(path).map_err(|error| no_store(path, error))?;
    if owners.is_some() {
        return Ok(owners);
    }
    match Store::foreign_in(path).map_err(|error| no_store(path, error))? {
        Some(found) => Err(store::Error::NotAStore {
            path: path.to_owned(),
            found,
        }
        .into()),
        None => {
            Store::sweep_unmade(path);
            Ok(None)
        }
    }
}

/// Says of a failed call which store it was about; other errors of the store say so themselves.
fn no_store(path: &Path, error: store::Error) -> Failure {
    match error {
        store::Error::Sys(_) | store::Error::Io(_) => {
            Failing::new(format!("cannot open the store `{}`", path.display()))
                .because(error)
                .into()
        }
        error => error.into(),
    }
}

/// Makes this process root of a user namespace in which the store at `path` can be used; called once, before there is
/// a second thread. Returns how files can be given to owners then. Who has to become root for that does so where `users`
/// says, because a network belongs to a user namespace; who has gone to a home is a member there from then on.
fn become_root<'u>(
    path: &Path,
    users: impl FnOnce() -> Result<Users<'u>, Failure>,
) -> Result<(Owners, Option<Home>), Failure> {
    let mut map = idmap::decide(&Caller::look()?);
    let users = match map {
        IdMap::Native => Users::Own,
        _ => users()?,
    };
    if let (IdMap::Subordinate { uid, gid, .. }, Some(Owners::Single)) = (&map, owners_at(path)?) {
        map = IdMap::Single { uid: *uid, gid: *gid };
    }
    let (joined, home) = match users {
        Users::Own => {
            idmap::become_root(&map)?;
            (false, None)
        }
        Users::Partner(partner) => {
            partner.join_users().map_err(enter::Error::from)?;
            (true, None)
        }
        Users::Home(mut home) => (settle(&mut home, &map)?, Some(home)),
    };
    let owners = match map {
        // Its ids are those of whoever made it.
        _ if joined && owners_at(path)? != Some(Owners::Single) => own_owners(),
        // Root of somebody's container is root already, and yet has only the ids that it was given.
        IdMap::Native => own_owners(),
        IdMap::Subordinate { .. } => Owners::Subordinate,
        IdMap::Single { .. } => Owners::Single,
    };
    Ok((owners, home))
}

/// Makes this process root of the user namespace of `home`, and a member there. Returns whether that was there already;
/// where it was not, it is made as `map` says.
fn settle(home: &mut Home, map: &IdMap) -> Result<bool, Failure> {
    let alone = home.alone()?;
    let member = home.users(&alone)?;
    match &member {
        Some(member) => idmap::join(member.as_fd())?,
        None => idmap::become_root(map)?,
    }
    home.sit(&alone)?;
    Ok(member.is_some())
}

/// Returns how whoever is root here can give files to owners.
fn own_owners() -> Owners {
    match idmap::own_ids() {
        Ids::All => Owners::Native,
        Ids::Enough => Owners::Subordinate,
        Ids::Few => Owners::Single,
    }
}

/// Does what `command` says and returns mk's exit code.
pub(crate) fn call(command: Command, context: &Context) -> Result<u8, Failure> {
    match command {
        Command::Build(args) => build::call(&args.0, context),
        Command::Plan(args) => plan::call(&args.0, context),
        Command::Run(args) => run::call(*args.0, context),
        Command::Lock(args) => build::lock(&args.0, context),
        Command::Completions(args) => completions::call(&args.0),
        Command::Images(args) => images::list(&args.0, context),
        Command::Tag(args) => images::tag(&args.0, context),
        Command::Rm(args) => rm::call(&args.0, context),
        Command::Ps(args) => ps::call(&args.0, context),
        Command::Logs(args) => logs::call(&args.0, context),
        Command::Stop(args) => stop::stop(&args.0, context),
        Command::Kill(args) => stop::kill(&args.0, context),
        Command::Wait(args) => stop::wait(&args.0, context),
        Command::Exec(args) => exec::call(*args.0, context),
        Command::Top(args) => top::call(&args.0, context),
        Command::Stats(args) => top::stats(&args.0, context),
        Command::Diff(args) => diff::call(&args.0, context),
        Command::Inspect(args) => inspect::call(&args.0, context),
        Command::Export(args) => export::call(&args.0, context),
        Command::Du(args) => du::call(&args.0, context),
        Command::Gc(args) => stored::collect(&args.0, context),
        Command::Verify(args) => stored::check(&args.0, context),
        Command::Doctor(args) => doctor::call(&args.0, context),
        Command::Volumes(args) => volumes::call(&args.0, context),
        Command::Network(args) => network::call(&args.0, context),
        Command::Schema(_) => schema(),
    }
}

/// Prints the JSON Schema of recipes.
fn schema() -> Result<u8, Failure> {
    ui::data(ui::pretty(&mk_core::recipe::schema::schema()))?;
    Ok(0)
}

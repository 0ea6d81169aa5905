//! `mk network`: makes networks, lists them, shows one of them, removes them.

use std::error::Error;

use mk_core::enter;
use mk_core::net::lease::Leased;
use mk_core::net::network::{Network, Networks, Options, Reach};
use mk_core::net::{self, nat};
use mk_core::recipe::{self, NetName};
use serde_json::{Value, json};

use super::{Context, find};
use crate::args::{self, NetworkAction, StateArgs};
use crate::report::{Failing, Failure};
use crate::settings::{Flags, Settings};
use crate::ui;

/// Does what was asked for.
pub(super) fn call(args: &args::Network, context: &Context) -> Result<u8, Failure> {
    match &args.action {
        NetworkAction::Create(args) => create(args, context),
        NetworkAction::Ls(args) => list(args, context),
        NetworkAction::Inspect(args) => inspect(args, context),
        NetworkAction::Rm(args) => remove(args, context),
    }
}

fn settings(args: &StateArgs, context: &Context) -> Result<Settings, Failure> {
    context.settings(&Flags {
        store: args.store.as_deref(),
        ..Flags::default()
    })
}

fn opened(args: &StateArgs, context: &Context) -> Result<Option<Networks>, Failure> {
    Ok(Networks::open(&settings(args, context)?.state)?)
}

/// Makes a network, on the host too, so that what stands in its way is said now and not by the first run.
fn create(args: &args::NetworkCreate, context: &Context) -> Result<u8, Failure> {
    let reach = if args.private { Reach::Within } else { Reach::Out };
    if reach == Reach::Out && !net::is_ours().map_err(net::Error::from)? {
        return Err(enter::Error::HostsNetwork {
            kind: recipe::Network::Bridge(args.name.clone()),
        }
        .into());
    }
    let networks = Networks::open_or_make(&settings(&args.state, context)?.state)?;
    let options = Options {
        subnet: args.subnet,
        subnet6: args.subnet6,
        mtu: args.mtu,
    };
    let network = networks.create(&args.name, reach, &options)?;
    if reach == Reach::Out
        && let Err(error) = network.bring_up()
    {
        // Why it cannot be made is worth more than what of it stays.
        let _ = networks.remove(&args.name);
        return Err(error.into());
    }
    let config = &network.config;
    let six = config.subnet6.map(|six| format!(" {}", six.range()));
    ui::data(format!(
        "{} {}{}",
        config.name,
        config.subnet.range(),
        six.unwrap_or_default()
    ))?;
    Ok(0)
}

fn list(args: &args::NetworkLs, context: &Context) -> Result<u8, Failure> {
    let networks = match opened(&args.state, context)? {
        Some(networks) => networks.list()?,
        None => Vec::new(),
    };
    let mut all = Vec::new();
    for network in &networks {
        all.push((network, network.leases()?));
    }
    if args.json {
        let all: Vec<Value> = all
            .iter()
            .map(|(network, runs)| summary(network, runs.len()))
            .collect();
        ui::data(ui::pretty(&Value::from(all)))?;
        return Ok(0);
    }
    if all.is_empty() {
        context.ui.say(
            "no networks yet: `mk run --network bridge IMAGE` makes one, as does `mk network create NAME`",
        );
        return Ok(0);
    }
    let mut rows = vec![
        ["NAME", "KIND", "SUBNET", "SUBNET6", "RUNS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(all.iter().map(|(network, runs)| {
        let config = &network.config;
        vec![
            config.name.clone(),
            config.reach.kind().to_owned(),
            config.subnet.range(),
            config.subnet6.map_or("-".into(), |six| six.range()),
            runs.len().to_string(),
        ]
    }));
    ui::data(ui::table(&rows).trim_end())?;
    Ok(0)
}

fn summary(network: &Network, runs: usize) -> Value {
    let config = &network.config;
    json!({
        "name": config.name,
        "kind": config.reach.kind(),
        "subnet": config.subnet.range(),
        "subnet6": config.subnet6.map(|six| six.range()),
        "runs": runs,
    })
}

fn inspect(args: &args::NetworkInspect, context: &Context) -> Result<u8, Failure> {
    let networks = opened(&args.state, context)?;
    let found = match &networks {
        Some(networks) => networks.find(&args.name)?,
        None => None,
    };
    let Some(network) = found else {
        return Err(unknown(networks.as_ref(), &args.name).into());
    };
    let runs = network.leases()?;
    let added = Added::look(networks.as_ref(), &network)?;
    let text = match args.json {
        true => ui::pretty(&as_json(&network, &runs, &added)),
        false => page(&network, &runs, &added),
    };
    ui::data(text.trim_end())?;
    Ok(0)
}

/// What there is on the host because of a network.
#[derive(Debug, Default)]
struct Added {
    interface: Option<String>,
    tables: Vec<String>,
    /// Settings below `/proc/sys`, which all networks need: what was and what is.
    settings: Vec<(String, String, String)>,
}

impl Added {
    fn look(networks: Option<&Networks>, network: &Network) -> Result<Self, Failure> {
        if network.config.reach == Reach::Within {
            return Ok(Self::default());
        }
        let name = &network.config.name;
        let changes = match networks {
            Some(networks) => networks.changes()?,
            None => Vec::new(),
        };
        let changed = changes.into_iter().filter(|change| change.was != change.is);
        Ok(Self {
            interface: network.is_up()?.then(|| name.clone()),
            // Only root may ask for tables; for others it is as good as not there.
            tables: nat::tables_of(name).unwrap_or_default(),
            settings: changed
                .map(|change| (change.setting.replace('/', "."), change.was, change.is))
                .collect(),
        })
    }

    fn lines(&self) -> Vec<String> {
        let interface = self.interface.iter().map(|name| format!("interface {name}"));
        let tables = self.tables.iter().map(|name| format!("table inet {name}"));
        let settings = self
            .settings
            .iter()
            .map(|(setting, was, is)| format!("{setting}: {was} -> {is}"));
        interface.chain(tables).chain(settings).collect()
    }
}

fn as_json(network: &Network, runs: &[Leased], added: &Added) -> Value {
    let config = &network.config;
    let mut document = summary(network, runs.len());
    document["gateway"] = json!(config.subnet.gateway());
    document["gateway6"] = json!(config.subnet6.map(|six| six.gateway()));
    document["mtu"] = json!(config.mtu);
    document["added"] = json!({
        "interface": added.interface,
        "tables": added.tables,
        "settings": added.settings.iter().map(|(setting, was, is)| json!({
            "setting": setting,
            "was": was,
            "is": is,
        })).collect::<Vec<_>>(),
    });
    document["runs"] = runs
        .iter()
        .map(|run| {
            json!({
                "names": run.names,
                "aliases": run.aliases,
                "address": run.ip,
                "address6": run.ip6,
                "mac": run.mac,
                "pid": run.pid,
            })
        })
        .collect();
    document
}

fn page(network: &Network, runs: &[Leased], added: &Added) -> String {
    let config = &network.config;
    let mut rows = vec![
        vec!["name".to_owned(), config.name.clone()],
        vec!["kind".to_owned(), config.reach.kind().to_owned()],
        vec!["subnet".to_owned(), config.subnet.to_string()],
    ];
    rows.extend(
        config
            .subnet6
            .map(|six| vec!["subnet6".to_owned(), six.to_string()]),
    );
    rows.extend(config.mtu.map(|mtu| vec!["mtu".to_owned(), mtu.to_string()]));
    let lines = match (config.reach, added.lines()) {
        (Reach::Within, _) => vec!["nothing: it is in a network namespace of its own".to_owned()],
        (Reach::Out, lines) if lines.is_empty() => vec!["nothing now: the next run makes it anew".to_owned()],
        (Reach::Out, lines) => lines,
    };
    for (at, line) in lines.into_iter().enumerate() {
        let title = if at == 0 { "added" } else { "" };
        rows.push(vec![title.to_owned(), line]);
    }
    let mut text = ui::table(&rows);
    if !runs.is_empty() {
        text.push('\n');
        text.push_str(&ui::table(&who(runs)));
    }
    text
}

fn who(runs: &[Leased]) -> Vec<Vec<String>> {
    let title = ["ADDRESS", "ADDRESS6", "NAMES", "PROCESS"]
        .map(str::to_owned)
        .to_vec();
    let rows = runs.iter().map(|run| {
        let names: Vec<&str> = run.names.iter().chain(&run.aliases).map(String::as_str).collect();
        vec![
            run.ip.to_string(),
            run.ip6.map_or("-".into(), |six| six.to_string()),
            if names.is_empty() {
                "-".into()
            } else {
                names.join(" ")
            },
            run.pid.to_string(),
        ]
    });
    std::iter::once(title).chain(rows).collect()
}

/// Removes networks; all that can be, whatever else was asked for.
fn remove(args: &args::NetworkRm, context: &Context) -> Result<u8, Failure> {
    let networks = opened(&args.state, context)?;
    let mut refused: Vec<Box<dyn Error + Send + Sync>> = Vec::new();
    for name in &args.names {
        let removed = match &networks {
            Some(networks) => networks.remove(name),
            None => Err(net::Error::Unknown {
                name: name.to_string(),
            }),
        };
        match removed {
            Ok(()) => {}
            Err(net::Error::Unknown { .. }) => refused.push(Box::new(unknown(networks.as_ref(), name))),
            Err(error) => refused.push(Box::new(error)),
        }
    }
    match refused.is_empty() {
        true => Ok(0),
        false => Err(Failure::Several(refused)),
    }
}

fn unknown(networks: Option<&Networks>, name: &NetName) -> Failing {
    let failing = Failing::new(format!("there is no network `{name}`"));
    let known = networks
        .and_then(|networks| networks.list().ok())
        .unwrap_or_default();
    match find::closest(
        name.as_str(),
        known.into_iter().map(|network| network.config.name),
    ) {
        Some(likely) => failing.hint(format!("did you mean `{likely}`?")),
        None => failing.hint("`mk network ls` lists the networks"),
    }
}

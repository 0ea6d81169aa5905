//! Which limits this process may set: what a run would decide is asked, and nothing is made.

use crate::cgroup::{Controller, Layout, Why, refusal};

pub use crate::cgroup::layout::Kind;

/// What a process may do with cgroups (cgroups(7)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroups {
    /// How they are arranged.
    pub kind: Kind,
    /// What this process may limit its children with.
    pub usable: Vec<Controller>,
    /// What it may not, and why.
    pub refused: Vec<(Controller, Why)>,
    /// Whether `cgroup.kill` is there (Linux 5.14); `None` where that cannot be seen: the root of a tree has none.
    pub kill: Option<bool>,
}

impl Cgroups {
    /// Looks at this process's own.
    pub fn look() -> Self {
        let layout = Layout::look().unwrap_or_default();
        let mut found = Self {
            kind: layout.kind(),
            ..Self::default()
        };
        for controller in Controller::ALL {
            match refusal(&layout, controller) {
                None => found.usable.push(controller),
                Some(why) => found.refused.push((controller, why)),
            }
        }
        let own = layout.v2.as_ref().and_then(|v2| v2.own_and_above().next());
        found.kill = own
            .filter(|own| own.join("cgroup.type").exists())
            .map(|own| own.join("cgroup.kill").exists());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_is_usable_or_refused() {
        let found = Cgroups::look();
        assert_eq!(found.usable.len() + found.refused.len(), Controller::ALL.len());
        if found.kind == Kind::Nothing {
            assert!(found.refused.iter().all(|(_, why)| *why == Why::NotMounted));
        }
    }
}

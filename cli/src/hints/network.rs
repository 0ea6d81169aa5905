//! What to do about networks that cannot be as asked.

use mk_core::spec::network::Pointless;

/// Returns advice for an option that the run's network has no use for.
pub(super) fn of_pointless(refused: &Pointless) -> String {
    match refused.option {
        "--publish" => {
            "ports are led into `--network bridge`, and as an ordinary user into `--network user`".into()
        }
        "--host-loopback" => {
            "`--network bridge` and `--network user` can lead to the host; `--network host` is the host's own"
                .into()
        }
        _ => "`--network bridge` and `--network private` have addresses and names of their own".into(),
    }
}

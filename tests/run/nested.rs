use super::sh;
use crate::harness::{Output, Sandbox, needs};

/// Returns a sandbox with the image `box`: a BusyBox, mk itself, and in `/images` a recipe with what it needs.
fn with_mk() -> Option<Sandbox> {
    let archive = needs::fixture(needs::FIXTURES[0])?;
    if !needs::namespaces() {
        return None;
    }
    let sandbox = Sandbox::new();
    fs_err::copy(archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
    fs_err::copy(env!("CARGO_BIN_EXE_mk"), sandbox.work().join("mk")).unwrap();
    let recipe = "[[step]]\nunpack = 'rootfs.tar.gz'\n[[step]]\ncopy = 'mk'\ninto = '/bin/mk'\nmode = '0755'\n\
                  [[step]]\ncopy = 'rootfs.tar.gz'\ninto = '/images/rootfs.tar.gz'\n\
                  [[step]]\nwrite = '/images/inner.toml'\ntext = \"[[step]]\\nunpack = 'rootfs.tar.gz'\\n\"\n";
    sandbox.write("box.toml", recipe);
    sandbox.mk(["build", "box.toml", "-q"]).ok();
    Some(sandbox)
}

/// A run in a run: builds an image in the container and says who and where it is in a container of that.
fn nested(sandbox: &Sandbox, options: &[&str]) -> Output {
    let script = "cd /images && mk build -q inner.toml >&- && \
                  mk run --hostname inner inner -- sh -c 'hostname; id -u; echo $$; ls /images 2>&- || echo alone'";
    sh(sandbox, options, script)
}

#[test]
fn a_container_in_a_container_works_with_two_capabilities_or_as_privileged() {
    let Some(sandbox) = with_mk() else { return };
    let expected = "inner\n0\n2\nalone\n";
    assert_eq!(nested(&sandbox, &["--privileged"]).ok().stdout, expected);
    let two = ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"];
    if needs::has_ids() {
        assert_eq!(nested(&sandbox, &two).ok().stdout, expected);
        let user = [
            "--privileged",
            "-u",
            "1000",
            "-e",
            "HOME=/tmp",
            "-e",
            "MK_STORE=/tmp/store",
        ];
        assert_eq!(nested(&sandbox, &user).ok().stdout, expected);
    } else {
        // With a single id the inner run needs a user namespace, and that a `/proc` with nothing covered.
        assert_eq!(nested(&sandbox, &two).code, Some(125));
    }
}

#[test]
fn without_options_a_container_in_a_container_is_refused_and_the_doctor_is_named() {
    let Some(sandbox) = with_mk() else { return };
    let output = nested(&sandbox, &[]);
    assert_eq!((output.code, &*output.stdout), (Some(1), ""), "{output}");
    assert!(output.stderr.contains("`mk doctor`"), "{output}");
    let doctor = sandbox.mk(["run", "box", "mk", "doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor}");
    assert!(
        doctor.stdout.contains("one of mk") && doctor.stdout.contains("clone3"),
        "{doctor}"
    );
}

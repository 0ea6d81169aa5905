use crate::harness::Sandbox;

/// The user's configuration, seen from the working folder.
const CONFIG: &str = "../home/.config/mk/config.toml";

/// Calls `mk` with `words` in a folder with the files given, and compares all that it says with the snapshot `name`.
macro_rules! mistakes {
    ($($name:ident: $words:expr $(, $path:expr => $text:expr)*;)*) => {$(
        #[test]
        fn $name() {
            let sandbox = Sandbox::new();
            $(sandbox.write($path, $text);)*
            let output = sandbox.mk($words);
            assert_eq!(output.stdout, "", "nothing but data belongs on stdout");
            assert!(matches!(output.code, Some(1 | 2 | 125)), "{output}");
            insta::assert_snapshot!(output);
        }
    )*};
}

mistakes! {
    a_misspelt_command: ["biuld", "busybox"];
    a_command_that_there_is_not: ["ps"];
    an_option_that_there_is_not: ["build", "--no-cache"];
    a_misspelt_option: ["build", "--souce-dir", "x"];
    one_word_too_many: ["build", "a.toml", "b.toml"];
    an_argument_without_a_value: ["build", "--arg", "greeting"];
    an_argument_without_a_name: ["build", "--arg", "=hi"];
    locked_and_updated_at_once: ["build", "--locked", "--update"];
    a_kind_of_progress_that_there_is_not: ["build", "--progress", "fancy"];
    an_option_given_twice: ["build", "--name", "a", "--name", "b"];
    a_switch_with_a_value: ["images", "--json=yes"];
    no_image_to_run: ["run"];
    a_volume_without_a_destination: ["run", "busybox", "-v", "/tmp"];
    a_volume_with_a_relative_destination: ["run", "busybox", "-v", "/tmp:mnt", "ls"];
    a_volume_with_an_unknown_option: ["run", "busybox", "-v", "/tmp:/mnt:z"];
    a_variable_without_a_value: ["run", "busybox", "-e", "LANG", "env"];
    an_option_of_the_command_before_the_command: ["run", "busybox", "-l"];
    a_network_that_there_is_not: ["run", "busybox", "--network", "bridge"];
    a_tmpfs_with_a_relative_destination: ["run", "busybox", "--tmpfs", "tmp"];
    an_inspection_in_two_ways: ["inspect", "--tree", "--rootfs", "busybox"];
    a_tag_without_a_name: ["tag", "busybox"];
    an_export_to_nowhere: ["export", "busybox"];
    an_export_to_two_places: ["export", "busybox", "-o", "a.tar", "--folder", "a"];
    a_shell_that_there_is_not: ["completions", "bahs"];
    a_misspelt_key_in_the_configuration: ["images"], CONFIG => "# mine\nmiror = \"http://localhost/debian\"\n";
    a_value_of_another_kind_in_the_configuration: ["images"], CONFIG => "source-dirs = \"/srv/sources\"\n";
    a_configuration_that_is_no_toml: ["images"], CONFIG => "store = /srv/mk\n";
    a_relative_store_in_the_configuration: ["images"], CONFIG => "store = \"~/mk\"\n";
}

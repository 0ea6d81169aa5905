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
            if output.stderr.contains("cannot make a user namespace") {
                skip("user namespaces");
                return;
            }
            assert_eq!(output.stdout, "", "nothing but data belongs on stdout");
            assert!(matches!(output.code, Some(1 | 2 | 125..=127)), "{output}");
            insta::assert_snapshot!(output);
        }
    )*};
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn skip(what: &str) {
    eprintln!("skipped: needs {what}");
}

/// The smallest recipe that makes an image.
const SOUND: &str = "[[step]]\nwrite = \"/hello\"\ntext = \"hello\\n\"\n";

mistakes! {
    a_misspelt_command: ["biuld", "busybox"];
    a_command_that_there_is_not: ["frobnicate"];
    an_option_that_there_is_not: ["build", "--verbose"];
    an_option_of_another_tool_to_build: ["build", "-t", "app", "."];
    a_habit_of_starting_over: ["build", "--no-cache"];
    options_of_another_tool_to_run: ["run", "-it", "-P", "busybox"];
    a_command_of_another_tool: ["pull", "busybox"];
    an_option_before_the_command: ["--store", "/tmp", "images"];
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
    a_volume_with_a_misspelt_option: ["run", "busybox", "-v", "/tmp:/mnt:ro,noexce"];
    a_volume_that_is_and_is_not_read_only: ["run", "busybox", "-v", "/tmp:/mnt:ro,rw"];
    a_volume_with_too_many_colons: ["run", "busybox", "-v", "/a:b:/mnt:ro"];
    a_volume_with_a_name_that_is_none: ["run", "busybox", "-v", "Data:/mnt"];
    a_mount_without_a_type: ["run", "busybox", "--mount", "source=/a,target=/b"];
    a_mount_with_a_misspelt_key: ["run", "busybox", "--mount", "type=bind,source=/a,traget=/b"];
    a_mount_of_a_misspelt_type: ["run", "busybox", "--mount", "type=bnid,source=/a,target=/b"];
    a_mount_without_a_source: ["run", "busybox", "--mount", "type=bind,target=/b"];
    a_writable_image: ["run", "busybox", "--mount", "type=image,source=alpine,target=/b,rw"];
    a_place_for_writes_that_there_is_not: ["run", "busybox", "--scratch", "dsik"];
    a_place_for_writes_without_a_slash: ["run", "busybox", "--scratch", "mine"];
    a_size_that_is_none: ["run", "busybox", "--scratch", "tmpfs:lots"];
    whose_ids_that_is_neither: ["run", "busybox", "--userns", "keep-id"];
    a_volume_that_is_not_there: ["volumes", "rm", "cache"];
    a_volume_of_another_tool: ["volume", "ls"];
    a_list_of_volumes_of_another_tool: ["volumes", "ls"];
    a_volume_made_beforehand: ["volumes", "create", "cache"];
    a_volume_to_look_into: ["volumes", "inspect", "cache"];
    a_misspelt_command_on_volumes: ["volumes", "rn", "cache"];
    a_signal_that_looks_like_an_option: ["kill", "-9", "web"];
    a_name_of_a_signal_that_looks_like_an_option: ["kill", "-HUP", "web"];
    a_look_at_what_is_used_that_ends: ["stats", "--no-stream"];
    a_command_that_goes_in_and_stays_behind: ["exec", "-d", "web", "true"];
    a_process_1_of_another_tool: ["run", "--init", "busybox"];
    a_device_of_the_hosts: ["run", "--device=/dev/fuse", "busybox"];
    ids_of_another_tool: ["run", "--userns", "keep-id:uid=1000", "busybox"];
    a_variable_without_a_value: ["run", "busybox", "-e", "LANG", "env"];
    ports_to_publish: ["run", "-p", "8080:80", "--network", "none", "busybox"];
    a_name_that_no_container_can_have: ["run", "--name", "We b", "busybox"];
    a_name_that_looks_like_an_id: ["run", "--name", "0123456789ab", "-d", "busybox"];
    a_size_of_a_log_that_is_not_kept: ["run", "--log-size", "1m", "busybox"];
    a_log_too_small_for_a_line: ["run", "-d", "--log-size", "1k", "busybox"];
    a_log_of_no_container: ["logs", "nosuch"];
    a_log_of_nothing: ["logs"];
    a_log_since_a_day_that_is_none: ["logs", "--since", "yesterday", "web"];
    a_stop_of_no_container: ["stop", "web", "db"];
    a_stop_that_is_to_take_a_word: ["stop", "-t", "soon", "web"];
    a_signal_that_there_is_not: ["kill", "-s", "BOGUS", "web"];
    a_wait_for_no_container: ["wait", "web"];
    a_container_command_of_another_tool: ["container", "ls"];
    a_restart: ["restart", "web"];
    a_list_of_containers_in_two_ways: ["ps", "--json", "-q"];
    an_option_unlike_any: ["run", "--stop-signal", "3", "busybox"];
    a_limit_of_memory_in_a_unit_of_two_meanings: ["run", "-m", "512mb", "busybox"];
    a_limit_of_memory_that_leaves_no_room: ["run", "--memory", "4k", "busybox"];
    a_limit_of_memory_that_is_no_number: ["run", "--memory", "lots", "busybox"];
    no_processors_at_all: ["run", "--cpus", "0", "busybox"];
    too_many_digits_of_a_processor: ["run", "--cpus", "0.12345", "busybox"];
    no_processes_at_all: ["run", "--pids", "0", "busybox"];
    processors_counted_backwards: ["run", "--cpuset", "3-1", "busybox"];
    a_limit_of_an_unknown_resource: ["run", "--ulimit", "files=1024", "busybox"];
    a_limit_without_a_value: ["run", "--ulimit", "nofile", "busybox"];
    a_soft_limit_above_the_hard_one: ["run", "--ulimit", "nofile=20:10", "busybox"];
    a_score_out_of_range: ["run", "--oom-score-adj", "5000", "busybox"];
    a_limit_as_another_tool_names_it: ["run", "--pids-limit", "10", "busybox"];
    an_option_of_another_tool_on_privileges: ["run", "--security-opt", "seccomp=unconfined", "busybox"];
    a_profile_without_a_name: ["run", "busybox", "--seccomp", "", "true"];
    a_misspelt_capability: ["run", "busybox", "--cap-add", "NET_ADMN", "true"];
    a_capability_that_there_is_not: ["run", "busybox", "--cap-drop", "everything", "true"];
    the_version_as_a_command: ["version"];
    a_variable_with_a_blank_in_its_name: ["run", "busybox", "-e", "A B=1", "env"];
    a_word_that_acts_on_a_terminal: ["run", "busybox", "-e", "\u{1b}[31mred", "env"];
    an_option_of_the_command_before_the_command: ["run", "busybox", "-l"];
    a_network_that_there_is_not: ["run", "busybox", "--network", "briidge"];
    a_network_that_is_a_bridge_of_another_tool: ["run", "busybox", "--network", "bridge0"];
    a_network_of_a_helper: ["run", "busybox", "--network", "slirp4netns:allow_host_loopback=true"];
    a_network_with_a_name_that_is_none: ["run", "busybox", "--network", "bridge:My Net"];
    a_network_that_does_not_say_which: ["run", "busybox", "--network", "container:"];
    a_network_in_short: ["run", "busybox", "--net", "host"];
    a_link_between_containers: ["run", "--link", "db", "busybox"];
    all_ports_to_publish: ["run", "--publish-all", "busybox"];
    a_port_of_no_number: ["run", "--network", "bridge", "-p", "http:80", "busybox"];
    ports_that_do_not_go_together: ["run", "--network", "bridge", "-p", "8000-8002:80-81", "busybox"];
    a_port_over_a_protocol_that_there_is_not: ["run", "--network", "bridge", "-p", "80:80/sctp", "busybox"];
    a_port_of_an_ipv6_address_without_brackets: ["run", "--network", "bridge", "-p", "::1:80:80", "busybox"];
    a_hardware_address_of_a_group: ["run", "--network", "bridge", "--mac", "01:00:5e:00:00:01", "busybox"];
    an_address_without_a_network: ["run", "--ip", "10.0.0.7", "--network", "host", "busybox"];
    a_host_without_an_address: ["run", "--add-host", "db", "busybox"];
    a_name_that_no_host_can_have: ["run", "--network", "bridge", "--network-alias", "my db", "busybox"];
    a_name_server_by_name: ["run", "--dns", "dns.example", "busybox"];
    networks_of_another_tool: ["networks"];
    networks_to_prune: ["network", "prune"];
    a_container_to_connect: ["network", "connect", "web", "db"];
    a_network_with_a_driver: ["network", "create", "-d", "macvlan", "web"];
    a_network_with_a_gateway: ["network", "create", "--gateway", "10.9.8.254", "web"];
    a_network_that_is_internal: ["network", "create", "--internal", "web"];
    a_network_without_a_name: ["network", "create"];
    a_network_named_like_loopback: ["network", "create", "lo"];
    a_subnet_with_too_many_bits: ["network", "create", "web", "--subnet", "10.9.8.0/33"];
    a_subnet_without_bits: ["network", "create", "web", "--subnet", "10.9.8.0"];
    a_subnet_of_the_other_family: ["network", "create", "web", "--subnet", "fd00::/64"];
    a_packet_that_is_too_small: ["network", "create", "web", "--mtu", "100"];
    a_network_to_look_at_that_there_is_not: ["network", "inspect", "web"];
    networks_to_remove_that_there_are_not: ["network", "rm", "web", "db"];
    a_network_to_remove_by_force: ["network", "rm", "-f", "web"];
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

/// Recipes that cannot be read.
mod recipes {
    use super::*;

    mistakes! {
        a_misspelt_key: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwirte = \"/etc/motd\"\ntext = \"hi\\n\"\n";
        two_verbs_in_one_step: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwrite = \"/etc/motd\"\ntext = \"hi\"\ncopy = \"motd\"\n";
        a_step_without_a_verb: ["build", "a.toml"],
            "a.toml" => "[[step]]\ninto = \"/\"\n";
        a_key_of_another_verb: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwrite = \"/etc/motd\"\ntext = \"hi\"\nstrip = 1\n";
        a_write_without_its_text: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwrite = \"/etc/motd\"\n";
        a_link_without_its_target: ["build", "a.toml"],
            "a.toml" => "[[step]]\nlink = [\"/bin/sh\", \"/bin/ls\"]\n";
        a_mode_as_ls_shows_it: ["build", "a.toml"],
            "a.toml" => "[[step]]\ncopy = \"motd\"\ninto = \"/etc/motd\"\nmode = \"rw-r--r--\"\n";
        a_mode_as_a_number: ["build", "a.toml"],
            "a.toml" => "[[step]]\ndir = \"/srv\"\nmode = 755\n";
        a_mode_without_quotes: ["build", "a.toml"],
            "a.toml" => "[[step]]\ndir = \"/srv\"\nmode = 0755\n";
        an_argument_that_is_a_number: ["build", "a.toml"],
            "a.toml" => "[args]\nv = 1\n\n[run]\nenv = { PATH = 3 }\n";
        a_path_that_leaves_the_image: ["build", "a.toml"],
            "a.toml" => "[[step]]\ncopy = \"motd\"\ninto = \"../../etc/motd\"\n";
        an_argument_that_is_not_declared: ["build", "a.toml"],
            "a.toml" => "[args]\ngreeting = \"hello\"\n\n[[step]]\nwrite = \"/etc/issue\"\ntext = \"{greting}\"\n";
        a_brace_that_is_not_doubled: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwrite = \"/x.json\"\ntext = \"{ \\\"a\\\": 1 }\"\n";
        an_argument_given_that_the_recipe_has_not: ["build", "a.toml", "--arg", "grreting=hi"],
            "a.toml" => "[args]\ngreeting = \"hello\"\n\n[[step]]\nwrite = \"/etc/issue\"\ntext = \"{greeting}\"\n";
        a_string_that_does_not_end: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwrite = \"/etc/motd\ntext = \"hi\"\n";
        a_text_without_quotes: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwrite = /etc/motd\ntext = \"hi\"\n";
        one_pair_of_brackets_too_few: ["build", "a.toml"],
            "a.toml" => "[step]\nwrite = \"/etc/motd\"\ntext = \"hi\"\n";
        a_protocol_that_there_is_not: ["build", "a.toml"],
            "a.toml" => "[[step]]\nunpack = \"ftp://localhost/a.tar.gz\"\n";
        a_digest_that_is_cut_short: ["build", "a.toml"],
            "a.toml" => "[[step]]\nunpack = \"a.tar.gz\"\nsha256 = \"5c3b4478\"\n";
        a_network_of_another_tool: ["build", "a.toml"],
            "a.toml" => "[run]\nnetwork = \"slirp4netns\"\n";
        a_command_as_one_text: ["build", "a.toml"],
            "a.toml" => "[run]\ncommand = \"/bin/sh -c ls\"\n";
        variables_as_a_list: ["build", "a.toml"],
            "a.toml" => "[run]\nenv = [\"PATH=/bin\"]\n";
        an_address_that_is_a_name: ["build", "a.toml"],
            "a.toml" => "[conf]\nhosts = { db = [\"10.0.0.7\"] }\n";
        a_user_without_a_number: ["build", "a.toml"],
            "a.toml" => "[[step]]\nuser = \"app\"\nhome = \"/srv\"\n";
        a_package_without_its_suite: ["build", "a.toml"],
            "a.toml" => "[[step]]\ndeb = \"busybox-static\"\n";
        a_recipe_as_another_tool_writes_it: ["build", "Containerfile.toml"],
            "Containerfile.toml" => "FROM debian:bookworm\nRUN apt-get update\n";
        several_mistakes_at_once: ["build", "a.toml"],
            "a.toml" => "descripton = \"x\"\n\n[[step]]\nwrite = \"/etc/motd\"\nmode = \"999\"\n\n[[step]]\nlink = \"/bin/sh\"\n\n[run]\nworkdir = \"srv\"\n";
    }
}

/// Recipes that can be read, and not be found or built.
mod builds {
    use super::*;

    mistakes! {
        no_recipe_named_and_none_there: ["build"];
        a_misspelt_file: ["build", "bsuybox.toml"], "busybox.toml" => SOUND;
        a_misspelt_recipe_of_mk: ["build", "busybocks"];
        a_recipe_that_there_is_not: ["build", "postgres"];
        a_recipe_without_its_ending: ["build", "app"], "app.toml" => SOUND;
        a_folder_for_a_recipe: ["build", "./app"], "app/Containerfile.toml" => SOUND;
        a_file_name_that_cannot_name_an_image: ["build", "My App.toml"], "My App.toml" => SOUND;
        a_name_that_cannot_name_an_image: ["build", "a.toml", "--name", "Registry/App:1"], "a.toml" => SOUND;
        a_file_to_copy_that_is_not_there: ["build", "a.toml"],
            "a.toml" => "[[step]]\ncopy = \"motd\"\ninto = \"/etc/motd\"\n";
        an_archive_that_is_not_there: ["build", "a.toml"],
            "a.toml" => "[[step]]\nunpack = \"rootfs.tar.gz\"\n";
        an_archive_that_is_none: ["build", "a.toml"],
            "a.toml" => "[[step]]\nunpack = \"rootfs.tar.gz\"\n", "rootfs.tar.gz" => "<html>Not found</html>\n";
        an_archive_that_is_another: ["build", "a.toml"],
            "a.toml" => "[[step]]\nunpack = \"a.tar\"\nsha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n",
            "a.tar" => "another";
        a_pattern_that_matches_nothing: ["build", "a.toml"],
            "a.toml" => "[[step]]\nwrite = \"/hello\"\ntext = \"hi\"\n\n[[step]]\nremove = \"/usr/share/docs/**\"\n";
        a_lock_that_was_merged_badly: ["build", "a.toml"],
            "a.toml" => SOUND, "a.lock" => "version = 1\n<<<<<<< HEAD\n";
        a_url_without_a_pin_and_no_network: ["build", "a.toml"],
            "a.toml" => "[[step]]\nunpack = \"http://127.0.0.1:1/a.tar\"\n";
        a_device_for_a_recipe: ["build", "/dev/null"];
        a_lock_that_would_change: ["build", "a.toml", "--locked"],
            "a.toml" => "[[step]]\nunpack = \"http://127.0.0.1:1/a.tar\"\n";
        a_lock_to_check_that_would_change: ["lock", "a.toml", "--check"],
            "a.toml" => "[[step]]\ndeb = [\"busybox-static\"]\nsuite = \"bookworm\"\n";
        the_lock_of_a_recipe_of_mk: ["lock", "busybox"];
    }
}

/// Images that are not there, and runs that come to nothing.
mod images {
    use super::*;

    mistakes! {
        an_image_to_run_that_there_is_not: ["run", "bussybox", "ls"];
        an_image_to_look_at_that_is_not_built: ["inspect", "alpine"];
        an_image_to_name_that_there_is_not: ["tag", "nothing", "something"];
        a_name_to_remove_that_there_is_not: ["rm", "nothing"];
        a_name_that_no_image_can_have: ["tag", "a", "Latest!"];
        a_folder_that_is_no_store: ["images", "--store", "."], "notes.txt" => "mine";
        a_file_for_a_store: ["images", "--store", "notes.txt"], "notes.txt" => "mine";
        a_volume_whose_source_is_missing: ["run", "a.toml", "-v", "./data:/data", "true"], "a.toml" => SOUND;
        a_volume_from_home_in_quotes: ["run", "a.toml", "-v", "~/x:/y", "true"], "a.toml" => SOUND;
        an_image_without_a_shell: ["run", "a.toml"], "a.toml" => SOUND;
        a_source_folder_that_is_not_there: ["build", "a.toml", "--source-dir", "/nope"],
            "a.toml" => "[[step]]\nunpack = \"http://127.0.0.1:1/a.tar\"\nsha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n";
        a_command_that_the_image_has_not: ["run", "-v", "./d/x:/data", "./a.toml", "bash"],
            "a.toml" => SOUND, "d/x" => "";
        a_file_that_is_no_command: ["run", "a.toml", "/hello"], "a.toml" => SOUND;
        a_user_that_the_image_has_not: ["run", "a.toml", "-u", "postgres", "true"], "a.toml" => SOUND;
        a_relative_folder_to_start_in: ["run", "a.toml", "-w", "src", "true"], "a.toml" => SOUND;
        a_folder_to_start_in_that_is_not_there: ["run", "a.toml", "-w", "/src", "true"], "a.toml" => SOUND;
        a_file_over_a_folder: ["run", "a.toml", "-v", "./a.toml:/dev", "true"], "a.toml" => SOUND;
        a_folder_over_a_file: ["run", "a.toml", "-v", "./d:/hello", "true"], "a.toml" => SOUND, "d/x" => "";
        too_few_files_to_start_a_command_with: ["run", "a.toml", "--ulimit", "nofile=2", "/hello"], "a.toml" => SOUND;
        two_volumes_in_one_place: ["run", "a.toml", "-v", "./a.toml:/m", "--tmpfs", "/m", "true"], "a.toml" => SOUND;
        a_capability_added_and_dropped: ["run", "a.toml", "--cap-add", "kill", "--cap-drop", "KILL", "true"],
            "a.toml" => SOUND;
        a_profile_that_is_not_there: ["run", "a.toml", "--seccomp", "p.json", "true"], "a.toml" => SOUND;
        a_profile_with_a_misspelt_key: ["run", "a.toml", "--seccomp", "p.json", "true"], "a.toml" => SOUND,
            "p.json" => "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\",\n  \"syscals\": []\n}\n";
        a_profile_with_an_action_that_there_is_not: ["run", "a.toml", "--seccomp", "p.json", "true"],
            "a.toml" => SOUND, "p.json" => "{ \"defaultAction\": \"DENY\" }\n";
        a_profile_that_wants_each_call_answered: ["run", "a.toml", "--seccomp", "p.json", "true"],
            "a.toml" => SOUND, "p.json" => "{ \"defaultAction\": \"SCMP_ACT_NOTIFY\" }\n";
        a_profile_with_an_argument_that_no_call_has: ["run", "a.toml", "--seccomp", "p.json", "true"],
            "a.toml" => SOUND,
            "p.json" => "{ \"defaultAction\": \"SCMP_ACT_ERRNO\", \"syscalls\": [{ \"names\": [\"read\"], \"action\": \"SCMP_ACT_ALLOW\",\n  \"args\": [{ \"index\": 6, \"value\": 1, \"op\": \"SCMP_CMP_EQ\" }] }] }\n";
        mapped_ids_without_any_to_map: ["run", "a.toml", "-v", ".:/m:idmap", "true"], "a.toml" => SOUND;
        set_user_id_bits_without_an_effect: ["run", "a.toml", "-v", ".:/m:suid", "true"], "a.toml" => SOUND;
        a_folder_for_writes_that_holds_other_things: ["run", "a.toml", "--scratch", ".", "true"], "a.toml" => SOUND;
        a_word_that_is_a_folder_and_no_volume: ["run", "a.toml", "-v", "data:/m", "true"], "a.toml" => SOUND, "data/f" => "";
        an_image_to_show_that_there_is_not: ["run", "a.toml", "--mount", "type=image,source=bussybox,target=/m", "true"],
            "a.toml" => SOUND;
        a_host_name_with_a_blank: ["run", "a.toml", "--hostname", "my box", "true"], "a.toml" => SOUND;
        a_file_of_variables_with_a_bare_name: ["run", "a.toml", "--env-file", "env", "true"],
            "a.toml" => SOUND, "env" => "# mine\nLANG=C\nEDITOR=vi\nHOME\n";
        a_file_of_variables_for_a_shell: ["run", "a.toml", "--env-file", "env", "true"],
            "a.toml" => SOUND, "env" => "LANG=C\nexport EDITOR=vi\n";
        a_file_of_variables_that_is_not_there: ["run", "a.toml", "--env-file", "env", "true"], "a.toml" => SOUND;
    }
}

#[test]
fn a_time_that_is_no_number() {
    let sandbox = Sandbox::new();
    sandbox.write("a.toml", SOUND);
    let output = sandbox.mk_with(["build", "a.toml"], |command| {
        command.env("SOURCE_DATE_EPOCH", "2024-01-01");
    });
    assert_eq!(output.code, Some(1));
    insta::assert_snapshot!(output);
}

#[test]
fn nowhere_to_keep_images() {
    let sandbox = Sandbox::new();
    let output = sandbox.mk_with(["images"], |command| {
        command.env_clear();
    });
    // Root has a place of its own, whatever the environment says.
    if output.code == Some(0) || output.stderr.contains("/var/lib/mk") {
        skip("an ordinary user");
        return;
    }
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            Some(1),
            "error: there is nowhere to keep images: neither `HOME` nor `XDG_DATA_HOME` is set\n\
             hint: say where with `--store DIR` or `MK_STORE`\n"
        )
    );
}

//! Spec section 4, "Plugin Delegation", with real executables: some of the system's own, awk scripts that
//! answer as told, and the reference plugins.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cni_spec::delegate::exec;
use cni_spec::{CniError, Delegate, DelegateError, Environment, ErrorCode, SpecVersion};
use serde_json::json;
use tempfile::TempDir;

use crate::support::environment;

/// A folder for `CNI_PATH`.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, mode: u32, content: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("permissions");
        path
    }

    /// A plugin that runs an awk program.
    fn awk(self, name: &str, program: &str) -> Self {
        self.file(name, 0o755, &format!("#!/usr/bin/awk -f\n{program}\n"));
        self
    }

    /// A plugin that is a program of the system.
    fn link(self, name: &str, program: &str) -> Self {
        symlink(program, self.path().join(name)).expect("a link");
        self
    }

    fn environment(&self, verb: &str) -> Environment {
        environment(verb).with("CNI_PATH", self.path())
    }
}

/// Prints a text from awk and ends with this status.
fn prints(text: &str, status: u8) -> String {
    format!("BEGIN {{ print {text:?}; exit {status} }}")
}

#[test]
fn environment_and_config_arrive_complete() {
    // The message is the environment and the details are standard input, so that both can be looked at.
    let program = r#"BEGIN { for (name in ENVIRON) if (name != "AWKPATH" && name != "AWKLIBPATH")
            variables = variables name "=" ENVIRON[name] "\\n" }
        { config = config $0 }
        END { gsub(/"/, "\\\"", config); printf "{\"code\":7,\"msg\":\"%s\",\"details\":\"%s\"}", variables, config; exit 1 }"#;
    let folder = Folder::new().awk("spy", program);
    let environment = folder.environment("CHECK").with("TRACEPARENT", "00-1-2-01");
    let config = json!({ "name": "n", "ipam": { "type": "spy" }, "more": [1, 2] }).to_string();
    let Err(DelegateError::Failed(error)) = Delegate::new(&environment).check("spy", config.as_bytes()) else {
        panic!("no error object")
    };
    assert_eq!(error.details, config);
    let mut variables: Vec<&str> = error.msg.lines().collect();
    variables.sort_unstable();
    let mut expected: Vec<String> =
        environment.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
    expected.sort_unstable();
    assert_eq!(variables, expected);
}

#[test]
fn each_method_says_its_own_verb() {
    let program = r#"BEGIN { printf "{\"code\":100,\"msg\":\"%s\"}", ENVIRON["CNI_COMMAND"]; exit 1 }"#;
    let folder = Folder::new().awk("spy", program);
    let environment = folder.environment("ADD");
    let delegate = Delegate::new(&environment);
    let verb = |answer: Result<(), DelegateError>| match answer {
        Err(DelegateError::Failed(error)) => error.msg,
        other => panic!("{other:?}"),
    };
    assert_eq!(verb(delegate.add("spy", b"{}", SpecVersion::LATEST).map(drop)), "ADD");
    assert_eq!(verb(delegate.del("spy", b"{}")), "DEL");
    assert_eq!(verb(delegate.check("spy", b"{}")), "CHECK");
    assert_eq!(verb(delegate.gc("spy", b"{}")), "GC");
    assert_eq!(verb(delegate.status("spy", b"{}")), "STATUS");
}

#[test]
fn a_result_may_leave_its_version_out() {
    let folder = Folder::new()
        .awk("new", &prints(r#"{"ips":[{"address":"10.0.0.5/24"}]}"#, 0))
        .awk("old", &prints(r#"{"ip4":{"ip":"10.0.0.5/24"}}"#, 0))
        .awk("stated", &prints(r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.5/24"}}"#, 0));
    let environment = folder.environment("ADD");
    for (name, version) in [("new", SpecVersion::V1_0_0), ("old", SpecVersion::V0_1_0), ("stated", SpecVersion::V1_1_0)]
    {
        let result = Delegate::new(&environment).add(name, b"{}", version).expect(name);
        assert_eq!(result, crate::results::one_address(), "{name}");
    }
}

#[test]
fn results_that_are_none_are_refused() {
    let folder = Folder::new()
        .link("silent", "/bin/true")
        .awk("text", &prints("hello", 0))
        .awk("twice", &prints("{}{}", 0))
        .awk("list", &prints("[]", 0))
        .awk("bad", &prints(r#"{"ips":[{"address":"x"}]}"#, 0));
    let environment = folder.environment("ADD");
    let failure = |name: &str| {
        let error = Delegate::new(&environment).add(name, b"{}", SpecVersion::LATEST).expect_err(name);
        let error = CniError::from(error);
        assert_eq!(error.code, ErrorCode::Decode, "{name}");
        (error.msg.replace(&folder.path().display().to_string(), ""), error.details)
    };
    let eof = "EOF while parsing a value at line 1 column 0";
    assert_eq!(failure("silent"), ("/silent printed no valid JSON: \"\"".to_owned(), eof.to_owned()));
    assert_eq!(failure("text").0, "/text printed no valid JSON: \"hello\\n\"");
    assert_eq!(failure("twice").0, "/twice printed no valid JSON: \"{}{}\\n\"");
    let invalid =
        |name: &str, why: &str| (format!("/{name} printed an invalid result"), format!("invalid result: {why}"));
    assert_eq!(failure("list"), invalid("list", "the document=[] is not an object"));
    let why = "ips[0].address=\"x\" is not an address with a prefix length, such as 10.1.2.3/24";
    assert_eq!(failure("bad"), invalid("bad", why));
}

#[test]
fn a_delegates_error_keeps_its_code() {
    let error = r#"{"cniVersion":"1.0.0","code":11,"msg":"pool busy","details":"by 7"}"#;
    let folder = Folder::new().awk("busy", &prints(error, 1));
    let error = Delegate::new(&folder.environment("DEL")).del("busy", b"{}").expect_err("a failure");
    let expected = CniError::new(ErrorCode::TryAgainLater, "pool busy").with_details("by 7");
    assert_eq!(CniError::from(error), expected);
}

#[test]
fn output_of_verbs_without_result_does_not_matter() {
    let folder = Folder::new().link("echo", "/bin/cat").link("silent", "/bin/true");
    let environment = folder.environment("DEL");
    Delegate::new(&environment).del("echo", b"no JSON").expect("success");
    Delegate::new(&environment).del("silent", b"").expect("success");
}

#[test]
fn a_failure_without_output_is_told() {
    let folder = Folder::new().link("fails", "/bin/false");
    let error = Delegate::new(&folder.environment("DEL")).del("fails", b"{}").expect_err("a failure");
    let expected = format!("{}/fails failed (exit status: 1) and printed no error", folder.path().display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn large_inputs_and_outputs_do_not_block() {
    let config = vec![b'x'; 4 << 20];
    let output = exec(Path::new("/bin/cat"), &environment("ADD"), &config).expect("an output");
    assert!(output == config, "{} bytes came back", output.len());
}

#[test]
fn a_delegate_need_not_read_its_input() {
    let config = vec![b'x'; 4 << 20];
    let folder = Folder::new().awk("deaf", &prints("{}", 0));
    for _ in 0..20 {
        exec(Path::new("/bin/true"), &environment("DEL"), &config).expect("success");
        let output = exec(&folder.path().join("deaf"), &environment("DEL"), &config).expect("success");
        assert_eq!(output, b"{}\n");
    }
}

#[test]
fn the_first_executable_file_of_the_name_is_run() {
    let (first, second) = (Folder::new(), Folder::new().awk("p", &prints(r#"{"dns":{"domain":"second"}}"#, 0)));
    fs::create_dir(first.path().join("p")).expect("a folder");
    let third = Folder::new().awk("p", &prints(r#"{"dns":{"domain":"third"}}"#, 0));
    let folders = [Path::new("/nonexistent"), first.path(), Path::new(""), second.path(), third.path()];
    let path = std::env::join_paths(folders).expect("a path");
    let environment = environment("ADD").with("CNI_PATH", path);
    let result = Delegate::new(&environment).add("p", b"{}", SpecVersion::LATEST).expect("a result");
    assert_eq!(result.dns.domain.as_deref(), Some("second"));
}

#[test]
fn what_cannot_be_found_is_named_with_where_it_was_looked_for() {
    let (folder, other) = (Folder::new(), Folder::new());
    folder.file("p", 0o644, "");
    fs::create_dir(other.path().join("p")).expect("a folder");
    let path = std::env::join_paths([folder.path(), other.path(), Path::new("/nonexistent")]).expect("a path");
    let environment = environment("ADD").with("CNI_PATH", path);
    let error = Delegate::new(&environment).del("p", b"{}").expect_err("nothing to run");
    let expected = format!(
        "no executable \"p\" in CNI_PATH, searched: {} (not executable), {} (not a regular file), /nonexistent",
        folder.path().display(),
        other.path().display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(CniError::from(error).code, ErrorCode::InvalidConfig);
    let error = Delegate::new(&environment.with("CNI_PATH", "")).del("p", b"{}").expect_err("nothing to run");
    assert_eq!(error.to_string(), "no executable \"p\" in CNI_PATH, searched: nothing, CNI_PATH is empty");
}

#[test]
fn types_that_leave_the_folder_are_refused() {
    let folder = Folder::new().link("true", "/bin/true");
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    symlink("/bin/true", folder.path().join("sub/true")).expect("a link");
    let environment = folder.environment("DEL");
    for plugin_type in ["", ".", "..", "/bin/true", "sub/true", "../true", "true/", "./true", "a\0b"] {
        let error = Delegate::new(&environment).del(plugin_type, b"{}").expect_err(plugin_type);
        assert_eq!(error.to_string(), format!("plugin type {plugin_type:?} is not a file name"));
        assert_eq!(CniError::from(error).code, ErrorCode::InvalidConfig);
    }
    Delegate::new(&environment).del("true", b"{}").expect("success");
}

#[test]
fn what_cannot_be_started_is_named() {
    let folder = Folder::new();
    let program = folder.file("p", 0o755, "#!/nonexistent/interpreter\n");
    let error = CniError::from(exec(&program, &environment("ADD"), b"").expect_err("nothing to run"));
    assert_eq!(error.code, ErrorCode::Io);
    assert_eq!(error.msg, format!("failed to start {}", program.display()));
    assert_eq!(error.details, "No such file or directory (os error 2)");
}

/// The reference `static` and `host-local` plugins, as Debian packages them.
mod reference {
    use super::*;

    const PATH: &str = "/usr/lib/cni";

    #[test]
    fn static_addresses() {
        let environment = environment("ADD").with("CNI_PATH", PATH);
        for version in SpecVersion::ALL.into_iter().filter(|version| *version < SpecVersion::V1_1_0) {
            let config = json!({ "cniVersion": version.as_str(), "name": "n", "type": "t", "ipam": { "type": "static",
                "addresses": [{ "address": "10.0.0.5/24", "gateway": "10.0.0.1" }, { "address": "fd00::5/64" }],
                "routes": [{ "dst": "0.0.0.0/0" }], "dns": { "domain": "example.net" } } });
            let result = Delegate::new(&environment)
                .add("static", config.to_string().as_bytes(), version)
                .unwrap_or_else(|error| panic!("{version}: {error}"));
            let ips = [
                crate::results::ip("10.0.0.5/24", Some("10.0.0.1"), None),
                crate::results::ip("fd00::5/64", None, None),
            ];
            assert_eq!(result.ips, ips, "{version}");
            assert_eq!(result.routes.len(), 1, "{version}");
            assert_eq!(result.dns.domain.as_deref(), Some("example.net"), "{version}");
            Delegate::new(&environment).del("static", config.to_string().as_bytes()).expect("success");
        }
    }

    #[test]
    fn errors_of_host_local() {
        let environment = environment("ADD").with("CNI_PATH", PATH);
        let config = json!({ "cniVersion": "1.0.0", "name": "n", "type": "t", "ipam": { "type": "host-local" } });
        let add = |config: &str| {
            let answer = Delegate::new(&environment).add("host-local", config.as_bytes(), SpecVersion::V1_0_0);
            match answer {
                Err(DelegateError::Failed(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        let error = add(&config.to_string());
        assert_eq!((error.code, error.msg.as_str()), (ErrorCode::INTERNAL, "no IP ranges specified"));
        let error = add(r#"{"cniVersion":"9.9.9","name":"n","type":"t"}"#);
        assert_eq!(error.code, ErrorCode::IncompatibleVersion);
    }

    #[test]
    fn host_local_leases_and_releases() {
        let state = tempfile::tempdir().expect("a folder");
        let environment = environment("ADD").with("CNI_PATH", PATH);
        let config = json!({ "cniVersion": "1.0.0", "name": "n", "type": "t", "ipam": { "type": "host-local",
            "dataDir": state.path(), "ranges": [[{ "subnet": "10.1.2.0/24" }]] } })
        .to_string();
        let delegate = Delegate::new(&environment);
        let result = delegate.add("host-local", config.as_bytes(), SpecVersion::V1_0_0).expect("a lease");
        assert_eq!(result.ips, [crate::results::ip("10.1.2.2/24", Some("10.1.2.1"), None)]);
        delegate.check("host-local", config.as_bytes()).expect("a lease to be found");
        delegate.del("host-local", config.as_bytes()).expect("a release");
        delegate.check("host-local", config.as_bytes()).expect_err("no lease");
    }

    /// `portmap` without ports prints `prevResult` as its own types understand it: what we write is what the
    /// reference would have written.
    #[test]
    fn our_results_pass_through_unchanged() {
        let environment = environment("ADD").with("CNI_PATH", PATH);
        for version in SpecVersion::ALL.into_iter().filter(|version| *version < SpecVersion::V1_1_0) {
            for result in [crate::results::full(), crate::results::one_address()] {
                let written = result.to_json(version).expect("a document");
                let config = json!({ "cniVersion": version.as_str(), "name": "n", "type": "portmap",
                    "prevResult": written });
                let output = exec(&Path::new(PATH).join("portmap"), &environment, config.to_string().as_bytes())
                    .unwrap_or_else(|error| panic!("{version}: {error}"));
                let mut again: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
                // Releases of the reference before spec 1.1.0 printed an empty `dns` under 1.0.0 as well.
                if version == SpecVersion::V1_0_0 && again["dns"] == json!({}) {
                    again.as_object_mut().expect("an object").remove("dns");
                }
                assert_eq!(again, written, "{version}");
            }
        }
    }
}

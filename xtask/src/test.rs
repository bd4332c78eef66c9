//! `cargo xtask test`: everything that must hold before a change is taken in.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::error::Error;
use crate::machine::Machine;
use crate::program::{self, command, root};
use crate::{bench, build, complain, conformance, demo, dist, firewalls, packages, runtimes, say};

/// Shown below `--help`.
pub const EXAMPLES: &str = "Examples:
  cargo xtask test                     all steps, as CI runs them
  cargo xtask test --step conformance  one step, with the executables built";

/// `cargo-deny`, at the version whose config format `deny.toml` has.
const DENY_VERSION: &str = "0.20.2";

/// The reference plugin that can stand in for each of ours.
const SWAPS: [&str; 3] = ["ptp", "host-local", "portmap"];

#[derive(clap::Args)]
pub struct Options {
    /// Run only the steps whose name contains this.
    #[arg(long)]
    step: Option<String>,
}

/// What a step could not do for this user, and why.
type Skipped = Option<String>;
type Step = (&'static str, fn(&Path) -> Result<Skipped, Error>);

const STEPS: [Step; 11] = [
    ("formatting", |_| whole(program::run(command("cargo").args(["fmt", "--all", "--check"])))),
    ("lints", |_| {
        whole(program::run(command("cargo").args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "--deny",
            "warnings",
        ])))
    }),
    ("documentation", |_| {
        whole(program::run(
            command("cargo")
                .args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
                .env("RUSTDOCFLAGS", "--deny warnings"),
        ))
    }),
    ("dependency policy", |_| whole(dependency_policy())),
    ("tests", tests),
    ("conformance", |folder| whole(conformance::ours(folder))),
    ("demo", |folder| whole(demos(folder))),
    ("demo as an ordinary user", |folder| whole(demo_as_user(folder))),
    ("runtimes", runtimes::all),
    ("archive", |folder| whole(dist::pack_and_check(folder))),
    ("benchmarks", |folder| whole(bench::try_all(folder))),
];

/// Runs the steps in order, those after one that failed too, so that one run tells all that is wrong.
pub fn run(options: &Options) -> Result<(), Error> {
    packages::ensure(packages::TEST)?;
    let before = Machine::observe()?;
    let folder = build::executables()?;
    let (mut skipped, mut failed) = (Vec::new(), Vec::new());
    let wanted = |name: &str| options.step.as_deref().is_none_or(|part| name.contains(part));
    for (name, step) in STEPS.iter().filter(|(name, _)| wanted(name)) {
        say(&format!("\n=== {name}"));
        let start = Instant::now();
        let result = step(&folder);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(reason) => {
                if let Some(reason) = reason {
                    skipped.push(format!("skipped: {name}: {reason}"));
                    say(&format!("skipped: {reason}"));
                }
                say(&format!("=== {name}: ok, {seconds:.1} s"));
            }
            Err(error) => {
                complain(&error);
                say(&format!("=== {name}: FAILED, {seconds:.1} s"));
                failed.push(*name);
            }
        }
    }
    skipped.iter().for_each(|line| say(&format!("\n{line}")));
    before.unchanged()?;
    if !failed.is_empty() {
        return Err(Error::Steps { failed: failed.join(", ") });
    }
    say("\nthe machine's own addresses, routes, rules and settings are as they were");
    Ok(())
}

fn whole(done: Result<(), Error>) -> Result<Skipped, Error> {
    done.map(|()| None)
}

/// Two at a time on each core: most of a test's time is the kernel's, which makes and ends namespaces in the background.
fn tests(folder: &Path) -> Result<Skipped, Error> {
    let skipped = match firewalls::unpack() {
        Err(error) if !nix::unistd::geteuid().is_root() => {
            Some(format!("beside firewalld and ufw themselves: {error}"))
        }
        done => whole(done)?,
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut test = command("cargo");
    test.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    program::run(test.env("PODWIRE_BIN_DIR", folder).env("RUST_TEST_THREADS", (2 * cores).to_string()))?;
    Ok(skipped)
}

/// Licences, bans and sources. Advisories need a database that is fetched from elsewhere: `cargo deny check`
/// without arguments looks at them too.
fn dependency_policy() -> Result<(), Error> {
    let tools = root().join("target/tools");
    let deny = tools.join("bin/cargo-deny");
    if !deny.is_file() {
        say(&format!("installing cargo-deny {DENY_VERSION} into target/tools, once"));
        let mut install = command("cargo");
        install
            .args(["install", "--locked", "--quiet", "--version", DENY_VERSION, "--root"])
            .arg(&tools)
            .arg("cargo-deny");
        program::run(&mut install)?;
    }
    program::run(command(deny).args(["--locked", "check", "licenses", "bans", "sources"]))
}

/// With our chain, then with each reference plugin in the place of ours.
fn demos(folder: &Path) -> Result<(), Error> {
    demo::run_with(folder, &[])?;
    demo::run_with(folder, &["--nodes", "3"])?;
    for swap in SWAPS {
        say(&format!("\n--- with the reference {swap}"));
        demo::run_with(folder, &["--swap", swap])?;
    }
    Ok(())
}

/// Root shows that it works for nobody special, from copies that anybody can read.
fn demo_as_user(folder: &Path) -> Result<(), Error> {
    const NOBODY: &str = "65534";
    if !nix::unistd::geteuid().is_root() {
        say("this whole run is by an ordinary user");
        return Ok(());
    }
    let copy =
        tempfile::tempdir().map_err(|source| file_error("make a folder below", &std::env::temp_dir(), source))?;
    open_to_all(copy.path())?;
    for program in ["podwire-demo", "podwire", "podwire-ipam", "ipam", "podwire-portmap"] {
        let (from, to) = (folder.join(program), copy.path().join(program));
        fs::copy(&from, &to).map_err(|source| file_error("copy", &from, source))?;
        // They were built by somebody whose umask may keep others out.
        open_to_all(&to)?;
    }
    let mut demo = command("setpriv");
    demo.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    demo.arg(copy.path().join("podwire-demo")).arg("--plugin-dir").arg(copy.path()).current_dir(copy.path());
    program::run(&mut demo)
}

fn open_to_all(path: &Path) -> Result<(), Error> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path, mode).map_err(|source| file_error("open", path, source))
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}

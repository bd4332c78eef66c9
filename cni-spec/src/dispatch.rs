//! One process, one request: environment and standard input in, one JSON document out.

use std::io::{self, IsTerminal, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::log::{Call, Facts, Settings};
use crate::{CniError, Environment, ErrorCode, Plugin, SpecVersion};

mod parameters;
mod request;
mod verb;

use verb::Verb;

/// The world of one request.
pub struct Io<'a> {
    /// All environment variables.
    pub environment: Environment,
    /// Brings the network config.
    pub stdin: &'a mut dyn Read,
    /// Takes the one JSON document: result or error.
    pub stdout: &'a mut dyn Write,
    /// Takes remarks for people.
    pub stderr: &'a mut dyn Write,
    /// Whether failures go to the machine's journal unless the config names a log.
    pub journal: bool,
}

/// What a runtime sets besides the command, for every verb about a container.
const CONTAINER_VARIABLES: [&str; 3] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];

/// Serves the request of this process: `fn main() -> ExitCode { dispatch::main(&MyPlugin) }`.
pub fn main<P: Plugin>(plugin: &P) -> ExitCode {
    let environment = Environment::of_process();
    // Somebody who asks for the version by hand has nothing to type in.
    let by_hand = environment.get("CNI_COMMAND").is_some_and(|command| command == "VERSION");
    let stdin: &mut dyn Read = if by_hand && io::stdin().is_terminal() { &mut io::empty() } else { &mut io::stdin() };
    run(plugin, Io { environment, stdin, stdout: &mut io::stdout(), stderr: &mut io::stderr(), journal: true })
}

/// Serves one request. Exit code 0 is success, 1 failure (spec section 2, "Errors").
pub fn run<P: Plugin>(plugin: &P, io: Io<'_>) -> ExitCode {
    let Io { environment, stdin, stdout, stderr, journal } = io;
    let Some(command) = environment.get("CNI_COMMAND").map(|command| command.to_string_lossy().into_owned()) else {
        if CONTAINER_VARIABLES.iter().all(|name| environment.get(name).is_none()) {
            return introduce(plugin, stderr);
        }
        // Nobody sets these by hand: a runtime forgot to say what it wants.
        let error =
            CniError::new(ErrorCode::InvalidEnvironment, "invalid environment: CNI_COMMAND is missing or empty");
        return print(Err(error), SpecVersion::LATEST, stdout, stderr);
    };
    let mut bytes = Vec::new();
    let read = stdin.read_to_end(&mut bytes);
    let spoken = spoken_version(&bytes, SpecVersion::V0_1_0);
    let answer = command.parse().and_then(|verb| match read {
        Err(error) if verb != Verb::Version => Err(unreadable(&error)),
        _ => logged(plugin, verb, environment, bytes, stderr, journal),
    });
    print(answer, spoken, stdout, stderr)
}

/// Serves a verb and writes down how that ended. Wrong settings of the log do not keep DEL and GC from cleaning up.
fn logged<P: Plugin>(
    plugin: &P,
    verb: Verb,
    environment: Environment,
    bytes: Vec<u8>,
    stderr: &mut dyn Write,
    journal: bool,
) -> Result<Option<Value>, CniError> {
    if verb == Verb::Version {
        return Ok(Some(version_info(&bytes)));
    }
    let config = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let settings = match Settings::of(&environment, &config) {
        Err(error) if !matches!(verb, Verb::Del | Verb::Gc) => return Err(error),
        settings => settings.unwrap_or_default(),
    };
    let facts = Facts::of(verb.as_str(), &environment, &config);
    let environment = facts.hand_on(environment);
    let call = Call::begin(&settings, &facts, journal, stderr);
    let answer = call.serve(|| serve(plugin, verb, environment, bytes, stderr));
    call.end(&answer);
    answer
}

/// Without a command and a container there is no request: somebody runs the executable by hand.
fn introduce<P: Plugin>(plugin: &P, stderr: &mut dyn Write) -> ExitCode {
    match writeln!(stderr, "{}\nCNI spec, {}", plugin.about(), SpecVersion::supported()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The `cniVersion` of a request that may be broken: `unsaid` if a JSON object has none, the newest if what it
/// has is unreadable or unknown.
fn spoken_version(bytes: &[u8], unsaid: SpecVersion) -> SpecVersion {
    let Ok(Value::Object(config)) = serde_json::from_slice(bytes) else { return SpecVersion::LATEST };
    match config.get("cniVersion") {
        None | Some(Value::Null) => unsaid,
        Some(Value::String(text)) if text.is_empty() => unsaid,
        Some(stated) => stated.as_str().and_then(|text| text.parse().ok()).unwrap_or(SpecVersion::LATEST),
    }
}

/// Spec section 5, "VERSION": `cniVersion` is the one of the request.
fn version_info(bytes: &[u8]) -> Value {
    let version = spoken_version(bytes, SpecVersion::LATEST);
    json!({ "cniVersion": version.as_str(), "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str) })
}

fn unreadable(error: &io::Error) -> CniError {
    CniError::new(ErrorCode::Io, "failed to read the network config from standard input")
        .with_details(error.to_string())
}

fn serve<P: Plugin>(
    plugin: &P,
    verb: Verb,
    environment: Environment,
    bytes: Vec<u8>,
    stderr: &mut dyn Write,
) -> Result<Option<Value>, CniError> {
    match verb {
        Verb::Add => {
            let request = request::add(environment, bytes)?;
            let result = guarded(|| plugin.add(&request))?;
            Ok(Some(result.to_json(request.config.cni_version)?))
        }
        Verb::Del => {
            let request = request::del(environment, bytes, stderr)?;
            guarded(|| plugin.del(&request)).map(|()| None)
        }
        Verb::Check => {
            let request = request::check(environment, bytes)?;
            guarded(|| plugin.check(&request)).map(|()| None)
        }
        Verb::Gc => {
            let request = request::gc(environment, bytes)?;
            guarded(|| plugin.gc(&request)).map(|()| None)
        }
        Verb::Status => {
            let request = request::status(environment, bytes)?;
            guarded(|| plugin.status(&request)).map(|()| None)
        }
        Verb::Version => Ok(Some(version_info(&bytes))),
    }
}

/// Runs a verb of the plugin; its panic is an error like any other, so that the runtime gets a document.
fn guarded<T, E: Into<CniError>>(verb: impl FnOnce() -> Result<T, E>) -> Result<T, CniError> {
    // Nothing of what the plugin touched is used after a panic, except to print the error.
    catch_unwind(AssertUnwindSafe(|| verb().map_err(Into::into))).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(CniError::new(ErrorCode::INTERNAL, "the plugin panicked: this is a bug").with_details(text))
    })
}

/// Prints the answer; what cannot be printed has failed.
fn print(
    answer: Result<Option<Value>, CniError>,
    spoken: SpecVersion,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> ExitCode {
    let (document, code) = match answer {
        Ok(document) => (document, ExitCode::SUCCESS),
        Err(error) => (Some(error.to_json(spoken.as_str())), ExitCode::FAILURE),
    };
    let Some(document) = document else { return code };
    match stdout.write_all(format!("{document}\n").as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(error) => {
            // Standard error is all that is left; if it is closed as well, the exit code must do.
            let _ = writeln!(stderr, "failed to print the answer: {error}");
            ExitCode::FAILURE
        }
    }
}

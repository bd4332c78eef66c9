//! nft(8), asked and told.

use std::io::Write;
use std::process::Stdio;

use nft_model::{Family, Table};

/// Runs nft(8) with text on its standard input; its output, or what it complains about.
pub fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = sandbox::command("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nft starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).expect("text")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Loads text that must be good.
pub fn load(text: &str) {
    nft(&["-f", "-"], text).unwrap_or_else(|complaint| panic!("nft -f: {complaint}\n{text}"));
}

/// Lists a table that must be there, without what counters have counted.
pub fn list(family: Family, name: &str) -> String {
    list_with(&["-s"], family, name)
}

/// Lists a table with options of nft(8).
pub fn list_with(options: &[&str], family: Family, name: &str) -> String {
    let family = family.to_string();
    let arguments = [options, &["list", "table", &family, name]].concat();
    nft(&arguments, "").unwrap_or_else(|complaint| panic!("nft list: {complaint}"))
}

/// Forgets everything.
pub fn flush() {
    nft(&["flush", "ruleset"], "").expect("flush");
}

/// Text with the elements of each set on one line and sorted: their order is the kernel's business.
pub fn sorted(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("elements = {") {
        let (elements, behind) = after.split_once(" }\n").expect("elements end");
        let mut elements: Vec<_> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        result += &format!("{before}elements = {{ {} }}\n", elements.join(", "));
        rest = behind;
    }
    result + rest
}

/// What nft(8) sees of a table: its listing, sorted, and the instructions of its rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub listing: String,
    pub json: String,
    pub instructions: Vec<String>,
}

/// Asks nft(8) about a table in every way.
pub fn see(table: &Table) -> Seen {
    let (family, name) = (table.family(), table.name());
    let debugged = list_with(&["--debug=netlink"], family, name);
    let instructions = debugged.lines().filter(|line| line.starts_with("  [")).map(str::to_owned).collect();
    Seen { listing: sorted(&list(family, name)), json: json(family, name), instructions }
}

/// The JSON listing without what differs each time: handles, and the order of elements.
fn json(family: Family, name: &str) -> String {
    let text = list_with(&["-j"], family, name);
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    normalise(&mut value);
    value.to_string()
}

fn normalise(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.remove("handle");
            map.values_mut().for_each(normalise);
            if let Some(serde_json::Value::Array(elements)) = map.get_mut("elem") {
                elements.sort_by_key(ToString::to_string);
            }
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(normalise),
        _ => {}
    }
}

//! Kernels that lack a piece of nf_tables. Such a kernel cannot be had here; but this one lacks pieces of other names. So
//! strace(1) changes one letter of a name in what STATUS sends, and the kernel itself refuses what it does not know.

use std::fs;

use crate::common::plugin::{Answer, ruleset, run};
use data_encoding::HEXLOWER;
use sandbox::private_host;

const LOG: &str = "/run/strace";
const CONFIG: &str = r#"{ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" }"#;

fn traced_status(arguments: &[&str]) -> (Answer, String) {
    let mut strace = sandbox::command("strace");
    strace.args(["--quiet=all", "--output", LOG, "--trace=sendto"]).args(arguments);
    strace.arg(env!("CARGO_BIN_EXE_podwire-portmap"));
    let answer = Answer::of(&run(strace, "STATUS", &[], CONFIG));
    (answer, fs::read_to_string(LOG).unwrap())
}

/// All that it sends, from the dumps that strace(1) makes of it: ` | 00000  14 00 ...`.
fn messages() -> Vec<Vec<u8>> {
    let (answer, log) = traced_status(&["--write=all"]);
    answer.ok();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for line in log.lines() {
        if line.starts_with("sendto(") {
            messages.push(Vec::new());
        }
        if let (Some(dump), Some(message)) = (line.strip_prefix(" | "), messages.last_mut()) {
            let digits = dump.get(7..56).unwrap().chars().filter(|c| !c.is_whitespace()).collect::<String>();
            message.extend(HEXLOWER.decode(digits.as_bytes()).unwrap());
        }
    }
    messages
}

#[test]
fn status_names_a_piece_that_the_kernel_lacks() {
    private_host(|| {
        let messages = messages();
        // `NFTA_CHAIN_TYPE`, as far into the message as strace(1) can change it.
        let wanted = b"\x07\0nat\0";
        let place = |message: &Vec<u8>| message.windows(wanted.len()).position(|part| part == wanted);
        let (n, at) = (1..).zip(&messages).find_map(|(n, message)| Some((n, place(message)?))).unwrap();
        let changed = [&messages[n - 1][..at + 2], b"x"].concat();
        let inject = format!("--inject=sendto:poke_enter=@arg2={}:when={n}", HEXLOWER.encode(&changed));
        let (code, msg, details) = traced_status(&[&inject]).0.failed();
        assert_eq!((code, msg.as_str()), (50, "no host port can be mapped"));
        let expected = "the kernel has no nft_chain_nat (CONFIG_NFT_NAT, CONFIG_NF_NAT), which host ports need: ";
        assert!(details.starts_with(expected), "{details}");
        assert_eq!(ruleset(), "");
    });
}

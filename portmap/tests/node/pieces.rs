//! Kernels that lack a piece of nf_tables or of iptables. Such a kernel cannot be had here; but this one lacks pieces of
//! other names. So strace(1) changes one letter of a name in what STATUS asks, and the kernel itself does not know it.

use std::fs;

use crate::common::backend::Backend;
use crate::common::plugin::{Answer, ruleset, run};
use data_encoding::HEXLOWER;
use sandbox::private_host;
use serde_json::json;

on_iptables!(status_names_a_match_or_target_that_the_kernel_lacks,);

const LOG: &str = "/run/strace";

fn traced_status(backend: Backend, arguments: &[&str]) -> (Answer, String) {
    let config = json!({
        "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap", "backend": backend.key(),
    });
    let mut strace = sandbox::command("strace");
    strace.args(["--quiet=all", "--output", LOG]).args(arguments);
    strace.arg(env!("CARGO_BIN_EXE_podwire-portmap"));
    let answer = Answer::of(&run(strace, "STATUS", &[], &config.to_string()));
    (answer, fs::read_to_string(LOG).unwrap())
}

/// All that it sends, from the dumps that strace(1) makes of it: ` | 00000  14 00 ...`.
fn messages(backend: Backend) -> Vec<Vec<u8>> {
    let (answer, log) = traced_status(backend, &["--trace=sendto", "--write=all"]);
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

/// What strace(1) has to do so that a message with `wanted` has an `x` there, `skipped` bytes on. That is as far into the
/// message as it can change it.
fn misspelt(backend: Backend, wanted: &[u8], skipped: usize) -> String {
    let messages = messages(backend);
    let place = |message: &Vec<u8>| message.windows(wanted.len()).position(|part| part == wanted);
    let (n, at) = (1..).zip(&messages).find_map(|(n, message)| Some((n, place(message)?))).unwrap();
    let changed = [&messages[n - 1][..at + skipped], b"x"].concat();
    format!("--inject=sendto:poke_enter=@arg2={}:when={n}", HEXLOWER.encode(&changed))
}

/// The same for a question by getsockopt(2), of which the name is the beginning.
fn misspelt_option(backend: Backend, wanted: &str) -> String {
    let (answer, log) = traced_status(backend, &["--trace=getsockopt"]);
    answer.ok();
    let questions = log.lines().filter(|line| line.starts_with("getsockopt("));
    let n = (1..).zip(questions).find_map(|(n, line)| line.contains(&format!("\"{wanted}\\0")).then_some(n)).unwrap();
    format!("--inject=getsockopt:poke_enter=@arg4={}:when={n}", HEXLOWER.encode(b"x"))
}

#[track_caller]
fn refused(backend: Backend, inject: &str) -> String {
    let (code, msg, details) = traced_status(backend, &["--trace=sendto,getsockopt", inject]).0.failed();
    assert_eq!((code, msg.as_str()), (50, "no host port can be mapped"));
    assert_eq!(ruleset(), "");
    details
}

#[test]
fn status_names_a_piece_that_the_kernel_lacks() {
    private_host(|| {
        for backend in [Backend::Nftables, Backend::IptablesNft] {
            // `NFTA_CHAIN_TYPE`.
            let details = refused(backend, &misspelt(backend, b"\x07\0nat\0", 2));
            let expected = "the kernel has no nft_chain_nat (CONFIG_NFT_NAT, CONFIG_NF_NAT), which host ports need: ";
            assert!(details.starts_with(expected), "{details}");
        }
    });
}

fn status_names_a_match_or_target_that_the_kernel_lacks(backend: Backend) {
    let flavour = backend.iptables().trim_start_matches("iptables-");
    for (name, piece) in [
        ("addrtype", "xt_addrtype (CONFIG_NETFILTER_XT_MATCH_ADDRTYPE)"),
        ("MASQUERADE", "xt_MASQUERADE (CONFIG_NETFILTER_XT_TARGET_MASQUERADE)"),
    ] {
        let inject = match backend {
            Backend::IptablesLegacy => misspelt_option(backend, name),
            _ => misspelt(backend, format!("{name}\0").as_bytes(), 0),
        };
        let expected = format!("the kernel has no {piece}, which host ports need in ip rules of iptables ({flavour})");
        assert_eq!(refused(backend, &inject), expected);
    }
    // What all of them are part of, as on a kernel without nft_compat: the part of netfilter in the type of the message,
    // behind its length.
    if backend == Backend::IptablesNft {
        let details = refused(backend, &misspelt(backend, b"\0\x0b\x01\0", 1));
        assert!(details.starts_with("the kernel has no nft_compat (CONFIG_"), "{details}");
    }
}

/// No question loads them, and an ADD does: a node that nobody has run iptables on has to become ready.
#[test]
fn status_goes_on_where_ip_tables_and_ip6_tables_are_not_loaded() {
    private_host(|| {
        let backend = Backend::IptablesLegacy.prepared();
        match traced_status(backend, &["--trace=getsockopt", "--inject=getsockopt:error=ENOPROTOOPT"]).0 {
            Answer::Ok { stderr, .. } => {
                let told = |piece| stderr.contains(&format!("nothing in the kernel answers for {piece} (CONFIG_"));
                assert!(told("ip_tables") && told("ip6_tables"), "{stderr}");
            }
            failed @ Answer::Failed { .. } => panic!("{failed:?}"),
        }
        assert_eq!(backend.rules(), "");
    });
}

/// strace(1) counts the questions of each thread, and changes the first: that of the thread that asks for a table. The first
/// one of the plugin itself is what it was, as it is about the match of this name.
#[test]
fn status_names_a_table_that_the_kernel_lacks() {
    private_host(|| {
        let backend = Backend::IptablesLegacy.prepared();
        let inject = format!("--inject=getsockopt:poke_enter=@arg4={}:when=1", HEXLOWER.encode(b"comment\0"));
        let (answer, log) = traced_status(backend, &["--follow-forks", "--trace=getsockopt", &inject]);
        let (code, _, details) = answer.failed();
        let expected =
            "the kernel has no iptable_nat (CONFIG_IP_NF_NAT), which host ports need in ip rules of iptables (legacy)";
        assert_eq!((code, details.as_str()), (50, expected), "{log}");
    });
}

//! Many at once: no mapping is ever lost, and none is left.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::backend::Backend;
use crate::common::net::PATIENCE;
use crate::common::plugin::{Answer, Attachment, HELD, by_hand, feed, nft, ruleset};
use kernel::iptables::Turn;
use nft_model::Family;
use portmap::Error;
use portmap::config::Config;
use portmap::firewall::Firewall;
use portmap::ruleset::WILDCARD;
use sandbox::private_host;
use serde_json::json;

on_iptables!(adds_and_dels_of_iptables_in_parallel_lose_nothing,);

fn attachment(number: u32) -> Attachment {
    let addresses = [format!("10.88.{}.{}/32", number / 250, number % 250 + 1), format!("fd88::{number:x}/128")];
    let ports = json!([
        { "hostPort": 10000 + number, "containerPort": 80 },
        { "hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": format!("192.0.2.{}", number % 250 + 1) },
    ]);
    Attachment::on_paper(&format!("c{number}"), &addresses.each_ref().map(String::as_str), &ports)
}

/// Runs all at the same time and waits for them.
fn together(requests: Vec<Box<dyn FnOnce() -> Answer + Send + '_>>) -> Vec<Answer> {
    thread::scope(|scope| {
        let threads: Vec<_> = requests.into_iter().map(|request| scope.spawn(request)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn request<'a>(run: impl FnOnce() -> Answer + Send + 'a) -> Box<dyn FnOnce() -> Answer + Send + 'a> {
    Box::new(run)
}

#[test]
fn forty_adds_and_dels_in_parallel_lose_nothing() {
    private_host(|| {
        let all: Vec<Attachment> = (0..60).map(attachment).collect();
        let (first, later) = all.split_at(40);
        let adds = together(first.iter().map(|one| request(|| one.add())).collect());
        adds.into_iter().for_each(|answer| drop(answer.ok()));
        first.iter().for_each(|one| drop(one.check().ok()));
        // All of the first go while others come.
        let dels = first.iter().map(|one| request(|| one.del()));
        let mixed = together(later.iter().map(|one| request(|| one.add())).chain(dels).collect());
        mixed.into_iter().for_each(|answer| drop(answer.ok()));
        later.iter().for_each(|one| drop(one.check().ok()));
        let listed = ruleset();
        first.iter().for_each(|one| assert!(!listed.contains(&format!(" {} ", one.container)), "{listed}"));
        let dels = together(later.iter().map(|one| request(|| one.del())).collect());
        dels.into_iter().for_each(|answer| drop(answer.ok()));
        assert_eq!(ruleset(), "");
    });
}

/// Whoever has waited long enough for its turn says so and leaves its rules to the next DEL.
fn ended<'a>(all: impl Iterator<Item = &'a Attachment>, answers: Vec<Answer>) {
    for (one, answer) in all.zip(answers) {
        let Answer::Ok { stderr, .. } = answer else { panic!("{answer:?}") };
        if stderr.contains("it is not this process' turn") {
            one.del().ok();
        }
    }
}

/// The same on iptables, where processes take turns.
fn adds_and_dels_of_iptables_in_parallel_lose_nothing(backend: Backend) {
    let all: Vec<Attachment> = (0..18).map(|number| attachment(number).on(backend)).collect();
    let (first, later) = all.split_at(12);
    let adds = together(first.iter().map(|one| request(|| one.add())).collect());
    adds.into_iter().for_each(|answer| drop(answer.ok()));
    let dels = first.iter().map(|one| request(|| one.del()));
    let mut mixed = together(dels.chain(later.iter().map(|one| request(|| one.add()))).collect());
    mixed.split_off(first.len()).into_iter().for_each(|answer| drop(answer.ok()));
    ended(first.iter(), mixed);
    later.iter().for_each(|one| drop(one.check().ok()));
    let listed = backend.rules();
    first.iter().for_each(|one| assert!(!listed.contains(&format!(" {} ", one.container)), "{listed}"));
    // The last rules of all, and those that are nobody's, while one more comes.
    let newcomer = attachment(20).on(backend);
    let dels = later.iter().map(|one| request(|| one.del()));
    let mut mixed = together(dels.chain([request(|| newcomer.add())]).collect());
    mixed.split_off(later.len()).into_iter().for_each(|answer| drop(answer.ok()));
    ended(later.iter(), mixed);
    newcomer.check().ok();
    newcomer.del().ok();
    assert_eq!(backend.rules(), "");
}

#[test]
fn the_last_one_out_does_not_take_a_newcomers_mapping_along() {
    private_host(|| {
        attachment(0).add().ok();
        for number in 0..40 {
            let (old, new) = (attachment(number), attachment(number + 1));
            let answers = together(vec![request(|| old.del()), request(|| new.add())]);
            answers.into_iter().for_each(|answer| drop(answer.ok()));
            new.check().ok();
            assert!(!ruleset().contains(&format!(" {} ", old.container)), "{}", ruleset());
        }
        attachment(40).del().ok();
        assert_eq!(ruleset(), "");
    });
}

/// Processes take so long to start that they seldom meet; these meet all the time.
#[test]
fn whoever_deletes_the_table_has_seen_all_claims() {
    private_host(|| {
        let comes_and_goes = |number: u32| {
            let config = attachment(number).checked();
            let owner = config.owner.comment();
            let is_own = |comment: &str| comment == owner;
            let mut firewall = Firewall::open().unwrap();
            for round in 0..120 {
                firewall.claim(&config, &[]).unwrap();
                let elements = firewall.elements(Family::Ip, WILDCARD).unwrap();
                let own = elements.iter().filter(|element| element.comment.as_deref() == Some(owner));
                assert_eq!(own.count(), 1, "{owner} in round {round}");
                for family in Family::ALL {
                    assert!(firewall.release(family, &is_own, &mut |_, _| true).1.is_empty());
                    let failed = firewall.delete_if_empty(family, &mut |_, _| true);
                    assert!(failed.is_empty(), "{failed:?}");
                }
            }
        };
        thread::scope(|scope| {
            for number in 0..3 {
                scope.spawn(move || comes_and_goes(number));
            }
        });
        assert_eq!(ruleset(), "");
    });
}

/// A runtime may send DEL several times at once, while the port goes to the next pod.
#[test]
fn a_late_del_does_not_end_the_next_holders_mapping() {
    private_host(|| {
        let holder = |number: u32| {
            let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
            let address = format!("10.88.{}.{}/32", number / 250, number % 250 + 1);
            Attachment::on_paper(&format!("c{number}"), &[&address], &ports).checked()
        };
        let claim = |config: &Config| {
            let mut firewall = Firewall::open().unwrap();
            while let Err(error) = firewall.claim(config, &[]) {
                assert!(matches!(error, Error::Held { .. }), "{error}");
            }
        };
        claim(&holder(0));
        for number in 0..200 {
            let (old, new) = (holder(number), holder(number + 1));
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let is_old = |comment: &str| comment == old.owner.comment();
                        assert!(Firewall::open().unwrap().release(Family::Ip, &is_old, &mut |_, _| true).1.is_empty());
                    });
                }
                scope.spawn(|| claim(&new));
            });
            let elements = Firewall::open().unwrap().elements(Family::Ip, WILDCARD).unwrap();
            let holders: Vec<_> = elements.iter().map(|element| element.comment.as_deref().unwrap()).collect();
            assert_eq!(holders, [new.owner.comment()]);
        }
    });
}

#[test]
fn of_many_claimants_of_one_port_one_wins() {
    private_host(|| {
        let claimants: Vec<Attachment> = (0..20)
            .map(|number| {
                let address = format!("10.88.0.{}/32", number + 1);
                let ports = json!([{ "hostPort": 20000 + number, "containerPort": 80 }, { "hostPort": 8080, "containerPort": 80 }]);
                Attachment::on_paper(&format!("c{number}"), &[&address], &ports)
            })
            .collect();
        let answers = together(claimants.iter().map(|one| request(|| one.add())).collect());
        let mut winners = Vec::new();
        for (claimant, answer) in claimants.iter().zip(answers) {
            match answer {
                Answer::Ok { .. } => winners.push(claimant),
                Answer::Failed { code, msg, .. } => {
                    assert_eq!(code, HELD, "{msg}");
                    // A loser has nothing, not even the port that nobody else wanted.
                    assert!(!ruleset().contains(&format!(" {} ", claimant.container)), "{}", ruleset());
                }
            }
        }
        let [winner] = winners.as_slice() else { panic!("{} winners", winners.len()) };
        winner.check().ok();
        winner.del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_runtime_that_sends_del_three_times_at_once_is_served() {
    private_host(|| {
        for number in 0..10 {
            let one = attachment(number);
            one.add().ok();
            let answers = together((0..3).map(|_| request(|| one.del())).collect());
            answers.into_iter().for_each(|answer| drop(answer.ok()));
            assert_eq!(ruleset(), "");
        }
    });
}

#[test]
fn attachments_that_replace_their_lost_selves_in_parallel_all_end_well() {
    private_host(|| {
        let all: Vec<Attachment> = (0..12).map(attachment).collect();
        all.iter().for_each(|one| drop(one.add().ok()));
        let changed: Vec<Attachment> = (0..12)
            .map(|number| {
                let mut one = attachment(number);
                one.config["runtimeConfig"]["portMappings"][0]["containerPort"] = json!(8080);
                one
            })
            .collect();
        let answers = together(changed.iter().map(|one| request(|| one.add())).collect());
        answers.into_iter().for_each(|answer| drop(answer.ok()));
        changed.iter().for_each(|one| drop(one.check().ok()));
    });
}

/// Neither sees the other before it claims.
#[test]
fn of_two_claimants_in_two_backends_never_both_win() {
    private_host(|| {
        let claimant = |id: &str, number: u8, backend: Backend| {
            let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
            Attachment::on_paper(id, &[&format!("10.88.0.{number}/32")], &ports).on(backend)
        };
        let mut rounds_with_a_winner = 0;
        for backend in [Backend::IptablesNft, Backend::Nftables, Backend::IptablesNft] {
            let other = if backend == Backend::Nftables { Backend::IptablesNft } else { Backend::Nftables };
            for _ in 0..6 {
                let all = [claimant("c1", 2, backend), claimant("c2", 3, other), claimant("c3", 4, backend)];
                let answers = together(all.iter().map(|one| request(|| one.add())).collect());
                let mut winners = Vec::new();
                for (claimant, answer) in all.iter().zip(answers) {
                    match answer {
                        Answer::Ok { .. } => winners.push(claimant),
                        Answer::Failed { code, msg, .. } => {
                            assert_eq!(code, HELD, "{msg}");
                            let rules = ruleset();
                            assert!(!rules.contains(&format!(" {} ", claimant.container)), "{rules}");
                        }
                    }
                }
                assert!(winners.len() <= 1, "{} winners", winners.len());
                rounds_with_a_winner += winners.len();
                winners.iter().for_each(|winner| drop(winner.check().ok()));
                all.iter().for_each(|one| drop(one.del().ok()));
                assert_eq!(
                    (Backend::Nftables.rules().contains("odwire"), Backend::IptablesNft.rules().as_str()),
                    (false, "")
                );
            }
        }
        // Each may see the other, and then both are refused; the next one is not.
        assert!(rounds_with_a_winner > 0);
    });
}

/// A flushed firewall is filled again while somebody else claims the port in the other backend.
#[test]
fn reconcile_and_a_claimant_in_another_backend_never_both_win() {
    private_host(|| {
        let claimant = |id: &str, number: u8, backend: Backend| {
            let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
            Attachment::on_paper(id, &[&format!("10.88.0.{number}/32")], &ports).on(backend)
        };
        let holds = |id: &str| by_hand("list -o json").1.contains(&format!("\"{id}\""));
        for (one, other) in
            [(Backend::Nftables, Backend::IptablesNft), (Backend::IptablesNft, Backend::Nftables)].repeat(6)
        {
            let (old, new) = (claimant("c1", 2, one), claimant("c2", 3, other));
            old.add().ok();
            one.flush();
            let (_, answer) = thread::scope(|scope| {
                let reconciled = scope.spawn(|| by_hand("reconcile"));
                let answer = new.add();
                (reconciled.join().unwrap(), answer)
            });
            let added = match answer {
                Answer::Ok { .. } => true,
                Answer::Failed { code, msg, .. } => {
                    assert_eq!(code, HELD, "{msg}");
                    false
                }
            };
            assert_eq!(holds("c2"), added);
            assert!(!(added && holds("c1")), "{}", ruleset());
            [&old, &new].into_iter().for_each(|one| drop(one.del().ok()));
            assert!(!holds("c1") && !holds("c2"), "{}", ruleset());
        }
    });
}

/// The moment between the claim of `reconcile` and its second look, made long by its turn, which it waits for.
#[test]
fn reconcile_gives_a_port_back_that_was_claimed_elsewhere_meanwhile() {
    private_host(|| {
        let claimant = |number: u8, port: u16, backend: Backend| {
            let ports = json!([{ "hostPort": port, "containerPort": 80 }]);
            Attachment::on_paper(&format!("c{number}"), &[&format!("10.88.0.{number}/32")], &ports).on(backend)
        };
        let (other, beside) = (claimant(2, 8080, Backend::IptablesNft), claimant(3, 9090, Backend::IptablesNft));
        beside.add().ok();
        other.add().ok();
        let saved = sandbox::command("iptables-nft-save").output().unwrap();
        other.del().ok();
        let own = claimant(4, 8080, Backend::Nftables);
        own.add().ok();
        nft(&["delete", "table", "ip", "podwire-hostport"]);
        let claimed = || Backend::Nftables.rules().contains("comment \"podnet c4 eth0\"");
        let turn = Turn::take(Path::new("/run/podwire/iptables.lock")).unwrap();
        let (code, shown, _) = thread::scope(|scope| {
            let reconciled = scope.spawn(|| by_hand("reconcile"));
            let end = Instant::now() + PATIENCE;
            while !claimed() {
                assert!(Instant::now() < end);
                thread::sleep(Duration::from_millis(2));
            }
            feed("iptables-nft-restore", &[], std::str::from_utf8(&saved.stdout).unwrap());
            drop(turn);
            reconciled.join().unwrap()
        });
        assert_eq!(code, 1, "{shown}");
        let told = "podnet c4 eth0: failed: host port 8080/tcp on every IPv4 address is held by container c2 (eth0)";
        assert!(shown.contains(told), "{shown}");
        assert!(!claimed(), "{}", Backend::Nftables.rules());
        beside.check().ok();
    });
}

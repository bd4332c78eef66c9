//! `ipam.resolvConf`: a file as in resolv.conf(5).

use cni_spec::Dns;

/// Of `domain` the last counts, of `search` the last line, of `options` and `nameserver` all, as in
/// resolv.conf(5). Unknown keywords are passed over, as the resolver does.
pub(super) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        if line.starts_with([';', '#']) {
            continue;
        }
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let mut values = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => dns.nameservers.extend(values.take(1)),
            Some("domain") => dns.domain = values.next_back().or(dns.domain),
            Some("search") => dns.search = values.collect(),
            Some("options") => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_everything() {
        let dns = parse(
            "# made by hand\nnameserver 10.96.0.10\n; old: nameserver 10.0.0.1\nnameserver fd00::a extra\n\
             domain cluster.local\nsearch old.example\nsearch default.svc.cluster.local  svc.cluster.local\n\
             options ndots:5\noptions timeout:1 attempts:2\nsortlist 10.0.0.0\n\n",
        );
        let expected = Dns {
            nameservers: vec!["10.96.0.10".into(), "fd00::a".into()],
            domain: Some("cluster.local".into()),
            search: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into(), "timeout:1".into(), "attempts:2".into()],
        };
        assert_eq!(dns, expected);
        assert_eq!(parse(""), Dns::default());
    }
}

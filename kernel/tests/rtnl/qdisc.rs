use kernel::rtnl::{Rtnl, Shaped, TokenBucket};
use sandbox::{command, private_host};
use serde_json::Value;

use crate::oracle::{index_of, set};

fn tbf(dev: &str) -> Value {
    let output = command("tc").args(["-j", "qdisc", "show", "dev", dev]).output().expect("tc is installed");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("tc -j prints JSON");
    shown[0].clone()
}

#[test]
fn a_token_bucket_is_set_replaced_and_read() {
    private_host(|| {
        set("link add left type veth peer name right");
        let rtnl = Rtnl::open().unwrap();
        let left = index_of("left");
        assert_eq!(rtnl.shaped(left).unwrap(), None);
        for bucket in [
            TokenBucket { rate: 1_250_000, burst: 64_000, limit: 100_000 },
            // More than 32 bits of bytes per second, and a rate that is whole in neither unit.
            TokenBucket { rate: 5_000_000_001, burst: 1_000_000, limit: 2_000_000_000 },
            TokenBucket { rate: 1_000, burst: 2_000, limit: 2_000 },
        ] {
            rtnl.shape(left, &bucket).unwrap();
            let shown = tbf("left");
            assert_eq!(shown["kind"], "tbf", "{shown}");
            assert_eq!(shown["options"]["rate"], bucket.rate, "bytes per second: {shown}");
            // The kernel keeps a burst as the time that it takes, and tc counts in microseconds.
            let burst = shown["options"]["burst"].as_u64().unwrap();
            assert!(burst.abs_diff(u64::from(bucket.burst)) <= 1 + bucket.rate / 1_000_000, "{shown}");
            assert_eq!(rtnl.shaped(left).unwrap(), Some(Shaped { rate: bucket.rate, limit: bucket.limit }));
        }
        assert_eq!(rtnl.shaped(4711).unwrap(), None, "no such interface");
        rtnl.shape(4711, &TokenBucket { rate: 1, burst: 1, limit: 1 }).unwrap_err();
    });
}

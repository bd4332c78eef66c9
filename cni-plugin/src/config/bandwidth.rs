//! The `bandwidth` capability (CONVENTIONS.md): rates in bits per second and bursts in bits, as the reference's plugin
//! of that name takes them.

use cni_spec::{CniError, RuntimeConfig};
use serde::Deserialize;
use serde_json::Value;

use super::quantity::quantity;
use super::{annotations, invalid};

/// What Kubernetes documents for plugins that shape.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";

/// What Kubernetes takes for reasonable in them, in bits per second.
const REASONABLE: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// The bucket of a rate without a burst, and the least that one is made with: a whole segment as the kernel hands it on
/// (`GSO_LEGACY_MAX_SIZE`, include/linux/netdevice.h), because what does not fit is cut to pieces first.
const BURST_MIN: u64 = 65_536;

/// The largest bucket, as the time in which it fills: containerd sends 4294967295 bits whatever the rate is, and with a
/// bucket of half a gigabyte a pod is not slowed down for minutes.
const BURSTS_PER_SECOND: u64 = 4;

/// How long a packet may wait, as in the reference: 25 ms.
const WAITS_PER_SECOND: u64 = 40;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Raw {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
}

/// How fast a pod may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Towards the pod.
    pub ingress: Option<Rate>,
    /// From the pod.
    pub egress: Option<Rate>,
}

/// A rate, and how far it may be exceeded for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes.
    pub burst: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

impl Bandwidth {
    /// The config's own keys win over the runtime's, as in the reference, and both over the pod's annotations, from which
    /// runtimes make theirs.
    pub(super) fn of(raw: Raw, runtime: &RuntimeConfig) -> Result<Self, CniError> {
        let (raw, path) = match runtime.get("bandwidth") {
            Some(asked) if raw.is_empty() => (Raw::of_runtime(asked)?, "runtimeConfig.bandwidth."),
            _ => (raw, ""),
        };
        let raw = if raw.is_empty() { Raw::of_annotations(runtime)? } else { raw };
        let rate = |name: &str, rate, burst| Rate::of(&format!("{path}{name}"), rate, burst);
        Ok(Self {
            ingress: rate("ingress", raw.ingress_rate, raw.ingress_burst)?,
            egress: rate("egress", raw.egress_rate, raw.egress_burst)?,
        })
    }
}

impl Raw {
    fn is_empty(&self) -> bool {
        [self.ingress_rate, self.ingress_burst, self.egress_rate, self.egress_burst].iter().all(Option::is_none)
    }

    /// A rate of Kubernetes has no burst; runtimes ask for the largest then, so that is what a wish means here too.
    fn of_annotations(runtime: &RuntimeConfig) -> Result<Self, CniError> {
        let rate = |name: &str| match annotations::get(runtime, name)? {
            None => Ok(None),
            Some((key, text)) => match quantity(text).filter(|rate| REASONABLE.contains(rate)) {
                None => Err(invalid(key, text, "must be bits per second, 1k to 1P, like \"10M\"")),
                rate => Ok(rate),
            },
        };
        let (ingress_rate, egress_rate) = (rate(INGRESS)?, rate(EGRESS)?);
        let burst = |rate: Option<u64>| rate.map(|_| u32::MAX.into());
        Ok(Self { ingress_rate, ingress_burst: burst(ingress_rate), egress_rate, egress_burst: burst(egress_rate) })
    }

    /// Keys in any case: containerd's are Go's (`IngressRate`).
    fn of_runtime(asked: &Value) -> Result<Self, CniError> {
        let object = asked.as_object().ok_or_else(|| invalid("runtimeConfig.bandwidth", asked, "must be an object"))?;
        let number = |name: &str| match object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            None | Some((_, Value::Null)) => Ok(None),
            Some((key, value)) => value.as_u64().map(Some).ok_or_else(|| {
                invalid(format!("runtimeConfig.bandwidth.{key}"), value, "must be a number of bits, 0 or more")
            }),
        };
        Ok(Self {
            ingress_rate: number("ingressRate")?,
            ingress_burst: number("ingressBurst")?,
            egress_rate: number("egressRate")?,
            egress_burst: number("egressBurst")?,
        })
    }
}

impl Rate {
    fn of(key: &str, rate: Option<u64>, burst: Option<u64>) -> Result<Option<Self>, CniError> {
        let (rate, burst) = (rate.unwrap_or(0), burst.unwrap_or(0));
        match (rate, burst) {
            (0, 0) => return Ok(None),
            (0, _) => return Err(invalid(format!("{key}Burst"), burst, "is no limit without a rate")),
            (1..8, _) => return Err(invalid(format!("{key}Rate"), rate, "must be 8 bits per second or more")),
            _ => {}
        }
        let rate = rate / 8;
        let burst = (burst / 8).min(rate / BURSTS_PER_SECOND).max(BURST_MIN);
        let limit = burst.saturating_add(rate / WAITS_PER_SECOND);
        let small = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Ok(Some(Self { rate, burst: small(burst), limit: small(limit) }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(config: Value, runtime: &Value) -> Result<Bandwidth, String> {
        let raw = serde_json::from_value(config).unwrap();
        Bandwidth::of(raw, &RuntimeConfig(json!({ "bandwidth": runtime }))).map_err(|error| error.msg)
    }

    #[test]
    fn nothing_asked_for_is_no_limit() {
        for runtime in [json!(null), json!({}), json!({ "ingressRate": 0, "egressBurst": null })] {
            assert_eq!(of(json!({}), &runtime), Ok(Bandwidth::default()), "{runtime}");
        }
    }

    #[test]
    fn keys_of_any_case_are_bits() {
        let asked = json!({ "IngressRate": 80_000_000, "IngressBurst": 8_000_000, "EgressRate": 8, "EgressBurst": 0 });
        let found = of(json!({}), &asked).unwrap();
        assert_eq!(found.ingress, Some(Rate { rate: 10_000_000, burst: 1_000_000, limit: 1_250_000 }));
        assert_eq!(found.egress, Some(Rate { rate: 1, burst: 65_536, limit: 65_536 }));
    }

    #[test]
    fn the_config_wins_over_the_runtime() {
        let found = of(json!({ "ingressRate": 8_000_000 }), &json!({ "ingressRate": 16, "egressRate": 16 })).unwrap();
        assert_eq!((found.ingress.map(|rate| rate.rate), found.egress), (Some(1_000_000), None));
    }

    #[test]
    fn the_burst_that_containerd_sends_slows_down_too() {
        let found = of(json!({}), &json!({ "EgressRate": 10_000_000, "EgressBurst": u32::MAX })).unwrap();
        assert_eq!(found.egress, Some(Rate { rate: 1_250_000, burst: 312_500, limit: 343_750 }));
    }

    #[test]
    fn annotations_are_heard_when_nobody_else_speaks() {
        let runtime = |more: Value| {
            let mut runtime = json!({ annotations::CAPABILITY: { INGRESS: "10M", EGRESS: "1.5Mi" } });
            runtime["bandwidth"] = more;
            RuntimeConfig(runtime)
        };
        let of = |config: Value, more| Bandwidth::of(serde_json::from_value(config).unwrap(), &runtime(more)).unwrap();
        let rates = |found: Bandwidth| (found.ingress.map(|rate| rate.rate), found.egress.map(|rate| rate.rate));
        let found = of(json!({}), json!(null));
        assert_eq!(rates(found), (Some(1_250_000), Some(196_608)));
        assert_eq!(found.ingress.map(|rate| rate.burst), Some(312_500), "a quarter of a second");
        assert_eq!(rates(of(json!({}), json!({ "ingressRate": 8_000 }))), (Some(1_000), None));
        assert_eq!(rates(of(json!({ "egressRate": 8_000 }), json!(null))), (None, Some(1_000)));
        for wrong in ["999", "2P", "fast", "-1M"] {
            let runtime = RuntimeConfig(json!({ annotations::CAPABILITY: { EGRESS: wrong } }));
            let msg = Bandwidth::of(Raw::default(), &runtime).unwrap_err().msg;
            assert!(msg.contains(EGRESS) && msg.contains(wrong) && msg.contains("1k to 1P"), "{msg}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_key_and_value() {
        for (asked, message) in [
            (json!([]), "runtimeConfig.bandwidth=Array []: must be an object"),
            (json!({ "IngressRate": -1 }), "runtimeConfig.bandwidth.IngressRate=Number(-1): must be a number of bits"),
            (json!({ "egressBurst": 9 }), "runtimeConfig.bandwidth.egressBurst=9: is no limit without a rate"),
            (json!({ "egressRate": 7 }), "runtimeConfig.bandwidth.egressRate=7: must be 8 bits per second or more"),
        ] {
            let found = of(json!({}), &asked).unwrap_err();
            assert!(found.contains(message), "{found}");
        }
    }
}

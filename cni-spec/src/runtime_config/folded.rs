//! Reading `runtimeConfig` so that of keys that differ by case only the last stays, as in the decoder that
//! runtimes were written against. A [`Value`] cannot tell which came last, so this reads the text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Capabilities whose keys are fixed names. Other maps have keys that are data, such as pod annotations,
/// and there `A` and `a` are two keys.
const FIXED_KEYS: [&str; 4] = ["portMappings", "ipRanges", "bandwidth", "dns"];

/// `runtimeConfig` of a config that is known to be a JSON object; null if it has none.
pub(crate) fn read(config: &[u8]) -> Value {
    let mut reader = serde_json::Deserializer::from_slice(config);
    reader.deserialize_map(Config).unwrap_or_default()
}

struct Config;

impl<'de> Visitor<'de> for Config {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network config")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut found = Value::Null;
        while let Some(key) = map.next_key::<String>()? {
            if key == "runtimeConfig" {
                found = map.next_value_seed(Folded::Capabilities)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// What the keys of an object are.
#[derive(Clone, Copy)]
enum Folded {
    /// Names of capabilities.
    Capabilities,
    /// Fixed names, here and further down.
    Names,
    /// Data.
    Data,
}

impl Folded {
    fn below(self, key: &str) -> Self {
        match self {
            Self::Capabilities if FIXED_KEYS.iter().any(|fixed| fixed.eq_ignore_ascii_case(key)) => Self::Names,
            Self::Capabilities | Self::Data => Self::Data,
            Self::Names => Self::Names,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Folded {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Folded {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.below(&key))?;
            if !matches!(self, Self::Data) {
                object.retain(|earlier: &String, _| !earlier.eq_ignore_ascii_case(&key));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_spelling_of_a_fixed_key_stays() {
        let config = br#"{"runtimeConfig":{"PortMappings":[{"HostPort":1}],
            "portMappings":[{"HostPort":1,"hostPort":2,"containerPort":3},{"hostPort":4,"HOSTPORT":5,"hostPort":6}]}}"#;
        assert_eq!(read(config), json!({ "portMappings": [{ "hostPort": 2, "containerPort": 3 }, { "hostPort": 6 }] }));
    }

    #[test]
    fn keys_that_are_data_all_stay() {
        let config =
            br#"{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"A":"1","a":"2"},"x":[{"B":1,"b":null}]}}"#;
        assert_eq!(
            read(config),
            json!({ "io.kubernetes.cri.pod-annotations": { "A": "1", "a": "2" }, "x": [{ "B": 1, "b": null }] })
        );
    }

    #[test]
    fn every_kind_of_value_is_kept() {
        let config =
            br#"{"a":[1],"runtimeConfig":{"bandwidth":[true,-1,18446744073709551615,0.5,"t",null,{}]},"z":{}}"#;
        assert_eq!(read(config), json!({ "bandwidth": [true, -1, u64::MAX, 0.5, "t", null, {}] }));
    }

    #[test]
    fn a_config_without_the_key_has_none() {
        assert_eq!(read(br#"{"name":"n"}"#), Value::Null);
    }
}

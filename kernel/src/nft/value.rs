//! Data types, keys and data as nf_tables numbers and bytes.

use std::net::IpAddr;

use nft_model::{Family, Proto, Set, Type, Value};

/// `NFPROTO_IPV4` and `NFPROTO_IPV6` of linux/netfilter.h.
pub(super) fn family_number(family: Family) -> u32 {
    match family {
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

/// `IFNAMSIZ` of linux/if.h: what an interface's name takes, with its NULs.
pub(super) const IFNAMSIZ: usize = 16;
/// `NFTNL_UDATA_SET_KEYBYTEORDER` and `NFTNL_UDATA_SET_DATABYTEORDER` of libnftnl's udata.h.
const KEY_BYTE_ORDER: u8 = 0;
const DATA_BYTE_ORDER: u8 = 1;
/// `BYTEORDER_HOST_ENDIAN` of nft(8)'s datatype.h.
const HOST_ENDIAN: u32 = 1;
/// How many bits nft(8) gives a type in the number of a concatenation: `TYPE_BITS` of its datatype.h.
const TYPE_BITS: u32 = 6;
/// The most fields whose types fit into one number.
const MAX_FIELDS: u32 = 5;

/// nft(8)'s number of a type, `enum datatypes` of its datatype.h. The kernel only keeps it.
fn type_number(family: Family, part: Type) -> u32 {
    match (part, family) {
        (Type::Addr, Family::Ip) => 7,
        (Type::Addr, Family::Ip6) => 8,
        (Type::EtherAddr, _) => 9,
        (Type::Ifname, _) => 41,
        (Type::InetProto, _) => 12,
        (Type::InetService, _) => 13,
        (Type::Other(number), _) => number,
    }
}

/// Bytes of a value of a type; `None` for a type nobody here knows.
fn len(family: Family, part: Type) -> Option<usize> {
    match (part, family) {
        (Type::Addr, Family::Ip) => Some(4),
        (Type::Addr, Family::Ip6) => Some(16),
        (Type::Ifname, _) => Some(IFNAMSIZ),
        (Type::EtherAddr, _) => Some(6),
        (Type::InetProto, _) => Some(1),
        (Type::InetService, _) => Some(2),
        (Type::Other(_), _) => None,
    }
}

/// Registers, of four bytes, that a value of a type takes.
pub(super) fn words(family: Family, part: Type) -> u32 {
    match (part, family) {
        (Type::Addr, Family::Ip6) | (Type::Ifname, _) => 4,
        (Type::EtherAddr, _) => 2,
        _ => 1,
    }
}

/// The number of a type or of a concatenation: the first field's bits are the highest.
pub(super) fn types_number(family: Family, types: &[Type]) -> u32 {
    types.iter().fold(0, |number, part| number << TYPE_BITS | type_number(family, *part))
}

/// The length of a key or of data, in bytes.
pub(super) fn types_len(family: Family, types: &[Type]) -> usize {
    match types {
        [single] => len(family, *single).unwrap_or(0),
        fields => fields.iter().map(|part| len(family, *part).unwrap_or(0).next_multiple_of(4)).sum(),
    }
}

/// The types a number stands for, or one [`Type::Other`] if they are not all known, or not `bytes` long.
pub(super) fn types(family: Family, number: u32, bytes: u32) -> Vec<Type> {
    const KNOWN: [Type; 5] = [Type::Addr, Type::Ifname, Type::EtherAddr, Type::InetProto, Type::InetService];
    let mut types = Vec::new();
    for field in (0..MAX_FIELDS).rev() {
        let part = number >> (field * TYPE_BITS) & ((1 << TYPE_BITS) - 1);
        match KNOWN.into_iter().find(|known| type_number(family, *known) == part) {
            Some(known) => types.push(known),
            None if part == 0 && types.is_empty() => {}
            None => return vec![Type::Other(number)],
        }
    }
    let whole = number >> (MAX_FIELDS * TYPE_BITS) == 0;
    match whole && u32::try_from(types_len(family, &types)) == Ok(bytes) {
        true => types,
        false => vec![Type::Other(number)],
    }
}

/// What nft(8) wants to find in a set's user data where it would print names backwards without; the kernel only keeps it.
pub(super) fn byte_orders(set: &Set) -> Vec<u8> {
    let mark = |kind: u8, types: &[Type]| match types {
        [Type::Ifname] => [&[kind, 4], HOST_ENDIAN.to_ne_bytes().as_slice()].concat(),
        _ => vec![],
    };
    [mark(KEY_BYTE_ORDER, &set.key), mark(DATA_BYTE_ORDER, &set.data)].concat()
}

/// A key or data: the bytes of its only field, or of all fields with each padded to registers.
pub(super) fn encode(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        match value {
            Value::Addr(IpAddr::V4(v4)) => bytes.extend(v4.octets()),
            Value::Addr(IpAddr::V6(v6)) => bytes.extend(v6.octets()),
            Value::Ifname(name) => {
                bytes.extend(name.as_bytes().iter().take(IFNAMSIZ - 1));
                bytes.resize(bytes.len() + IFNAMSIZ - name.len().min(IFNAMSIZ - 1), 0);
            }
            Value::Mac(mac) => bytes.extend(mac.as_bytes()),
            Value::Proto(proto) => bytes.push(proto.number()),
            Value::Port(port) => bytes.extend(port.to_be_bytes()),
            Value::Raw(raw) => bytes.extend(raw),
        }
        if values.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

/// The values of the fields of a key or of data; one [`Value::Raw`] if the types are not known.
pub(super) fn decode(family: Family, types: &[Type], bytes: &[u8]) -> Vec<Value> {
    let mut rest = bytes;
    let mut values = Vec::with_capacity(types.len());
    for part in types {
        let Some(field) = len(family, *part).and_then(|len| rest.get(..len)) else {
            return vec![Value::Raw(bytes.to_vec())];
        };
        let taken = if types.len() > 1 { field.len().next_multiple_of(4) } else { field.len() };
        values.push(decode_field(*part, field));
        rest = rest.get(taken..).unwrap_or_default();
    }
    values
}

fn decode_field(part: Type, field: &[u8]) -> Value {
    let known = match (part, field) {
        (Type::Addr, field) => <[u8; 4]>::try_from(field)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(field).map(IpAddr::from))
            .ok()
            .map(Value::Addr),
        (Type::Ifname, field) => field
            .strip_suffix(&[0])
            .and_then(|name| std::str::from_utf8(name).ok())
            .map(|name| Value::Ifname(name.trim_end_matches('\0').to_owned())),
        (Type::EtherAddr, field) => <[u8; 6]>::try_from(field).ok().map(|bytes| Value::Mac(bytes.into())),
        (Type::InetProto, [number]) => Proto::from_number(*number).map(Value::Proto),
        (Type::InetService, [high, low]) => Some(Value::Port(u16::from_be_bytes([*high, *low]))),
        _ => None,
    };
    known.unwrap_or_else(|| Value::Raw(field.to_vec()))
}

/// A comment as nft(8) keeps it in user data, of tables (`NFTNL_UDATA_TABLE_COMMENT`) and elements
/// (`NFTNL_UDATA_SET_ELEM_COMMENT`) alike: type 0, length, text and a final NUL.
pub(super) fn encode_comment(comment: &str) -> Vec<u8> {
    let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, len], comment.as_bytes(), &[0]].concat()
}

/// The comment in user data, if there is one.
pub(super) fn decode_comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = userdata {
        let (text, next) = rest.split_at_checked(usize::from(*len))?;
        if *kind == 0 {
            return Some(String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned());
        }
        userdata = next;
    }
    None
}

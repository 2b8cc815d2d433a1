//! Sets of hosts as Redis keeps them: a set of numbers if they are few, else a bitmap, most significant bit first.

use redis::Value;
use roaring::RoaringBitmap;

use super::reply::{list, natural, unexpected};
use crate::StoreError;

/// Up to this many hosts are a set: Redis keeps 512 small numbers in one compact block
/// (`set-max-intset-entries`), while a bitmap costs an eighth of a byte for every host that there is.
pub(super) const SMALL_HOSTS: u64 = 512;

/// The bitmap that `GETBIT` understands. Empty for the empty set.
pub(super) fn to_bitmap(hosts: &RoaringBitmap) -> Vec<u8> {
    let Some(max) = hosts.max() else {
        return Vec::new();
    };
    let mut bitmap = vec![0u8; max as usize / 8 + 1];
    for host in hosts {
        bitmap[host as usize / 8] |= 0x80 >> (host % 8);
    }
    bitmap
}

/// What `SMEMBERS` or `GET` answered for such a set.
pub(super) fn to_hosts(value: Value) -> Result<RoaringBitmap, StoreError> {
    match value {
        Value::BulkString(mut bitmap) => {
            for byte in &mut bitmap {
                *byte = byte.reverse_bits();
            }
            Ok(RoaringBitmap::from_lsb0_bytes(0, &bitmap))
        }
        members => {
            let members = list(members).ok_or_else(|| unexpected("SMEMBERS"))?;
            members
                .iter()
                .map(|host| natural(host).and_then(|host| u32::try_from(host).ok()))
                .collect::<Option<RoaringBitmap>>()
                .ok_or_else(|| unexpected("SMEMBERS"))
        }
    }
}

/// The command that reads such a set.
pub(super) const fn read_command(small: bool) -> &'static str {
    if small { "SMEMBERS" } else { "GET" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_holds_the_hosts_that_were_put_in() {
        let hosts = RoaringBitmap::from_iter([0u32, 1, 7, 8, 300_000, 299_999]);
        let bitmap = to_bitmap(&hosts);
        assert_eq!(bitmap[0], 0b1100_0001);
        assert_eq!(bitmap.len(), 37_501);
        assert_eq!(to_hosts(Value::BulkString(bitmap)).unwrap(), hosts);
        assert_eq!(to_bitmap(&RoaringBitmap::new()), Vec::<u8>::new());
        assert!(to_hosts(Value::Nil).unwrap().is_empty());
        let members = Value::Array(vec![Value::BulkString(b"7".to_vec()), Value::Int(9)]);
        assert_eq!(
            to_hosts(members).unwrap(),
            RoaringBitmap::from_iter([7u32, 9])
        );
        assert!(to_hosts(Value::Array(vec![Value::Int(-1)])).is_err());
    }
}

//! JSON objects that are nothing else: serde would take an array's elements for the fields in their order.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What was written as an object.
#[derive(Clone, Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = T;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Map(PhantomData)).map(Self)
    }
}

/// Reads an object, and nothing else.
///
/// # Errors
/// What the value's own type refuses.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Object::deserialize(deserializer).map(|object| object.0)
}

/// Reads an object, or null as the default.
///
/// # Errors
/// What the value's own type refuses.
pub(crate) fn object_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    let read: Option<Object<T>> = Option::deserialize(deserializer)?;
    Ok(read.map(|object| object.0).unwrap_or_default())
}

/// Reads a list of objects, or null as none.
///
/// # Errors
/// What the items' own type refuses.
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read: Option<Vec<Object<T>>> = Option::deserialize(deserializer)?;
    Ok(read.map(|objects| objects.into_iter().map(|object| object.0).collect()))
}

/// Reads a list of objects, or null as an empty one.
///
/// # Errors
/// What the items' own type refuses.
pub(crate) fn objects_or_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    objects(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Named {
        name: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(default, deserialize_with = "object_or_default")]
        one: Named,
        #[serde(default, deserialize_with = "objects_or_none")]
        many: Vec<Named>,
    }

    #[test]
    fn arrays_are_no_objects_and_null_is_none() {
        let read = |text| serde_json::from_str::<Outer>(text);
        let outer = read(r#"{"one": {"name": 1}, "many": [{"name": 2}, {}]}"#).unwrap();
        assert_eq!((outer.one.name, outer.many.len()), (Some(1), 2));
        let outer = read(r#"{"one": null, "many": null}"#).unwrap();
        assert_eq!((outer.one, outer.many.len()), (Named::default(), 0));
        for wrong in [r#"{"one": [1]}"#, r#"{"many": [[2]]}"#, r#"{"many": {}}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

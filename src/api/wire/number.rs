//! Whole numbers as clients write them: JSON does not tell `5` from `5.0`, and some writers make the latter.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A whole number from 0. What is beyond 64 bits becomes the largest, which names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Number(pub u64);

impl Number {
    /// For things counted in 32 bits; the largest, which nothing has, if it does not fit.
    #[must_use]
    pub(crate) fn narrow(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = Number;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a whole number from 0")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        let whole = u64::try_from(number);
        whole
            .map(Number)
            .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        if number < 0.0 || number.fract() != 0.0 {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and not negative, and a cast stops at the largest"
        )]
        Ok(Number(number as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let read = |text: &str| serde_json::from_str::<Number>(text).map(|number| number.0);
        for (text, number) in [
            ("5", 5),
            ("5.0", 5),
            ("5e2", 500),
            ("-0.0", 0),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551616", u64::MAX),
            ("1e300", u64::MAX),
        ] {
            assert_eq!(read(text).unwrap(), number, "{text}");
        }
        for bad in ["-1", "1.5", "-1e300", "\"5\"", "null", "true", "[5]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(Number(1 << 40).narrow(), u32::MAX);
    }
}

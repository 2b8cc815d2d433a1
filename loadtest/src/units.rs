//! Durations, sizes and rates as people write them, both ways.

use std::time::Duration;

/// Reads `250ms`, `1.5s`, `10m`, `2h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "ns" => number / 1e9,
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" | "" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{text}: not a duration (ns, us, ms, s, m, h)")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text}: not a duration"))
}

/// Reads `400`, `64k`, `1KiB`, `2MB` as bytes.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "k" | "kB" | "K" => 1e3,
        "KiB" => 1024.0,
        "M" | "MB" => 1e6,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return Err(format!("{text}: not a size (B, kB, KiB, MB, MiB, GiB)")),
    };
    whole(number * factor).ok_or_else(|| format!("{text}: not a size"))
}

/// Reads `1000`, `100k`, `1.5M` as a count.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        _ => return Err(format!("{text}: not a count (k, M)")),
    };
    whole(number * factor).ok_or_else(|| format!("{text}: not a whole number"))
}

/// Reads a probability, `0.25` or `25%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = number_and_unit(text)?;
    let share = match unit {
        "" => number,
        "%" => number / 100.0,
        _ => return Err(format!("{text}: not a share (0 to 1, or %)")),
    };
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(format!("{text}: a share is between 0 and 1"))
    }
}

/// Splits `12.5ms` into 12.5 and `ms`.
pub(crate) fn number_and_unit(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let numeric = |c: char| c.is_ascii_digit() || c == '.' || c == '_';
    let end = text.find(|c| !numeric(c)).unwrap_or(text.len());
    let number = text[..end].replace('_', "");
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text}: does not begin with a number"))?;
    Ok((number, text[end..].trim()))
}

/// `number` as a count, if it is whole and not absurd.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked: whole, not negative, below 2^53"
)]
fn whole(number: f64) -> Option<usize> {
    let rounded = number.round();
    let fits = (rounded - number).abs() < 1e-6 && (0.0..9e15).contains(&rounded);
    fits.then_some(rounded as usize)
}

/// Seconds for people: `8.3 µs`, `412 ms`, `3.1 s`.
pub(crate) fn show_seconds(seconds: f64) -> String {
    match seconds.abs() {
        0.0 => "0 s".to_owned(),
        s if s < 1e-3 => format!("{} µs", significant(seconds * 1e6)),
        s if s < 1.0 => format!("{} ms", significant(seconds * 1e3)),
        s if s < 600.0 => format!("{} s", significant(seconds)),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}

/// Bytes for people: `812 B`, `3.4 KiB`.
pub(crate) fn show_bytes(bytes: f64) -> String {
    match bytes.abs() {
        b if b < 1024.0 => format!("{bytes:.0} B"),
        b if b < 1_048_576.0 => format!("{} KiB", significant(bytes / 1024.0)),
        b if b < 1_073_741_824.0 => format!("{} MiB", significant(bytes / 1_048_576.0)),
        _ => format!("{} GiB", significant(bytes / 1_073_741_824.0)),
    }
}

/// A number for people: three significant digits below 1000, thousands grouped above.
pub(crate) fn show_number(number: f64) -> String {
    if number.abs() < 1000.0 {
        return significant(number);
    }
    let digits = format!("{:.0}", number.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if number < 0.0 {
        grouped.insert(0, '-');
    }
    grouped
}

fn significant(number: f64) -> String {
    if number.fract() == 0.0 {
        return format!("{number:.0}");
    }
    match number.abs() {
        n if n < 10.0 => format!("{number:.2}"),
        n if n < 100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_counts_are_read_with_their_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5 s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(bytes("1KiB"), Ok(1024));
        assert_eq!(bytes("1.5k"), Ok(1500));
        assert_eq!(count("100k"), Ok(100_000));
        assert_eq!(count("1_000"), Ok(1000));
        assert_eq!(share("25%"), Ok(0.25));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "ms", "10 parsecs", "-3s", "1e400"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(bytes("0.5").is_err());
        assert!(count("1.2").is_err());
        assert!(share("1.1").is_err());
    }

    #[test]
    fn numbers_are_shown_short() {
        assert_eq!(show_seconds(0.000_008_312), "8.31 µs");
        assert_eq!(show_seconds(0.4123), "412 ms");
        assert_eq!(show_seconds(0.0), "0 s");
        assert_eq!(show_bytes(3500.0), "3.42 KiB");
        assert_eq!(show_number(1_234_567.0), "1,234,567");
        assert_eq!(show_number(12.34), "12.3");
        assert_eq!(show_number(3.0), "3");
    }
}

//! Quantities with their units, as people write them: `5s`, `64KiB`, `30/min`.

use std::{borrow::Cow, fmt, num::NonZeroU32, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a quantity of the kind that was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` is not {expected}", given.escape_debug())]
pub struct UnitError {
    given: String,
    expected: &'static str,
}

macro_rules! quantity {
    ($name:ident, $expected:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl FromStr for $name {
            type Err = UnitError;
            fn from_str(text: &str) -> Result<Self, UnitError> {
                Self::from_text(text).ok_or_else(|| UnitError { given: text.to_owned(), expected: $expected })
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $expected })
            }
        }
    };
}

/// Splits `30min` into the number and the unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

/// A span of time: milliseconds to hours.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TimeSpan(Duration);

quantity!(TimeSpan, "a time such as `500ms`, `5s`, `2min` or `1h`", "^[0-9]+ ?(ms|s|min|h)$");

impl TimeSpan {
    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The span for the standard library.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let total = number.checked_mul(milliseconds)?;
        (total > 0 && total <= 86_400_000).then(|| Self::from_millis(total))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds {
            whole if whole.is_multiple_of(3_600_000) => write!(f, "{}h", whole / 3_600_000),
            whole if whole.is_multiple_of(60_000) => write!(f, "{}min", whole / 60_000),
            whole if whole.is_multiple_of(1_000) => write!(f, "{}s", whole / 1_000),
            whole => write!(f, "{whole}ms"),
        }
    }
}

/// How long something is kept: seconds to a century.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Age(Duration);

quantity!(Age, "an age such as `90min`, `12h` or `30d`", "^[0-9]+ ?(s|min|h|d)$");

/// A hundred years.
const AGE_SECONDS_MAX: u64 = 100 * 365 * 86_400;

impl Age {
    /// So many days.
    #[must_use]
    pub const fn from_days(days: u64) -> Self {
        Self(Duration::from_secs(days.saturating_mul(86_400)))
    }

    /// The age for the standard library.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let total = number.checked_mul(seconds)?;
        (total > 0 && total <= AGE_SECONDS_MAX).then(|| Self(Duration::from_secs(total)))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (number, unit) = match seconds {
            whole if whole.is_multiple_of(86_400) => (whole / 86_400, "d"),
            whole if whole.is_multiple_of(3_600) => (whole / 3_600, "h"),
            whole if whole.is_multiple_of(60) => (whole / 60, "min"),
            whole => (whole, "s"),
        };
        write!(f, "{number}{unit}")
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(u64);

quantity!(ByteSize, "a size such as `512B`, `64KiB` or `4MiB`", "^[0-9]+ ?(B|KiB|MiB|GiB)$");

impl ByteSize {
    /// A size of so many KiB.
    #[must_use]
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return None,
        };
        number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole if whole.is_multiple_of(1 << 30) => write!(f, "{}GiB", whole >> 30),
            whole if whole.is_multiple_of(1 << 20) => write!(f, "{}MiB", whole >> 20),
            whole if whole.is_multiple_of(1 << 10) => write!(f, "{}KiB", whole >> 10),
            whole => write!(f, "{whole}B"),
        }
    }
}

/// So many calls per period.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    calls: NonZeroU32,
    per: Period,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Period {
    Second,
    Minute,
    Hour,
}

quantity!(Rate, "a rate such as `5/s`, `300/min` or `1000/h`", "^[1-9][0-9]*/(s|min|h)$");

impl Rate {
    /// How many calls one period allows.
    #[must_use]
    pub const fn calls(self) -> NonZeroU32 {
        self.calls
    }

    /// How long the period is.
    #[must_use]
    pub const fn period(self) -> Duration {
        match self.per {
            Period::Second => Duration::from_secs(1),
            Period::Minute => Duration::from_secs(60),
            Period::Hour => Duration::from_secs(3_600),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let (calls, per) = text.split_once('/')?;
        let per = match per {
            "s" => Period::Second,
            "min" => Period::Minute,
            "h" => Period::Hour,
            _ => return None,
        };
        Some(Self { calls: calls.parse().ok()?, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "h",
        };
        write!(f, "{}/{per}", self.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_print_as_they_were_written() {
        for text in ["500ms", "5s", "2min", "24h"] {
            assert_eq!(text.parse::<TimeSpan>().unwrap().to_string(), text);
        }
        for text in ["512B", "64KiB", "4MiB", "1GiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["5/s", "300/min", "1000/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_quantity_without_its_unit_is_refused() {
        insta::assert_snapshot!("5".parse::<TimeSpan>().unwrap_err(), @"`5` is not a time such as `500ms`, `5s`, `2min` or `1h`");
        insta::assert_snapshot!("64kb".parse::<ByteSize>().unwrap_err(), @"`64kb` is not a size such as `512B`, `64KiB` or `4MiB`");
        insta::assert_snapshot!("0/s".parse::<Rate>().unwrap_err(), @"`0/s` is not a rate such as `5/s`, `300/min` or `1000/h`");
    }

    #[test]
    fn a_limit_of_nothing_or_of_days_is_refused() {
        assert!("0s".parse::<TimeSpan>().is_err());
        assert!("25h".parse::<TimeSpan>().is_err());
        assert!("99999999999999999999GiB".parse::<ByteSize>().is_err());
    }

    #[test]
    fn an_age_is_written_as_it_is_read() {
        for text in ["90s", "5min", "12h", "30d"] {
            assert_eq!(text.parse::<Age>().unwrap().to_string(), text);
        }
        for wrong in ["", "30", "d", "0d", "-1d", "30 days", "99999999d"] {
            assert!(wrong.parse::<Age>().is_err(), "{wrong}");
        }
    }
}

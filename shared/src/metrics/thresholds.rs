//! tIoU thresholds as people type them: a range `first:step:last`, or values with commas between.

use std::str::FromStr;

/// Most values of a range; more are a mistyped step.
const MOST: f64 = 1000.0;
/// How far, in steps, the last value of a range may lie from the one that was typed: decimals are not exact.
const EVEN: f64 = 1e-6;

/// tIoU thresholds, each above 0 and at most 1, all different.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(pub Vec<f64>);

/// Thresholds that cannot be meant so. Where a text of the same numbers can, the sentence ends with it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ThresholdsError {
    /// A part that is not a number.
    #[error("`{part}` is not a number{meant}")]
    NotANumber {
        /// The part.
        part: String,
        /// What was probably meant.
        meant: Meant,
    },
    /// A colon without the three parts of a range.
    #[error("a range is `first:step:last`{meant}")]
    NotThree {
        /// What was probably meant.
        meant: Meant,
    },
    /// A value that no tIoU reaches, or that every one does.
    #[error("a threshold is above 0 and at most 1, not {value}{meant}")]
    OutOfRange {
        /// The value.
        value: f64,
        /// What was probably meant.
        meant: Meant,
    },
    /// A step that leads nowhere, or away.
    #[error("steps of {step} do not lead up from {first} to {last} (a range is `first:step:last`){meant}")]
    Backwards {
        /// First value.
        first: f64,
        /// Step.
        step: f64,
        /// Last value.
        last: f64,
        /// What was probably meant.
        meant: Meant,
    },
    /// A range that misses its last value.
    #[error("steps of {step} from {first} do not come to {last} (a range is `first:step:last`){meant}")]
    Uneven {
        /// First value.
        first: f64,
        /// Step.
        step: f64,
        /// Last value.
        last: f64,
        /// What was probably meant.
        meant: Meant,
    },
    /// A range of one value.
    #[error("the range holds one value, {value}{meant}")]
    One {
        /// The value.
        value: f64,
        /// What was probably meant.
        meant: Meant,
    },
    /// A range of too many values.
    #[error("the range holds more than {MOST} values{meant}")]
    TooMany {
        /// What was probably meant.
        meant: Meant,
    },
    /// A value that would count twice in the mean.
    #[error("{value} is given twice{meant}")]
    Twice {
        /// The value.
        value: f64,
        /// What was probably meant.
        meant: Meant,
    },
}

/// Texts that give thresholds and look like the one that was typed, the likeliest first; at most two.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Meant(Vec<String>);

impl std::fmt::Display for Meant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; write `{}`", self.0.join("` or `")) }
    }
}

impl FromStr for Thresholds {
    type Err = ThresholdsError;

    fn from_str(text: &str) -> Result<Self, ThresholdsError> {
        parse(text, &|| meant(text))
    }
}

fn parse(text: &str, meant: &dyn Fn() -> Meant) -> Result<Thresholds, ThresholdsError> {
    let number = |part: &str| {
        let finite = part.trim().parse().ok().filter(|value: &f64| value.is_finite());
        finite.ok_or_else(|| ThresholdsError::NotANumber { part: part.trim().to_owned(), meant: meant() })
    };
    if !text.contains(':') {
        return list(text.split(',').map(number).collect::<Result<_, _>>()?, meant);
    }
    let parts = text.split(':').map(number).collect::<Result<Vec<f64>, _>>()?;
    let [first, step, last] = parts[..] else { return Err(ThresholdsError::NotThree { meant: meant() }) };
    in_range(&[first, last], meant)?;
    if first == last {
        return Err(ThresholdsError::One { value: first, meant: meant() });
    }
    let steps = (last - first) / step;
    if step <= 0.0 || steps < 0.0 {
        return Err(ThresholdsError::Backwards { first, step, last, meant: meant() });
    }
    if (steps - steps.round()).abs() > EVEN || steps.round() < 1.0 {
        return Err(ThresholdsError::Uneven { first, step, last, meant: meant() });
    }
    if steps >= MOST {
        return Err(ThresholdsError::TooMany { meant: meant() });
    }
    Ok(Thresholds(thresholds(first, last, steps.round() as usize + 1)))
}

fn list(values: Vec<f64>, meant: &dyn Fn() -> Meant) -> Result<Thresholds, ThresholdsError> {
    in_range(&values, meant)?;
    let twice = (1..values.len()).find(|index| values[..*index].contains(&values[*index]));
    match twice {
        Some(index) => Err(ThresholdsError::Twice { value: values[index], meant: meant() }),
        None => Ok(Thresholds(values)),
    }
}

fn in_range(values: &[f64], meant: &dyn Fn() -> Meant) -> Result<(), ThresholdsError> {
    match values.iter().find(|value| !(**value > 0.0 && **value <= 1.0)) {
        Some(value) => Err(ThresholdsError::OutOfRange { value: *value, meant: meant() }),
        None => Ok(()),
    }
}

/// What the numbers of a text can stand for; whatever does not itself give thresholds is left out.
fn meant(text: &str) -> Meant {
    // `0,3:0,1:0,7` has decimal commas.
    let decimal = text.replace(',', ".");
    let range = if text.contains(':') { decimal.as_str() } else { text };
    let parts = |separators: &[char]| -> Vec<f64> {
        let parts = range.split(separators).map(str::trim).filter(|part| !part.is_empty());
        parts
            .filter_map(|part| part.trim_end_matches('%').parse().ok())
            .filter(|value: &f64| value.is_finite())
            .collect()
    };
    let guesses = if text.contains(':') {
        ranges(&parts(&[':']))
    } else {
        vec![vec![joined(parts(&[',', ';', ' ', '/']))]]
    };
    let understood = |guess: &String| parse(guess, &|| Meant::default()).is_ok();
    let meant = guesses.into_iter().map(|alike| alike.into_iter().filter(understood).collect::<Vec<_>>());
    Meant(meant.into_iter().find(|alike| !alike.is_empty()).unwrap_or_default())
}

/// Guesses at a range, the likeliest first, those that are as likely together.
fn ranges(parts: &[f64]) -> Vec<Vec<String>> {
    let range =
        |first: f64, step: f64, last: f64| format!("{}:{}:{}", shown(first), shown(step), shown(last));
    match *parts {
        [only] => vec![vec![shown(only)]],
        [first, last] => {
            vec![vec![range(first, 0.1, last), range(first, 0.05, last)], vec![joined(vec![first, last])]]
        }
        // Percent.
        [a, b, c] if [a, b, c].iter().any(|part| part.abs() > 1.0) => {
            ranges(&[a / 100.0, b / 100.0, c / 100.0])
        }
        [a, b, c] => {
            let step = b.abs();
            let (low, high) = (a.min(c), a.max(c));
            let whole_steps = ((high - low) / step + EVEN).floor();
            vec![
                // NumPy has the step last.
                vec![range(a, c, b)],
                // From high to low.
                vec![range(low, step, high)],
                // From 0, which every detection passes.
                vec![range(low + step, step, high)],
                // As far as the steps come, or half steps.
                vec![range(low, step, low + whole_steps * step), range(low, step / 2.0, high)],
                vec![range(low, 0.1, high), range(low, 0.05, high)],
                vec![joined(vec![low, high])],
            ]
        }
        _ => vec![vec![joined(parts.to_vec())]],
    }
}

/// Values with commas between, each once; percent where they can be nothing else.
fn joined(mut values: Vec<f64>) -> String {
    if values.iter().any(|value| *value > 1.0) && values.iter().all(|value| *value >= 1.0) {
        for value in &mut values {
            *value /= 100.0;
        }
    }
    let mut texts: Vec<String> = Vec::new();
    for text in values.into_iter().map(shown) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join(",")
}

/// A number as people write it, without what binary fractions add.
fn shown(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

/// `count` evenly spaced thresholds, as NumPy's `linspace` computes them, so that borderline tIoUs compare alike.
pub fn thresholds(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = (last - first) / count.saturating_sub(1).max(1) as f64;
    let mut values: Vec<f64> = (0..count).map(|index| index as f64 * step + first).collect();
    if count > 1 {
        values[count - 1] = last;
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<f64> {
        text.parse::<Thresholds>().unwrap_or_else(|error| panic!("{text}: {error}")).0
    }

    fn refusal(text: &str) -> String {
        text.parse::<Thresholds>().expect_err(text).to_string()
    }

    #[test]
    fn a_range_or_a_list_gives_its_thresholds() {
        assert_eq!(values("0.3:0.1:0.7"), thresholds(0.3, 0.7, 5));
        assert_eq!(values("0.5:0.05:0.95"), thresholds(0.5, 0.95, 10));
        assert_eq!(values(" 0.1 : 0.1 : 0.5 "), thresholds(0.1, 0.5, 5));
        assert_eq!(values("0.05:0.05:1"), thresholds(0.05, 1.0, 20));
        assert_eq!(values("0.5,0.75, 0.95"), [0.5, 0.75, 0.95]);
        assert_eq!(values("0.5"), [0.5]);
    }

    /// Each with what it says and what it takes the text for.
    #[test]
    fn a_range_that_does_not_come_out_is_refused_with_what_was_meant() {
        for (text, part, meant) in [
            ("0.3:0.7:0.1", "steps of 0.7 do not lead up from 0.3 to 0.1", "0.3:0.1:0.7"),
            ("0.5:0.95:0.05", "steps of 0.95 do not lead up", "0.5:0.05:0.95"),
            ("0.1:0.5:0.1", "the range holds one value, 0.1", "0.1:0.1:0.5"),
            ("0.3:0.1:0.75", "steps of 0.1 from 0.3 do not come to 0.75", "0.3:0.1:0.7` or `0.3:0.05:0.75"),
            ("0.5:0.1:0.95", "do not come to 0.95", "0.5:0.1:0.9` or `0.5:0.05:0.95"),
            ("0.5:0.7:0.9", "do not come to 0.9", "0.5:0.1:0.9"),
            ("0.7:0.1:0.3", "do not lead up from 0.7 to 0.3", "0.3:0.1:0.7"),
            ("0.7:-0.1:0.3", "do not lead up from 0.7 to 0.3", "0.3:0.1:0.7"),
            ("0.3:-0.1:0.7", "steps of -0.1 do not lead", "0.3:0.1:0.7"),
            ("0.3:0:0.7", "steps of 0 do not lead", "0.3:0.1:0.7"),
            ("0.3:nan:0.7", "`nan` is not a number", "0.3:0.1:0.7"),
            ("0.3:inf:0.7", "`inf` is not a number", "0.3:0.1:0.7"),
            ("0:0.1:0.5", "a threshold is above 0 and at most 1, not 0", "0.1:0.1:0.5"),
            ("30:10:70", "not 30", "0.3:0.1:0.7"),
            ("30:70:10", "not 30", "0.3:0.1:0.7"),
            ("0.3:0.7", "a range is `first:step:last`", "0.3:0.1:0.7` or `0.3:0.05:0.7"),
            ("0,3:0,1:0,7", "`0,3` is not a number", "0.3:0.1:0.7"),
            ("0.3:0.0001:0.7", "more than 1000 values", "0.3:0.1:0.7"),
            ("50,75,95", "not 50", "0.5,0.75,0.95"),
            ("0.5 0.75", "`0.5 0.75` is not a number", "0.5,0.75"),
            ("0.5,0.5", "0.5 is given twice", "0.5"),
            ("0.5,", "`` is not a number", "0.5"),
        ] {
            let said = refusal(text);
            assert!(said.contains(part), "{text}: {said}");
            let suggested = said.split_once("; write `").unwrap_or_else(|| panic!("{text}: {said}")).1;
            assert!(suggested.starts_with(&format!("{meant}`")), "{text}: {said}");
        }
        for text in ["", "half", "0:0:0", "-0.5", "1.1", ":", "::"] {
            assert!(!refusal(text).is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_suggested_is_understood(parts in prop::collection::vec(-12i32..24, 1..5), colons in any::<bool>()) {
            let parts: Vec<String> = parts.iter().map(|part| shown(f64::from(*part) / 20.0)).collect();
            let text = parts.join(if colons { ":" } else { "," });
            match text.parse::<Thresholds>() {
                Ok(Thresholds(values)) => prop_assert!(values.iter().all(|value| *value > 0.0 && *value <= 1.0)),
                Err(error) => for suggested in meant(&text).0 {
                    prop_assert!(suggested.parse::<Thresholds>().is_ok(), "{error}");
                },
            }
        }
    }
}

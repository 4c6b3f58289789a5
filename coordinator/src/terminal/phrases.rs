//! What a run tells, in words: pure functions, the same for bars and for plain lines.

use std::borrow::Cow;
use std::path::Path;

use longtake_shared::units::{Seconds, counted};

use super::rate::Rate;
use crate::updates::{Progress, RunUpdate, Stage};

/// What a stage counts.
pub fn unit(stage: Stage) -> &'static str {
    match stage {
        Stage::Pretrain | Stage::Train => "step",
        Stage::Memory | Stage::Validate => "video",
    }
}

/// What is worth a line of its own; nothing for [`RunUpdate::Progress`] and for the end, which the command reports.
pub fn event(update: &RunUpdate) -> Option<String> {
    Some(match update {
        RunUpdate::Gathering { present, needed } => format!("waiting for workers: {present} of {needed}"),
        RunUpdate::Formed { generation, world } => {
            format!("generation {generation}: {}", counted(*world, "worker"))
        }
        RunUpdate::Waiting { present, needed, missing } => waiting(*present, *needed, missing),
        RunUpdate::Recovered { incident, generation, world, goes_on_at } => {
            let what = incident.as_ref().map_or_else(|| "others join".to_owned(), ToString::to_string);
            let workers = counted(*world, "worker");
            format!("{what}: generation {generation} goes on with {workers} after {goes_on_at}")
        }
        RunUpdate::Stage { stage, total, done } => stage_begins(*stage, *total, *done),
        RunUpdate::Validated { epoch, average_map, best, .. } => {
            let verdict = if *best { ", the best so far" } else { "" };
            format!("validated after epoch {}: average mAP {:.2} %{verdict}", epoch.0, 100.0 * average_map)
        }
        RunUpdate::Saved { step, sequence } => format!("saved checkpoint {sequence} at {step}"),
        RunUpdate::Warning { message } => format!("warning: {message}"),
        RunUpdate::Progress(_) | RunUpdate::Finished { .. } => return None,
    })
}

fn waiting(present: usize, needed: usize, missing: &[usize]) -> String {
    let indices: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let who = match missing {
        [] => String::new(),
        [one] => format!("; missing: worker {one}"),
        _ => format!("; missing: workers {}", indices.join(", ")),
    };
    format!("waiting for workers: {present} of {needed} are there{who}")
}

fn stage_begins(stage: Stage, total: u64, done: u64) -> String {
    let what = match stage {
        Stage::Pretrain => "pretraining the backbone",
        Stage::Memory => "filling the long memory",
        Stage::Train => "training",
        Stage::Validate => "validating",
    };
    let already = if done > 0 { format!(", {done} of them done") } else { String::new() };
    format!("{what}: {}{already}", counted(total as usize, unit(stage)))
}

/// How far a stage is and how fast it goes: `epoch 3/40  step 36/480  1.93 step/s  ...  ETA 3 min 50 s`.
pub fn progress(progress: &Progress, rate: &Rate, epochs: Option<u64>) -> String {
    let mut parts = Vec::new();
    if progress.stage == Stage::Train {
        let of = epochs.map(|epochs| format!("/{epochs}")).unwrap_or_default();
        parts.push(format!("epoch {}{of}", progress.epoch.0 + 1));
    }
    parts.push(format!("{} {}/{}", unit(progress.stage), progress.done, progress.total));
    parts.extend(rate.per_second().map(|pace| speed(pace, unit(progress.stage))));
    let number = |name: &str| progress.numbers.get(name).copied();
    parts.extend(number("clips_per_second").map(|clips| format!("{} clips/s", three_digits(clips))));
    parts.extend(progress.loss.map(|loss| format!("loss {loss:.4}")));
    parts.extend(number("mean_age").map(|age| format!("memory age {age:.1} steps")));
    for (name, text) in [
        ("absent_rows", "absent rows"),
        ("damaged_rows", "damaged rows"),
        ("skipped_samples", "unreadable"),
        ("non_finite", "not finite"),
    ] {
        parts.extend(number(name).filter(|count| *count > 0.0).map(|count| format!("{text} {count}")));
    }
    let remaining = progress.total.saturating_sub(progress.done);
    if remaining > 0 {
        parts.extend(rate.eta(remaining).map(|eta| format!("ETA {}", length(eta))));
    }
    parts.join("  ")
}

/// Whether a plain line is due `elapsed` after the stage began, if the last one came at `last`: often at first, then
/// ever more seldom, at least once a minute.
pub fn line_is_due(elapsed: Seconds, last: Option<Seconds>) -> bool {
    last.is_none_or(|last| elapsed.0 - last.0 >= (last.0 / 8.0).clamp(2.0, 60.0))
}

/// A length of time as people say it.
pub fn length(time: Seconds) -> String {
    let whole = time.0.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// Units a second, or seconds a unit where those are more.
fn speed(per_second: f64, unit: &str) -> String {
    if per_second >= 0.5 {
        format!("{} {unit}/s", three_digits(per_second))
    } else {
        format!("{} s/{unit}", three_digits(1.0 / per_second))
    }
}

fn three_digits(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}")
}

/// A path as a POSIX shell takes it: as it is where that is safe, in quotes elsewhere.
pub fn shell(path: &Path) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"/._-+,:@%=".contains(&byte);
    match path.to_str() {
        Some(text) if !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain) => {
            Cow::Borrowed(text)
        }
        Some(text) if text.starts_with('-') => Cow::Owned(format!("./{}", quoted(text))),
        Some(text) => Cow::Owned(quoted(text)),
        // What is not Unicode cannot be typed in all shells; nothing else can be shown of it either.
        None => Cow::Owned(quoted(&path.to_string_lossy())),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        for (path, text) in [
            ("runs/mine", "runs/mine"),
            ("runs/my run", "'runs/my run'"),
            ("it's", r"'it'\''s'"),
            ("läufe/é", "läufe/é"),
            ("a&b;$c", "'a&b;$c'"),
            ("", "''"),
            ("-r", "./'-r'"),
        ] {
            assert_eq!(shell(Path::new(path)), text);
        }
    }

    #[test]
    fn lengths_of_time_are_short() {
        for (seconds, text) in [
            (0.2, "0 s"),
            (59.4, "59 s"),
            (61.0, "1 min 01 s"),
            (3599.7, "1 h 00 min"),
            (90000.0, "25 h 00 min"),
        ] {
            assert_eq!(length(Seconds(seconds)), text);
        }
    }

    #[test]
    fn slow_work_is_told_in_seconds_a_unit() {
        assert_eq!(speed(12.34, "step"), "12.3 step/s");
        assert_eq!(speed(0.25, "step"), "4.00 s/step");
    }

    #[test]
    fn lines_come_often_at_first_and_every_minute_in_the_end() {
        assert!(line_is_due(Seconds(0.0), None));
        assert!(!line_is_due(Seconds(1.9), Some(Seconds(0.0))));
        assert!(line_is_due(Seconds(2.0), Some(Seconds(0.0))));
        assert!(!line_is_due(Seconds(100_030.0), Some(Seconds(100_000.0))));
        assert!(line_is_due(Seconds(100_060.0), Some(Seconds(100_000.0))));
    }
}

//! Some of every video is decoded before a run begins: too much damage ends it, what contradicts its annotations is told.

use std::fmt::Write as _;

use longtake_shared::config::RunConfig;
use longtake_shared::dataset::{self, Dataset, DecoderKind, ProbedVideo, Problem, Subset, Unreadable, Video};
use longtake_shared::hint::Failure;
use longtake_shared::role::Depth;
use longtake_shared::stop::Stop;
use longtake_shared::units::counted;

use crate::commands::examine;
use crate::terminal::console::Console;
use crate::worker_role::WorkerRole;

/// Damaged videos that a message names.
const NAMED: usize = 5;

/// A video and what its file is.
type Probed<'d> = (&'d Video, ProbedVideo);

/// A video and why its file cannot be read.
type Damaged<'d> = (&'d Video, Unreadable);

/// Refuses more videos that cannot be read than `data.max_damaged` allows, before a run has begun and not in its middle. Says
/// which others are left out, which decoders are used, and which files are not as long as annotated.
pub(super) fn videos(
    config: &RunConfig,
    dataset: &Dataset,
    worker: WorkerRole,
    stop: &Stop,
    console: Console,
) -> Result<(), Failure> {
    let videos: Vec<&Video> = dataset.videos.iter().collect();
    let examined = examine::all(&videos, &config.data, Depth::Ends, worker, stop, console);
    stop.check()?;
    let (mut probed, mut damaged) = (Vec::new(), Vec::new());
    for (video, found) in videos.into_iter().zip(examined) {
        match found {
            Ok(found) => probed.push((video, found)),
            Err(why) => damaged.push((video, why)),
        }
    }
    refuse(config, dataset, &damaged)?;
    if !damaged.is_empty() {
        console.warn(&left_out(&damaged, dataset.videos.len()));
    }
    console.say(&decoders(&probed));
    if let Some(warning) = lengths(&probed) {
        console.warn(&warning);
    }
    Ok(())
}

/// # Errors
/// A subset has more damaged videos than the settings tolerate.
fn refuse(config: &RunConfig, dataset: &Dataset, damaged: &[Damaged<'_>]) -> Result<(), Failure> {
    for subset in [Subset::Training, Subset::Validation] {
        let of_subset: Vec<&Damaged<'_>> =
            damaged.iter().filter(|(video, _)| video.subset == subset).collect();
        let videos = dataset.subset(subset).len();
        let Some((_, first)) = of_subset.first().filter(|_| !config.data.tolerates(of_subset.len(), videos))
        else {
            continue;
        };
        let hint = first.hint.clone().map_or_else(String::new, |hint| format!("{hint}; "));
        let (message, others) = match of_subset.as_slice() {
            [one] => (sentence(one), "or list the video in the file `data.blocked`"),
            several => (
                format!(
                    "{} of {videos} {} videos cannot be read, more than the share {} that `data.max_damaged` allows: {}",
                    several.len(),
                    subset.name(),
                    config.data.max_damaged,
                    named(several),
                ),
                "`longtake data check CONFIG` names all of them, and the file `data.blocked` leaves videos out",
            ),
        };
        return Err(Failure::new(message).hint(format!("{hint}{others}")).never_restart());
    }
    Ok(())
}

/// What a run does without.
fn left_out(damaged: &[Damaged<'_>], videos: usize) -> String {
    let all: Vec<&Damaged<'_>> = damaged.iter().collect();
    let count = damaged.len();
    format!(
        "{count} of {videos} videos cannot be read, and the run does without what they show: {}",
        named(&all)
    )
}

fn named(damaged: &[&Damaged<'_>]) -> String {
    let first: Vec<String> = damaged.iter().take(NAMED).map(|damaged| sentence(damaged)).collect();
    match damaged.len().saturating_sub(NAMED) {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

fn sentence((video, why): &Damaged<'_>) -> String {
    format!("video `{}` {} (`{}`)", video.id, why.reason, video.path.display())
}

/// How many videos each decoder has, and why the first of them needs `ffmpeg`.
fn decoders(probed: &[Probed<'_>]) -> String {
    let mut others = probed.iter().filter(|(_, found)| found.decoder == DecoderKind::Ffmpeg);
    let ffmpeg = others.clone().count();
    let mut text = format!("decoders: {} embedded", counted(probed.len() - ffmpeg, "video"));
    if let Some((video, found)) = others.next() {
        let _ = write!(text, ", {ffmpeg} ffmpeg (the first is `{}`: {})", video.id, found.reason);
    }
    text
}

/// Of the videos whose files are not as long as annotated: how many, the first of those that an action does not fit in or
/// else of all, and what to do.
fn lengths(probed: &[Probed<'_>]) -> Option<String> {
    let wrong: Vec<Problem> = probed
        .iter()
        .filter_map(|(video, found)| dataset::length_problems(video, found.duration).into_iter().next())
        .collect();
    let beyond = wrong.iter().find(|problem| matches!(problem, Problem::BeyondEnd { .. }));
    let first = beyond.or(wrong.first())?;
    Some(format!(
        "{} of {} not as long as annotated: {first}\n\
         hint: copy the file again or correct its annotations; `longtake data check CONFIG` names every such video",
        wrong.len(),
        if probed.len() == 1 { "1 file is".to_owned() } else { format!("{} files are", probed.len()) }
    ))
}

#[cfg(test)]
mod tests {
    use longtake_shared::dataset::Action;
    use longtake_shared::hint::ExitCode;
    use longtake_shared::units::Seconds;

    use super::*;

    fn video(id: &str, duration: f64, end: f64) -> Video {
        let action = Action { start: Seconds(0.0), end: Seconds(end), label: 0 };
        Video {
            id: id.into(),
            subset: Subset::Training,
            path: format!("{id}.mp4").into(),
            duration: Seconds(duration),
            actions: vec![action],
        }
    }

    fn found(duration: f64, decoder: DecoderKind) -> ProbedVideo {
        let reason = "its video is HEVC".to_owned();
        ProbedVideo { frames: 90, duration, width: 64, height: 48, decoder, reason }
    }

    #[test]
    fn decoders_are_counted_with_the_first_reason() {
        let (a, b) = (video("a", 9.0, 5.0), video("b", 9.0, 5.0));
        let embedded = || found(9.0, DecoderKind::Embedded);
        assert_eq!(decoders(&[(&a, embedded()), (&b, embedded())]), "decoders: 2 videos embedded");
        assert_eq!(
            decoders(&[(&a, embedded()), (&b, found(9.0, DecoderKind::Ffmpeg))]),
            "decoders: 1 video embedded, 1 ffmpeg (the first is `b`: its video is HEVC)"
        );
    }

    fn damaged<'d>(videos: &[&'d Video]) -> Vec<Damaged<'d>> {
        let why =
            || Unreadable { reason: "is damaged at 3.20 s: a hole".into(), hint: Some("copy it".into()) };
        videos.iter().map(|video| (*video, why())).collect()
    }

    fn dataset(videos: usize) -> Dataset {
        let mut all: Vec<Video> = (0..videos).map(|index| video(&format!("t{index}"), 9.0, 5.0)).collect();
        all.push(Video { subset: Subset::Validation, ..video("v", 9.0, 5.0) });
        Dataset { classes: vec!["dive".into()], videos: all, remarks: Vec::new() }
    }

    #[test]
    fn more_damage_than_the_settings_tolerate_is_refused_for_good() {
        let (mut config, dataset) = (RunConfig::default(), dataset(10));
        let videos: Vec<&Video> = dataset.videos.iter().collect();
        let refused = |config: &RunConfig, which: &[&Video]| refuse(config, &dataset, &damaged(which)).err();
        assert!(refused(&config, &[]).is_none());
        let one = refused(&config, &videos[..1]).unwrap();
        assert_eq!(one.message, "video `t0` is damaged at 3.20 s: a hole (`t0.mp4`)");
        assert!(one.hint.unwrap().starts_with("copy it; "));
        assert_eq!(one.exit, ExitCode::NeverRestart);
        config.data.max_damaged = 0.6;
        assert!(refused(&config, &videos[..6]).is_none());
        let seven = refused(&config, &videos[..7]).unwrap().message;
        assert!(
            seven.starts_with(
                "7 of 10 training videos cannot be read, more than the share 0.6 that `data.max_damaged` allows: video `t0` is"
            ) && seven.ends_with("video `t4` is damaged at 3.20 s: a hole (`t4.mp4`); and 2 more"),
            "{seven}"
        );
        let validation = refused(&config, &videos[10..]).unwrap();
        assert_eq!(
            validation.message, "video `v` is damaged at 3.20 s: a hole (`v.mp4`)",
            "all of its subset"
        );
    }

    #[test]
    fn an_action_behind_the_end_is_told_before_another_length() {
        let (a, b, c) = (video("a", 9.0, 5.0), video("b", 9.0, 8.5), video("c", 9.0, 9.0));
        let long = |duration| found(duration, DecoderKind::Embedded);
        assert_eq!(lengths(&[(&a, long(9.3)), (&c, long(8.2))]), None, "a second is nothing");
        let warning = lengths(&[(&a, long(6.0)), (&b, long(3.1)), (&c, long(9.0))]).unwrap();
        assert!(
            warning.starts_with(
                "2 of 3 files are not as long as annotated: video `b` is 3.10 s long, but an action ends at 8.50 s\nhint: "
            ),
            "{warning}"
        );
        let warning = lengths(&[(&a, long(6.0))]).unwrap();
        assert!(warning.contains("video `a` is 6.00 s long, but is annotated as 9.00 s"), "{warning}");
    }
}

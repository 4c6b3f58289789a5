//! Every video is opened once before a run begins: what cannot be read ends it, what contradicts its annotations is told.

use std::fmt::Write as _;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use longtake_shared::config::RunConfig;
use longtake_shared::dataset::{self, Dataset, DecoderKind, ProbedVideo, Problem, Video};
use longtake_shared::hint::Failure;
use longtake_shared::role::ProbeRequest;
use longtake_shared::stop::Stop;
use longtake_shared::units::counted;

use crate::terminal::console::Console;
use crate::worker_role::WorkerRole;

/// A video and what its file is.
type Probed<'d> = (&'d Video, ProbedVideo);

/// Refuses a video that cannot be read, before a run has begun and not in its middle. Says which decoders are used, and which
/// files are not as long as annotated.
pub(super) fn videos(
    config: &RunConfig,
    dataset: &Dataset,
    worker: WorkerRole,
    stop: &Stop,
    console: Console,
) -> Result<(), Failure> {
    let probed = open_all(config, dataset, worker, stop, console)?;
    console.say(&decoders(&probed));
    if let Some(warning) = lengths(&probed) {
        console.warn(&warning);
    }
    Ok(())
}

/// In the order of the data set.
fn open_all<'d>(
    config: &RunConfig,
    dataset: &'d Dataset,
    worker: WorkerRole,
    stop: &Stop,
    console: Console,
) -> Result<Vec<Probed<'d>>, Failure> {
    let bar = console.bar("probing");
    let next = AtomicUsize::new(0);
    let probe_some = || {
        let mut probed = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(video) = dataset.videos.get(index) else { return Ok(probed) };
            stop.check()?;
            let request = ProbeRequest { data: config.data.clone(), video: video.path.clone() };
            match (worker.probe)(&request) {
                Ok(found) => probed.push((index, found)),
                Err(failure) => {
                    // Nothing is begun after the first that cannot be read.
                    next.store(dataset.videos.len(), Ordering::Relaxed);
                    return Err(failure.never_restart());
                }
            }
            bar.inc(1);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let outcome = std::thread::scope(|scope| {
        let probing: Vec<_> = (0..threads).map(|_| scope.spawn(probe_some)).collect();
        // A panic there has been reported; it is not the data set's fault.
        probing.into_iter().filter_map(|thread| thread.join().ok()).collect::<Result<Vec<_>, Failure>>()
    });
    bar.finish_and_clear();
    let mut probed: Vec<_> = outcome?.into_iter().flatten().collect();
    probed.sort_unstable_by_key(|(index, _)| *index);
    Ok(probed.into_iter().map(|(index, found)| (&dataset.videos[index], found)).collect())
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
    use longtake_shared::dataset::{Action, Subset};
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

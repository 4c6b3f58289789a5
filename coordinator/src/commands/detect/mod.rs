//! `longtake detect`: weights and videos -> a file a video, and together detections.json and timeline.svg.

mod inputs;
mod records;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longtake_shared::config::Resolved;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::metrics::GroundTruth;
use longtake_shared::role::{DetectRequest, Detected, NamedVideo};
use longtake_shared::stop::Stop;
use longtake_shared::units::counted;
use serde_json::json;

use self::records::{Means, Records, together};
use super::pictures::{annotated, found, picture};
use super::run_folder::weights_of;
use super::{Session, files, interruption, settings};
use crate::cli::DetectArgs;
use crate::terminal::phrases::shell;
use crate::timeline;
use crate::worker_role::WorkerRole;

/// Detections of a video that the terminal lists.
const LISTED: usize = 5;

/// The file of all videos is written again after a video where that takes less than this share of the time since the last
/// time: a thousand videos are no thousand times as much to write.
const WRITING_SHARE: u32 = 20;

pub(super) fn run(args: &DetectArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("detect")?;
    let interruption = interruption::in_order()?;
    let weights = weights_of(&args.weights);
    files::require(&weights, "the weights file")?;
    let videos = inputs::named(&args.videos)?;
    let truth = args.annotations.as_deref().map(GroundTruth::read_all).transpose()?;
    let settings = settings_of(args, &weights, worker)?;
    let out = Out::new(&args.out)?;
    let tried = [files::writable(&out.detections)?, files::writable(&out.timeline)?];
    let records = Records::new(&args.out, Means::of(&weights, &settings.config)?, &videos);

    let mut call = Call { found: vec![None; videos.len()], bad: Vec::new(), videos, records, out };
    let resumed = if args.resume { call.resume() } else { 0 };
    let ended = call.work(&weights, settings, worker, &interruption.stop, session);
    drop(tried);
    if let Err(failure) = ended {
        if failure.exit == ExitCode::Interrupted && call.done() > 0 {
            return Ok(call.interrupted(args, &weights, session));
        }
        return Err(failure);
    }
    if call.done() == 0 {
        return Err(call.nothing_found());
    }
    call.conclude(&Conclusion { args, weights: &weights, truth: truth.as_ref(), resumed }, session)
}

/// Those of `--config`, or else those that the weights carry; the environment and `--set` on top.
fn settings_of(args: &DetectArgs, weights: &Path, worker: WorkerRole) -> Result<Resolved, Failure> {
    match &args.config {
        Some(config) => settings::load(config, &args.overrides),
        None => settings::changed(&(worker.carried_settings)(weights)?, &args.overrides),
    }
}

/// Where the results of a call go.
#[derive(Debug)]
struct Out {
    detections: PathBuf,
    timeline: PathBuf,
}

impl Out {
    fn new(folder: &Path) -> Result<Self, Failure> {
        if folder.exists() && !folder.is_dir() {
            return Err(Failure::new(format!(
                "`{}` is a file, but `--out` names a folder",
                folder.display()
            ))
            .hint("name a folder, which is made where it does not exist")
            .never_restart());
        }
        Ok(Self { detections: folder.join("detections.json"), timeline: folder.join("timeline.svg") })
    }
}

/// The videos of a call and what has become of them.
#[derive(Debug)]
struct Call {
    videos: Vec<NamedVideo>,
    /// What was found in each.
    found: Vec<Option<Detected>>,
    /// Positions of videos that could not be searched, and why.
    bad: Vec<(usize, Failure)>,
    records: Records,
    out: Out,
}

/// What the last words of a call need to know.
struct Conclusion<'a> {
    args: &'a DetectArgs,
    weights: &'a Path,
    truth: Option<&'a GroundTruth>,
    resumed: usize,
}

impl Call {
    /// Takes over what an earlier call has found; gives how many videos that were.
    fn resume(&mut self) -> usize {
        self.found = self.videos.iter().map(|video| self.records.find(video)).collect();
        self.done()
    }

    fn done(&self) -> usize {
        self.found.iter().flatten().count()
    }

    /// Searches the videos that are left, one after the other; each result is written before the next video begins.
    fn work(
        &mut self,
        weights: &Path,
        settings: Resolved,
        worker: WorkerRole,
        stop: &Stop,
        session: &Session,
    ) -> Result<(), Failure> {
        let left: Vec<usize> =
            (0..self.videos.len()).filter(|position| self.found[*position].is_none()).collect();
        if left.is_empty() {
            return self.write_together();
        }
        let request = DetectRequest {
            weights: weights.to_owned(),
            settings: Box::new(settings),
            videos: left.iter().map(|position| self.videos[*position].clone()).collect(),
        };
        let bar = session.console.bar("detecting");
        bar.set_length(left.len() as u64);
        let (mut written, mut writing) = (Instant::now(), Duration::ZERO);
        let ended = (worker.detect)(&request, stop, &mut |index, found| {
            bar.inc(1);
            let position = left[index];
            let kept =
                found.and_then(|found| Ok((self.records.file(&self.videos[position], &found)?, found)));
            let (file, found) = match kept {
                Ok(kept) => kept,
                Err(failure) => {
                    self.bad.push((position, failure));
                    return Ok(());
                }
            };
            // Where one result cannot be written, the next cannot either.
            self.records.write(&self.videos[position], &file)?;
            self.found[position] = Some(found);
            if written.elapsed() >= WRITING_SHARE * writing {
                let begun = Instant::now();
                self.write_together()?;
                (written, writing) = (Instant::now(), begun.elapsed());
            }
            Ok(())
        });
        bar.finish_and_clear();
        if self.done() > 0 {
            self.write_together()?;
        }
        ended
    }

    fn write_together(&self) -> Result<(), Failure> {
        files::write_whole(&self.out.detections, together(&self.found).detections.to_json().as_bytes())
    }

    /// The end by a signal, with results that are kept.
    fn interrupted(&self, args: &DetectArgs, weights: &Path, session: &Session) -> ExitCode {
        let (done, all) = (self.done(), counted(self.videos.len(), "video"));
        session.console.say(&format!("stopped by a signal; {done} of {all} done, which are kept"));
        let weights = shell(weights);
        let out = shell(&args.out);
        session.console.say(&format!(
            "go on with: longtake detect {weights} VIDEO ... --out {out} --resume (with the same videos and settings)"
        ));
        ExitCode::Preempted
    }

    /// Why there is no result at all: the failure itself of an only video.
    fn nothing_found(mut self) -> Failure {
        if self.videos.len() == 1
            && let Some((_, failure)) = self.bad.pop()
        {
            return failure;
        }
        self.failure()
    }

    fn failure(&self) -> Failure {
        let all = counted(self.videos.len(), "video");
        let lines: Vec<String> = self.bad.iter().map(|(_, failure)| sentence(failure)).collect();
        let message = format!("{} of {all} could not be searched\n  {}", self.bad.len(), lines.join("\n  "));
        Failure::new(message).hint("mend or leave out these videos; `--resume` skips those that are done")
    }

    fn conclude(self, conclusion: &Conclusion<'_>, session: &Session) -> Result<ExitCode, Failure> {
        let Conclusion { args, weights, truth, resumed } = *conclusion;
        let detected = together(&self.found);
        let videos = &detected.detections.videos;
        if let Some(warning) = cut_short(&detected) {
            session.console.warn(&warning);
        }
        if let Some(truth) = truth {
            for video in videos.iter().filter(|video| annotated(truth, video).is_none()) {
                session.console.warn(&format!("the annotations do not name the video `{video}`"));
            }
        }
        let title = format!("Detections of {}", weights.display());
        let shown = picture(&title, args.threshold, &detected, truth, 0..videos.len());
        files::write_whole(&self.out.timeline, timeline::draw(&shown).as_bytes())?;

        let mut text = listing(&detected, args.threshold, &[&self.out.detections, &self.out.timeline]);
        if resumed > 0 {
            put(&mut text, format_args!("{} had been done before\n", counted(resumed, "video")));
        }
        let failed: Vec<_> =
            self.bad.iter().map(|(position, failure)| self.complaint(*position, failure)).collect();
        let value = json!({
            "detections": self.out.detections,
            "timeline": self.out.timeline,
            "videos": videos,
            "resumed": resumed,
            "cut": detected.cut,
            "failed": failed,
        });
        session.console.result(&text, &value)?;
        if self.bad.is_empty() { Ok(ExitCode::Done) } else { Ok(session.console.complain(&self.failure())) }
    }

    fn complaint(&self, position: usize, failure: &Failure) -> serde_json::Value {
        let NamedVideo { name, path } = &self.videos[position];
        json!({ "video": name, "path": path, "message": failure.message, "hint": failure.hint })
    }
}

/// What is wrong and what to do, in one line.
fn sentence(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message.clone(),
    }
}

/// What the limit of detections a video has left out, as a sentence; nothing where it left out nothing.
pub(super) fn cut_short(detected: &Detected) -> Option<String> {
    let cut: Vec<(&String, usize)> = detected
        .detections
        .videos
        .iter()
        .zip(detected.cut.iter().copied())
        .filter(|(_, cut)| *cut > 0)
        .collect();
    let (first, _) = cut.first()?;
    let count: usize = cut.iter().map(|(_, cut)| cut).sum();
    let others = match cut.len() - 1 {
        0 => String::new(),
        1 => " and of one more video".to_owned(),
        more => format!(" and of {more} more videos"),
    };
    Some(format!(
        "the limit `evaluation.max_detections` left out {} with the lowest scores, of `{first}`{others}; -1 keeps all",
        counted(count, "detection")
    ))
}

/// The surest detections of each video, and where the files lie.
fn listing(detected: &Detected, threshold: f64, written: &[&Path]) -> String {
    let mut text = String::new();
    for (video, id) in detected.detections.videos.iter().enumerate() {
        let mut sure = found(&detected.detections, video);
        sure.retain(|found| found.score >= threshold);
        let duration = detected.durations.get(video).copied().unwrap_or_default();
        put(&mut text, format_args!("{id} ({duration}): {} from score {threshold:.2} on\n", sure.len()));
        for found in sure.iter().take(LISTED) {
            let (segment, score) = (&found.segment, found.score);
            let (start, end) = (segment.start.0, segment.end.0);
            put(&mut text, format_args!("  {score:.2}  {start:>8.1} s to {end:>8.1} s  {}\n", segment.label));
        }
        if sure.len() > LISTED {
            put(&mut text, format_args!("  and {} more\n", sure.len() - LISTED));
        }
    }
    for path in written {
        put(&mut text, format_args!("wrote {}\n", path.display()));
    }
    text
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use longtake_shared::metrics::{Detection, Detections};
    use longtake_shared::units::Seconds;

    use super::*;

    #[test]
    fn the_listing_names_the_surest_and_counts_the_rest() {
        let items = (0..7u32)
            .map(|index| {
                let start = f64::from(index);
                Detection { video: 0, label: 0, start, end: start + 1.5, score: 0.9 - 0.1 * start }
            })
            .collect();
        let detections = Detections { videos: vec!["pool".into()], labels: vec!["dive".into()], items };
        let detected = Detected { detections, durations: vec![Seconds(42.0)], cut: vec![0] };
        let text = listing(&detected, 0.35, &[Path::new("detections/timeline.svg")]);
        insta::assert_snapshot!(text, @r"
        pool (42.0 s): 6 from score 0.35 on
          0.90       0.0 s to      1.5 s  dive
          0.80       1.0 s to      2.5 s  dive
          0.70       2.0 s to      3.5 s  dive
          0.60       3.0 s to      4.5 s  dive
          0.50       4.0 s to      5.5 s  dive
          and 1 more
        wrote detections/timeline.svg
        ");
    }

    #[test]
    fn what_the_limit_left_out_is_told() {
        let detections = Detections {
            videos: vec!["pool".into(), "sea".into(), "lake".into()],
            labels: Vec::new(),
            items: Vec::new(),
        };
        let of = |cut| Detected { detections: detections.clone(), durations: Vec::new(), cut };
        assert_eq!(cut_short(&of(vec![0; 3])), None);
        assert_eq!(cut_short(&of(Vec::new())), None);
        insta::assert_snapshot!(cut_short(&of(vec![0, 1160, 0])).unwrap(), @"the limit `evaluation.max_detections` left out 1160 detections with the lowest scores, of `sea`; -1 keeps all");
        insta::assert_snapshot!(cut_short(&of(vec![3, 0, 4])).unwrap(), @"the limit `evaluation.max_detections` left out 7 detections with the lowest scores, of `pool` and of one more video; -1 keeps all");
    }
}

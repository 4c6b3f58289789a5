//! Videos that cannot be read while a run lives: it goes on without their samples, up to the share `data.max_damaged` of a subset.
//!
//! Takes: what readers of videos complain of. Gives: one decision that is the same on all ranks. Whether any rank has found
//! more travels in the control bucket; only then do the ranks tell each other which videos these are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longtake_shared::config::DataConfig;
use longtake_shared::dataset::{Dataset, Subset};
use longtake_shared::hint::{Failure, Hint};
use longtake_shared::ids::VideoIndex;

use crate::data::loader::{LoadError, SourceError};
use crate::data::video::VideoError;
use crate::train::TrainError;
use crate::train::run::context::RunContext;

/// What a run does without, where it cannot read a training video.
pub(in crate::train) const WITHOUT_SAMPLES: &str = "`skipped_samples` counts what training lacks of it";

/// The same for a validation video.
pub(in crate::train) const WITHOUT_DETECTIONS: &str = "it has no detections";

/// Damaged videos that an error names.
const NAMED: usize = 5;

/// Why a video cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The disk or network share fails: it may do better later.
    Storage,
    /// The file is damaged, or no decoder reads it.
    File,
}

impl Cause {
    /// Of what a video's reader says.
    pub fn of_video(error: &VideoError) -> Self {
        if error.fault.is_of_storage() { Self::Storage } else { Self::File }
    }

    /// Of what a sample's reader says.
    pub fn of_sample(error: &LoadError) -> Self {
        let LoadError::Source { source, .. } = error else { return Self::File };
        let direct = source.downcast_ref::<VideoError>();
        let kept = || source.downcast_ref::<Arc<VideoError>>().map(AsRef::as_ref);
        direct.or_else(kept).map_or(Self::File, Self::of_video)
    }
}

/// Damaged videos as a worker knows them, from one generation to the next. Any number of threads may share it.
#[derive(Debug, Default)]
pub struct Damage(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Videos that this worker or another rank has found.
    videos: BTreeMap<VideoIndex, Cause>,
    /// Those of which all ranks of this generation know.
    shared: BTreeSet<VideoIndex>,
    /// Videos that had no length when memory was laid out for them: they stay closed, so that they never have rows it lacks.
    closed: BTreeMap<VideoIndex, Arc<VideoError>>,
}

impl Damage {
    /// A new generation begins: its other ranks may know of none of the videos.
    pub(in crate::train) fn begin_generation(&self) {
        self.known().shared.clear();
    }

    /// Notes a video; whether this worker has not known of it.
    pub(in crate::train) fn note(&self, video: VideoIndex, cause: Cause) -> bool {
        let mut known = self.known();
        let new = !known.videos.contains_key(&video);
        let worst = known.videos.get(&video).map_or(cause, |before| cause.max(*before));
        known.videos.insert(video, worst);
        new
    }

    /// Never opens a video again in this process.
    pub(in crate::train) fn close(&self, video: VideoIndex, error: VideoError) {
        self.known().closed.entry(video).or_insert_with(|| Arc::new(error));
    }

    /// Why a video is not opened.
    pub(in crate::train) fn closed(&self, video: VideoIndex) -> Option<SourceError> {
        let error = self.known().closed.get(&video).cloned();
        error.map(|error| Box::new(error) as SourceError)
    }

    /// Videos that this worker has found since all ranks told each other of them.
    pub(in crate::train) fn unshared(&self) -> usize {
        let known = self.known();
        known.videos.len() - known.shared.len()
    }

    /// A number a video and cause, 0 where it is not known; the sums over ranks say what all know.
    fn to_values(&self, videos: usize) -> Vec<f32> {
        let mut values = vec![0.0; 2 * videos];
        for (video, cause) in &self.known().videos {
            values[2 * video.index() + usize::from(*cause == Cause::Storage)] = 1.0;
        }
        values
    }

    fn learn(&self, sums: &[f32]) {
        let mut known = self.known();
        for (video, sums) in (0u32..).map(VideoIndex).zip(sums.chunks_exact(2)) {
            if sums.iter().any(|ranks| *ranks > 0.0) {
                let cause = if sums[0] > 0.0 { Cause::File } else { Cause::Storage };
                known.videos.insert(video, cause);
                known.shared.insert(video);
            }
        }
    }

    /// Damaged videos of a subset.
    pub(in crate::train) fn of_subset(
        &self,
        dataset: &Dataset,
        subset: Subset,
    ) -> BTreeMap<VideoIndex, Cause> {
        let all = self.known().videos.clone();
        all.into_iter().filter(|(video, _)| dataset.video(*video).subset == subset).collect()
    }

    /// Damaged videos of both subsets.
    pub(in crate::train) fn count(&self) -> usize {
        self.known().videos.len()
    }

    /// # Errors
    /// A subset has more damaged videos than the settings tolerate.
    pub(in crate::train) fn judge(
        &self,
        dataset: &Dataset,
        config: &DataConfig,
    ) -> Result<(), TooMuchDamage> {
        for subset in [Subset::Training, Subset::Validation] {
            let damaged = self.of_subset(dataset, subset);
            let videos = dataset.subset(subset).len();
            if !config.tolerates(damaged.len(), videos) {
                return Err(TooMuchDamage {
                    subset,
                    damaged: damaged.len(),
                    videos,
                    limit: config.max_damaged,
                    first: names(dataset, damaged.keys()),
                    cause: damaged.values().copied().min().unwrap_or(Cause::File),
                });
            }
        }
        Ok(())
    }

    /// It holds plain data that every operation leaves whole, so a panic of another thread does not spoil it.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids of the first of some videos, in backticks.
pub(in crate::train) fn names<'v>(dataset: &Dataset, videos: impl Iterator<Item = &'v VideoIndex>) -> String {
    let mut ids = videos.map(|video| format!("`{}`", dataset.video(*video).id));
    let first: Vec<String> = ids.by_ref().take(NAMED).collect();
    match ids.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// More videos cannot be read than a run may leave out.
#[derive(Debug, thiserror::Error)]
#[error(
    "{damaged} of {videos} {} videos cannot be read, more than the share {limit} that `data.max_damaged` allows: {first}",
    subset.name()
)]
pub struct TooMuchDamage {
    /// The subset.
    pub subset: Subset,
    /// Its damaged videos.
    pub damaged: usize,
    /// All its videos.
    pub videos: usize,
    /// `data.max_damaged`.
    pub limit: f64,
    /// The ids of the first damaged ones.
    pub first: String,
    /// Storage where that failed for any of them: a later start may do better.
    pub cause: Cause,
}

impl Hint for TooMuchDamage {
    fn hint(&self) -> Option<String> {
        Some(match self.cause {
            Cause::Storage => {
                "check the disk or network share that the videos lie on, then go on with `longtake train --resume RUN`".into()
            }
            Cause::File => "`longtake data check CONFIG --thorough` says what is wrong with each; copy these files again, \
                            list them in the file `data.blocked`, or raise `data.max_damaged`"
                .into(),
        })
    }
}

impl RunContext {
    /// Notes that a video cannot be read; `without` says what is left out because of that. A video is told of once.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn note_damage(
        &self,
        video: VideoIndex,
        cause: Cause,
        why: &str,
        without: &str,
    ) -> Result<(), TrainError> {
        if self.place.damage.note(video, cause) {
            let id = &self.place.dataset.video(video).id;
            let text = format!("video `{id}` is left out: {why}; {without}");
            self.session.warning(self.assignment.generation, text)?;
        }
        Ok(())
    }

    /// Notes the training video of a sample that cannot be read.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn note_unreadable(&self, video: VideoIndex, error: LoadError) -> Result<(), TrainError> {
        let cause = Cause::of_sample(&error);
        self.note_damage(video, cause, &Failure::from(error).message, WITHOUT_SAMPLES)
    }

    /// All ranks tell each other of damaged videos where any rank has found some: `found` is the sum over ranks of
    /// `Damage::unshared`, so that all ranks do this at the same boundary and come to the same decision.
    ///
    /// # Errors
    /// More videos are damaged than the settings tolerate, or the generation was aborted.
    pub fn share_damage(&self, found: f32) -> Result<(), TrainError> {
        if found == 0.0 {
            return Ok(());
        }
        let mut values = self.place.damage.to_values(self.place.dataset.videos.len());
        self.collective.with(|collective| collective.all_reduce(&mut values))?;
        self.place.damage.learn(&values);
        Ok(self.place.damage.judge(&self.place.dataset, &self.place.config.data)?)
    }
}

#[cfg(test)]
mod tests {
    use longtake_shared::dataset::Video;
    use longtake_shared::units::Seconds;

    use super::*;
    use crate::control::FailureScope;

    /// `training` videos `t0`, `t1`, ..., then four validation videos `v0` to `v3`.
    fn dataset(training: usize) -> Dataset {
        let video = |id: String, subset| Video {
            path: format!("{id}.mp4").into(),
            id,
            subset,
            duration: Seconds(9.0),
            actions: vec![],
        };
        let mut videos: Vec<Video> =
            (0..training).map(|index| video(format!("t{index}"), Subset::Training)).collect();
        videos.extend((0..4).map(|index| video(format!("v{index}"), Subset::Validation)));
        Dataset { classes: vec![], videos, remarks: vec![] }
    }

    fn tolerating(max_damaged: f64) -> DataConfig {
        DataConfig { max_damaged, ..DataConfig::default() }
    }

    #[test]
    fn distinct_videos_are_counted_against_their_own_subset() {
        let (dataset, damage) = (dataset(20), Damage::default());
        assert!(damage.note(VideoIndex(3), Cause::File));
        assert!(!damage.note(VideoIndex(3), Cause::File), "the second sample of a video is nothing new");
        assert!(damage.note(VideoIndex(7), Cause::File));
        assert!(damage.judge(&dataset, &tolerating(0.1)).is_ok(), "2 of 20 are a tenth");
        let error = damage.judge(&dataset, &tolerating(0.09)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 of 20 training videos cannot be read, more than the share 0.09 that `data.max_damaged` allows: `t3`, `t7`"
        );
        assert!(damage.note(VideoIndex(21), Cause::File));
        let error = damage.judge(&dataset, &tolerating(0.2)).unwrap_err();
        assert!(error.to_string().starts_with("1 of 4 validation videos cannot be read"), "{error}");
        assert_eq!(TrainError::from(error).scope(), FailureScope::Forever);
    }

    #[test]
    fn storage_that_fails_may_do_better_at_a_later_start() {
        let (dataset, damage) = (dataset(4), Damage::default());
        damage.note(VideoIndex(0), Cause::File);
        damage.note(VideoIndex(1), Cause::Storage);
        let error = TrainError::from(damage.judge(&dataset, &tolerating(0.25)).unwrap_err());
        assert_eq!(error.scope(), FailureScope::Run);
        assert!(error.hint().unwrap().starts_with("check the disk"), "{error:?}");
    }

    #[test]
    fn ranks_that_add_what_they_know_know_the_same() {
        let (dataset, ranks) = (dataset(6), [Damage::default(), Damage::default()]);
        ranks[0].note(VideoIndex(0), Cause::Storage);
        ranks[0].note(VideoIndex(2), Cause::Storage);
        ranks[1].note(VideoIndex(2), Cause::File);
        ranks[1].note(VideoIndex(8), Cause::File);
        let values = ranks.each_ref().map(|rank| rank.to_values(dataset.videos.len()));
        let sums: Vec<f32> = values[0].iter().zip(&values[1]).map(|(a, b)| a + b).collect();
        for rank in &ranks {
            assert_eq!(rank.unshared(), 2);
            rank.learn(&sums);
            assert_eq!((rank.unshared(), rank.count()), (0, 3));
            let training = rank.of_subset(&dataset, Subset::Training);
            assert_eq!(
                training.into_iter().collect::<Vec<_>>(),
                [(VideoIndex(0), Cause::Storage), (VideoIndex(2), Cause::File)]
            );
        }
        ranks[0].begin_generation();
        assert_eq!(ranks[0].unshared(), 3, "a worker that comes new is told of all of them");
    }

    #[test]
    fn an_error_names_the_first_videos() {
        let (dataset, damage) = (dataset(20), Damage::default());
        assert!((0..7).all(|video| damage.note(VideoIndex(video), Cause::File)));
        let error = damage.judge(&dataset, &tolerating(0.01)).unwrap_err();
        assert!(error.to_string().ends_with(": `t0`, `t1`, `t2`, `t3`, `t4` and 2 more"), "{error}");
    }
}

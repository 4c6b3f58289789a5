//! Steps that were not finite are counted, in both stages alike; too many in a row end the run.

use longtake_shared::checkpoint::Counters;
use longtake_shared::ids::Step;
use longtake_shared::protocol::SavedStage;

use crate::train::TrainError;

/// Counts a step that has been taken; `applied` says whether it moved the weights.
///
/// # Errors
/// It is the `limit`th in a row that did not.
pub fn note(
    counters: &mut Counters,
    applied: bool,
    limit: u64,
    (stage, step): (SavedStage, Step),
) -> Result<(), TrainError> {
    if applied {
        counters.non_finite_in_a_row = 0;
        return Ok(());
    }
    counters.non_finite_steps += 1;
    counters.non_finite_in_a_row += 1;
    let in_a_row = counters.non_finite_in_a_row;
    if in_a_row >= limit { Err(TrainError::NotFinite { stage, step, in_a_row }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use longtake_shared::hint::Hint as _;

    use super::*;
    use crate::control::FailureScope;

    /// Takes steps that are finite or not; the one that ended the run.
    fn ends_at(limit: u64, applied: &[bool]) -> (Counters, Option<TrainError>) {
        let mut counters = Counters::default();
        for (step, applied) in (1..).map(Step).zip(applied) {
            if let Err(error) = note(&mut counters, *applied, limit, (SavedStage::Train, step)) {
                return (counters, Some(error));
            }
        }
        (counters, None)
    }

    #[test]
    fn only_steps_in_a_row_end_the_run_and_the_last_of_them_does() {
        let (counters, end) = ends_at(3, &[false, false, true, false, false, true]);
        assert!(end.is_none());
        assert_eq!((counters.non_finite_steps, counters.non_finite_in_a_row), (4, 0));
        let (counters, end) = ends_at(3, &[false, true, false, false, false, true]);
        assert!(matches!(end, Some(TrainError::NotFinite { step: Step(5), in_a_row: 3, .. })), "{end:?}");
        assert_eq!((counters.non_finite_steps, counters.non_finite_in_a_row), (4, 3));
        assert!(matches!(ends_at(1, &[false]).1, Some(TrainError::NotFinite { step: Step(1), .. })));
    }

    #[test]
    fn no_other_start_is_tried_and_the_settings_of_the_stage_are_named() {
        for (stage, setting) in [
            (SavedStage::Pretrain, "`pretrain.optim.learning_rate`"),
            (SavedStage::Train, "`optim.learning_rate`"),
        ] {
            let error = note(&mut Counters::default(), false, 1, (stage, Step(7))).unwrap_err();
            assert_eq!(error.scope(), FailureScope::Forever);
            assert_eq!(
                error.to_string(),
                "loss or gradient were not finite in 1 steps in a row, up to step 7"
            );
            assert!(error.hint().unwrap().contains(setting), "{error:?}");
        }
    }
}

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::*;

fn ring() -> (tempfile::TempDir, PathBuf, FlightLog, Recorder) {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), 3);
    let log = FlightLog::create(&path, Duration::from_millis(40)).unwrap();
    let recorder = Recorder::open(&path).unwrap();
    (folder, path, log, recorder)
}

#[test]
fn what_is_entered_is_read_back_with_how_long_it_took() {
    let (_folder, _, log, recorder) = ring();
    assert_eq!(log.read().unwrap().records, []);
    recorder.enter(Generation(2), Step(7), StepPhase::Look);
    recorder.enter(Generation(2), Step(7), StepPhase::Judge);
    let flight = log.read().unwrap();
    let [look, judge] = flight.records[..] else { panic!("two records: {flight:?}") };
    assert_eq!(
        (look.sequence, look.generation, look.step, look.phase),
        (1, Generation(2), Step(7), StepPhase::Look)
    );
    assert!(!look.resumed && !judge.resumed);
    recorder.resume(Generation(2), Step(7), StepPhase::Judge);
    let resumed = log.read().unwrap().records[2];
    assert_eq!((resumed.phase, resumed.resumed), (StepPhase::Judge, true));
    assert_eq!(look.took, judge.entered_at.checked_sub(look.entered_at));
    assert_eq!((judge.sequence, judge.phase, judge.took), (2, StepPhase::Judge, None));
    assert!(judge.entered_at <= now());
    assert_eq!((flight.pid, flight.torn), (Some(std::process::id()), 0));
    let later = log.read_from(2).unwrap().records;
    assert_eq!((later.len(), later[0].sequence, later[1]), (2, judge.sequence, resumed));
}

#[test]
fn a_worker_rests_once_gives_signs_of_life_as_often_as_it_is_told_and_counts_its_words() {
    let (_folder, _, log, recorder) = ring();
    recorder.turn_to(Generation(1), StepPhase::Idle);
    recorder.enter(Generation(1), Step(4), StepPhase::Save);
    recorder.turn_to(Generation(1), StepPhase::Idle);
    recorder.turn_to(Generation(1), StepPhase::Idle);
    let phases: Vec<_> =
        log.read().unwrap().records.iter().map(|record| (record.step, record.phase)).collect();
    assert_eq!(phases, [(Step(4), StepPhase::Save), (Step(4), StepPhase::Idle)]);

    assert!(log.read().unwrap().alive.is_some(), "whoever has opened it lives");
    assert_eq!(recorder.beat_period(), Duration::from_millis(40));
    let before = now();
    recorder.beat();
    assert!(log.read().unwrap().alive.is_some_and(|alive| alive >= before && alive <= now()));
    assert_eq!(log.read().map(|flight| (flight.awaited, flight.said)).unwrap(), (0, 0));
    recorder.awaits_control();
    recorder.says();
    recorder.says();
    assert_eq!(log.read().map(|flight| (flight.awaited, flight.said)).unwrap(), (1, 2));
    log.set_beat(Duration::from_millis(7)).unwrap();
    assert_eq!(recorder.beat_period(), Duration::from_millis(7));
}

#[test]
fn the_newest_records_replace_the_oldest() {
    let (_folder, _, log, recorder) = ring();
    for step in 0..RECORDS + 10 {
        recorder.enter(Generation(1), Step(step), StepPhase::Move);
    }
    let flight = log.read().unwrap();
    assert_eq!((flight.records.len() as u64, flight.torn), (RECORDS, 0));
    assert_eq!((flight.records[0].step, flight.records.last().unwrap().step), (Step(10), Step(RECORDS + 9)));
}

#[test]
fn a_record_that_is_half_written_is_left_out_and_counted() {
    let (_folder, path, log, recorder) = ring();
    for step in 0..5 {
        recorder.enter(Generation(1), Step(step), StepPhase::Data);
    }
    let file = File::options().write(true).open(&path).unwrap();
    // The step of the third record, as a process that dies between two stores would leave it.
    file.write_all_at(&99_u64.to_ne_bytes(), 8 * (place(3) + 2) as u64).unwrap();
    let flight = log.read().unwrap();
    let steps: Vec<_> = flight.records.iter().map(|record| record.step.0).collect();
    assert_eq!((steps, flight.torn), (vec![0, 1, 3, 4], 1));
    // What came before the torn one did not end when the one after it began.
    assert_eq!(flight.records[1].took, None);
}

#[test]
fn a_record_that_a_killed_process_had_not_named_yet_is_found() {
    let (_folder, path, log, recorder) = ring();
    recorder.enter(Generation(1), Step(1), StepPhase::Data);
    recorder.enter(Generation(1), Step(1), StepPhase::Look);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&1_u64.to_ne_bytes(), 8 * header::NEWEST as u64).unwrap();
    assert_eq!(log.read().unwrap().records.len(), 2);
}

#[test]
fn the_ring_of_the_process_before_is_kept_aside() {
    let (_folder, path, _, recorder) = ring();
    recorder.enter(Generation(1), Step(5), StepPhase::Replay);
    let log = FlightLog::create(&path, Duration::ZERO).unwrap();
    assert_eq!(log.read().unwrap().records, []);
    // The earlier process may still write: it writes into its own.
    recorder.enter(Generation(1), Step(6), StepPhase::Replay);
    assert_eq!(log.read().unwrap().records, []);
    assert_eq!(FlightLog::open(&earlier(&path)).unwrap().read().unwrap().records.len(), 2);
}

#[test]
fn other_files_are_no_rings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    std::fs::write(&path, vec![1; FILE_BYTES]).unwrap();
    assert!(FlightLog::open(&path).is_err());
    assert!(Recorder::open(&path).is_err());
    std::fs::write(&path, "short").unwrap();
    assert!(Recorder::open(&path).is_err());
}

#[test]
fn a_record_costs_little() {
    let (_folder, _, _, recorder) = ring();
    let rounds = 10 * RECORDS;
    let cost = (0..5)
        .map(|_| {
            let begin = Instant::now();
            for step in 0..rounds {
                recorder.enter(Generation(1), Step(step), StepPhase::Move);
            }
            begin.elapsed() / rounds as u32
        })
        .min()
        .unwrap_or_default();
    // The bound is for a loaded machine; the figure itself is in the test's output.
    eprintln!("one record: {} ns", cost.as_nanos());
    assert!(cost < Duration::from_micros(5), "{cost:?}");
}

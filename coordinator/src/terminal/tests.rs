use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use longtake_shared::ids::{Epoch, Generation, Step};
use longtake_shared::units::Seconds;

use super::metrics_file::MetricsFile;
use super::reporter::{Reporter, View};
use super::summary::Summary;
use crate::updates::{Outcome, Progress, RunUpdate, Stage};

/// A sink whose text can be read afterwards.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test thread panics while writing").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn step(done: u64, elapsed: f64) -> RunUpdate {
    let numbers = [("clips_per_second", 15.43), ("mean_age", 7.25), ("skipped_samples", 0.0)];
    RunUpdate::Progress(Progress {
        stage: Stage::Train,
        done,
        total: 48,
        epoch: Epoch((done - 1) / 12),
        loss: Some(1.5 / done as f64),
        numbers: numbers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        elapsed: Seconds(elapsed),
    })
}

fn video(stage: Stage, done: u64, elapsed: f64) -> RunUpdate {
    RunUpdate::Progress(Progress {
        stage,
        done,
        total: 10,
        epoch: Epoch(0),
        loss: None,
        numbers: BTreeMap::new(),
        elapsed: Seconds(elapsed),
    })
}

fn a_run() -> Vec<RunUpdate> {
    let mut updates = vec![
        RunUpdate::Gathering { present: 1, needed: 2 },
        RunUpdate::Waiting { present: 1, needed: 2, missing: vec![1] },
        RunUpdate::Waiting { present: 0, needed: 2, missing: vec![0, 1] },
        RunUpdate::Formed { generation: Generation(1), world: 2 },
        RunUpdate::Stage { stage: Stage::Memory, total: 10, done: 0 },
    ];
    updates.extend((1..=10u32).map(|n| video(Stage::Memory, u64::from(n), f64::from(n) * 0.8)));
    updates.push(RunUpdate::Stage { stage: Stage::Train, total: 48, done: 0 });
    updates.extend((1..=48u32).map(|n| step(u64::from(n), f64::from(n) * 0.5)));
    updates.push(RunUpdate::Saved { step: Step(48), sequence: 3 });
    updates.push(RunUpdate::Warning {
        message: "10 rows of lane 3 in the long memory point at no slot of their own and are forgotten"
            .into(),
    });
    updates.push(RunUpdate::Stage { stage: Stage::Validate, total: 10, done: 0 });
    updates.extend((1..=10u32).map(|n| video(Stage::Validate, u64::from(n), f64::from(n) * 4.0)));
    updates.push(RunUpdate::Validated {
        step: Step(48),
        epoch: Epoch(4),
        average_map: 0.4321,
        best: true,
        report: serde_json::Value::Null,
    });
    updates.push(RunUpdate::Finished { outcome: Outcome::Done });
    updates
}

#[test]
fn a_run_in_plain_lines() {
    let page = Page::default();
    let mut reporter = Reporter::new(View::Lines(Box::new(page.clone())), None, Some(4));
    for update in a_run() {
        reporter.show(&update);
    }
    insta::assert_snapshot!(page.text());
}

#[test]
fn a_resumed_run_estimates_from_its_own_steps() {
    let page = Page::default();
    let mut reporter = Reporter::new(View::Lines(Box::new(page.clone())), None, Some(4));
    for update in [
        RunUpdate::Stage { stage: Stage::Train, total: 48, done: 24 },
        step(25, 1.0),
        step(26, 3.0),
        step(27, 5.0),
    ] {
        reporter.show(&update);
    }
    insta::assert_snapshot!(page.text(), @r"
    training: 48 steps, 24 of them done
        train  epoch 3/4  step 25/48  15.4 clips/s  loss 0.0600  memory age 7.2 steps
        train  epoch 3/4  step 26/48  0.50 step/s  15.4 clips/s  loss 0.0577  memory age 7.2 steps  ETA 44 s
        train  epoch 3/4  step 27/48  0.50 step/s  15.4 clips/s  loss 0.0556  memory age 7.2 steps  ETA 42 s
    ");
}

#[test]
fn rows_that_the_memory_lacks_are_shown_where_there_are_any() {
    let page = Page::default();
    let mut reporter = Reporter::new(View::Lines(Box::new(page.clone())), None, Some(4));
    for (done, absent, damaged) in [(1, 96.0, 0.0), (2, 16.0, 3.0), (3, 0.0, 0.0)] {
        let mut update = step(done, 3.0 * done as f64);
        if let RunUpdate::Progress(progress) = &mut update {
            progress.numbers.insert("absent_rows".into(), absent);
            progress.numbers.insert("damaged_rows".into(), damaged);
        }
        reporter.show(&update);
    }
    insta::assert_snapshot!(page.text(), @r"
        train  epoch 1/4  step 1/48  15.4 clips/s  loss 1.5000  memory age 7.2 steps  absent rows 96
        train  epoch 1/4  step 2/48  3.00 s/step  15.4 clips/s  loss 0.7500  memory age 7.2 steps  absent rows 16  damaged rows 3  ETA 2 min 18 s
        train  epoch 1/4  step 3/48  3.00 s/step  15.4 clips/s  loss 0.5000  memory age 7.2 steps  ETA 2 min 15 s
    ");
}

#[test]
fn metrics_hold_every_update_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs/quickstart/metrics.jsonl");
    for half in [&a_run()[..20], &a_run()[20..]] {
        let metrics = MetricsFile::open(&path).unwrap();
        let mut reporter = Reporter::new(View::Lines(Box::new(io::sink())), Some(metrics), None);
        for update in half {
            reporter.show(update);
        }
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let read: Vec<RunUpdate> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, a_run());
}

#[test]
fn a_metrics_file_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let failure = MetricsFile::open(&blocked.join("metrics.jsonl")).unwrap_err();
    assert!(failure.message.contains("metrics.jsonl") && failure.hint.is_some(), "{failure:?}");
}

#[test]
fn what_a_run_leaves_behind() {
    let summary = Summary {
        run: "runs/quickstart".into(),
        results: Some("runs/quickstart/results.json".into()),
        metrics: "runs/quickstart/metrics.jsonl".into(),
        logs: vec!["runs/quickstart/logs/worker-0.log".into(), "runs/quickstart/logs/worker-1.log".into()],
        best_weights: Some("runs/quickstart/best.safetensors".into()),
        checkpoints: Some("runs/quickstart/checkpoints".into()),
        timeline: Some("runs/quickstart/timeline.svg".into()),
        elapsed: Seconds(252.0),
    };
    insta::assert_snapshot!(summary.text(), @r"
      results       runs/quickstart/results.json
      timeline      runs/quickstart/timeline.svg
      best weights  runs/quickstart/best.safetensors
      checkpoints   runs/quickstart/checkpoints
      metrics       runs/quickstart/metrics.jsonl
      logs          runs/quickstart/logs/worker-0.log
                    runs/quickstart/logs/worker-1.log
      took          4 min 12 s

    Find actions in your own video: longtake detect runs/quickstart/best.safetensors VIDEO
    ");
}

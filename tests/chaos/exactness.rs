//! Mode `exact`: a run that was struck is, bit for bit, the run that was not.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::cluster::{members_of, report, send};
use crate::lab::{Lab, until};
use crate::{numbers, rounds};

/// Long enough to be struck often, short enough for CI.
fn length() -> u64 {
    rounds(12, 60) as u64
}

#[test]
fn a_run_whose_workers_are_killed_at_random_ends_with_the_same_bits() {
    let words =
        format!("--set train.epochs={} --set checkpoint.every=1 --set train.validate_every=0", length());
    let whole = Lab::new();
    whole.train(&words);

    let mut numbers = numbers();
    let mut left = rounds(4, 20) as u64;
    let mut runs = 0;
    // A run that was over before the last kill came is followed by another one, with new instants for what is left.
    while left > 0 {
        let struck = Lab::new();
        let killed = kill_at_random(&struck, &words, left, whole.steps().len() as u64, &mut numbers);
        assert_eq!(struck.steps(), whole.steps());
        assert_eq!(struck.parts(), whole.parts());
        eprintln!("{killed} workers killed in {} steps", whole.steps().len());
        left -= killed;
        runs += 1;
        assert!(runs <= 5, "{left} kills came too late again and again");
    }
}

/// Trains to the end with that many kills on the way, one in each part of the run, so that the run comes further between
/// two. Gives how many of them came before the run had done its last step.
fn kill_at_random(lab: &Lab, words: &str, kills: u64, steps: u64, numbers: &mut ChaCha8Rng) -> u64 {
    let mut running = lab.start(&format!("train tiny.toml {words}"));
    let mut killed = 0;
    let part = steps / (kills + 1);
    for kill in 1..=kills {
        let at = kill * part + numbers.random_range(0..part.max(1));
        let (stage, step) = if at < 6 { ("pretrain", at.max(1)) } else { ("train", (at - 5).max(1)) };
        lab.wait_for_step(&mut running, stage, step);
        // Between two generations there may be nobody to kill for a moment.
        let victim = until("a worker to kill", || {
            let members = report(&lab.run("status runs/tiny --json")).map(|status| members_of(&status));
            let victim = members.and_then(|members| members.into_iter().choose(numbers));
            (victim.is_some() || running.has_ended()).then_some(victim)
        });
        let Some(victim) = victim else { break };
        send(victim.pid, Signal::KILL);
        assert!(victim.ends_within(Duration::from_secs(5)));
        // Where steps are still to be done, it did not end by itself.
        killed += u64::from((lab.steps().len() as u64) < steps);
    }
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    killed
}

#[test]
fn a_worker_that_is_lost_after_the_newest_checkpoint_was_damaged_costs_no_bit() {
    const EVERY: u64 = 20;
    let words = format!("--set train.epochs=40 --set checkpoint.every={EVERY} --set train.validate_every=0");
    let whole = Lab::new();
    whole.train(&words);

    let struck = Lab::new();
    let mut running = struck.start(&format!("train tiny.toml {words}"));
    struck.wait_for_step(&mut running, "train", 2 * EVERY + 1);
    let members = struck.workers();
    let all = |signal| members.iter().for_each(|member| send(member.pid, signal));
    // Frozen where no save is on its way.
    until("a moment between two saves", || {
        all(Signal::STOP);
        let told = struck.steps().last_key_value().map_or(0, |((_, step), _)| *step);
        // The last one that was due is in the chain, and the next is not due yet.
        let mut saves = struck.metrics().into_iter().filter(|line| line["event"] == "saved");
        let saved = saves.next_back().is_some_and(|saved| saved["step"] == told - told % EVERY);
        let between = saved && (2..EVERY - 2).contains(&(told % EVERY));
        if !between {
            all(Signal::CONT);
        }
        between.then_some(())
    });
    let newest = struck.newest();
    let part = struck.path("runs/tiny").join(newest.model.object());
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    send(members[0].pid, Signal::KILL);
    send(members[1].pid, Signal::CONT);
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    let told = format!("{}` does not match the hash that is its name", newest.model.object());
    assert!(said.stderr.contains(&told) && said.stderr.contains("is passed over"), "{said:?}");
    assert_eq!(struck.steps(), whole.steps());
    assert_eq!(struck.parts(), whole.parts());
    assert!(struck.path("runs/tiny/damaged").join(newest.model.hash.to_string()).is_file());
    let said = struck.run("checkpoint verify runs/tiny");
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn any_sequence_of_worlds_meets_the_same_samples() {
    let words = "--set synth.training_videos=6 --set train.lanes=6 --set train.epochs=40 --set pretrain.steps=0 \
         --set train.validate_every=0 --set checkpoint.every=1";
    let whole = Lab::fresh();
    whole.train(&format!("{words} --set cluster.workers=1"));

    let path = [4usize, 3, 4, 2, 6];
    let struck = Lab::fresh();
    let mut command = format!("train tiny.toml {words} --set cluster.workers={}", path[0]);
    for (place, world) in path.iter().enumerate() {
        let mut running = struck.start(&command);
        struck.wait_for_step(&mut running, "train", 6 * (place as u64 + 1));
        let last = place + 1 == path.len();
        if !last {
            running.signal(Signal::TERM);
        }
        let said = running.end();
        assert_eq!(said.code, Some(if last { 0 } else { 75 }), "world {world}: {said:?}");
        if let Some(next) = path.get(place + 1) {
            command = format!("train --resume runs/tiny --set cluster.workers={next}");
        }
    }
    let (one, many) = (whole.steps(), struck.steps());
    assert!(one.keys().eq(many.keys()));
    for (step, value) in &one {
        assert_same_step(step, value, &many[step]);
    }
    let (one, many) = (parameters(&whole), parameters(&struck));
    assert!(one.keys().eq(many.keys()));
    let is_statistic = |name: &str| name.contains("running_");
    let learned = distance(&one, &many, |name| !is_statistic(name));
    let statistics = distance(&one, &many, is_statistic);
    eprintln!("parameters differ by {learned:.1e} of their length, statistics by {statistics:.1e}");
    // AdamW moves a parameter by the learning rate however small its gradient is, so rounding grows: to 5e-4 and 1e-2 in
    // these forty steps. Statistics follow activations, which add up many parameters.
    assert!(learned < 3e-3, "{learned}");
    assert!(statistics < 5e-2, "{statistics}");
}

/// How far two models are from each other, as a part of the length of the first, in what has such a name.
fn distance(one: &Model, many: &Model, chosen: impl Fn(&str) -> bool) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let (mut apart, mut length) = (0.0, 0.0);
    for (name, values) in one.iter().filter(|(name, _)| chosen(name)) {
        assert_eq!(values.len(), many[name].len(), "{name}");
        apart += values.iter().zip(&many[name]).map(|(one, many)| square(one - many)).sum::<f64>();
        length += values.iter().copied().map(square).sum::<f64>();
    }
    (apart / length).sqrt()
}

/// Sums over ranks, which are rounded in another order in another world, and how far they may be apart. What is rounded grows
/// from step to step (see above); all other numbers are the same, above all which samples a step had.
const ROUNDED: [(&str, f64); 4] =
    [("class_loss", 1e-2), ("gradient_norm", 1e-1), ("mean_age", 1e-6), ("regression_loss", 1e-2)];

fn assert_same_step(step: &(String, u64), one: &Value, many: &Value) {
    let near = |name: &str, one: &Value, many: &Value, bound: f64| {
        let (one, many) = (one.as_f64().unwrap(), many.as_f64().unwrap());
        assert!((one - many).abs() <= bound * one.abs(), "{name} of {step:?}: {one} and {many}");
    };
    // The bound is that of the suite of whole runs.
    near("loss", &one["loss"], &many["loss"], 1e-3);
    let (one, many) = (one["numbers"].as_object().unwrap(), many["numbers"].as_object().unwrap());
    assert!(one.contains_key("sample_ids"), "{one:?}");
    assert!(one.keys().eq(many.keys()), "{step:?}: {one:?} and {many:?}");
    for (name, value) in one {
        match ROUNDED.iter().find(|(rounded, _)| rounded == name) {
            Some((_, bound)) => near(name, value, &many[name], *bound),
            None => assert_eq!(*value, many[name], "{name} of {step:?}"),
        }
    }
}

/// Values by name.
type Model = BTreeMap<String, Vec<f32>>;

/// What the newest checkpoint's model holds, by name.
fn parameters(lab: &Lab) -> Model {
    let part = std::fs::read(lab.path("runs/tiny").join(lab.newest().model.object())).unwrap();
    let tensors = SafeTensors::deserialize(&part).unwrap();
    let values = |tensor: TensorView<'_>| {
        let words = tensor.data().as_chunks().0.iter();
        words.map(|word| f32::from_le_bytes(*word)).collect()
    };
    let floats = tensors.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::F32);
    floats.map(|(name, tensor)| (name.to_owned(), values(tensor))).collect()
}

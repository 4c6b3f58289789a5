//! `longtake detect`: settings on top of those the weights carry, and many videos of which some are bad or not reached.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{Lab, until};

/// A run that has trained for one step: it finds something, whatever it is.
fn trained() -> Lab {
    let lab = Lab::new();
    lab.train("--set pretrain.steps=0 --set train.max_steps=1");
    lab
}

fn copy(lab: &Lab, to: &str) {
    let to = lab.path(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(lab.path("data/videos/val_000.mp4"), to).unwrap();
}

fn cut(lab: &Lab, to: &str) {
    copy(lab, to);
    let bytes = fs::read(lab.path(to)).unwrap();
    fs::write(lab.path(to), &bytes[..bytes.len() / 2]).unwrap();
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn names(lab: &Lab, out: &str) -> Vec<String> {
    let results = json(&lab.path(&format!("{out}/detections.json")));
    results["results"].as_object().unwrap().keys().cloned().collect()
}

/// Files below a folder that are only there while another one is written.
fn drafts(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("partial") {
            found.push(path.display().to_string());
        }
        if path.is_dir() && !path.is_symlink() {
            found.extend(drafts(&path));
        }
    }
    found
}

#[test]
fn what_is_typed_applies_on_top_of_the_settings_that_weights_carry() {
    let lab = trained();
    copy(&lab, "a.mp4");
    let found = |lab: &Lab, words: &str| {
        let said = lab.run(&format!("detect runs/tiny a.mp4 {words}"));
        assert_eq!(said.code, Some(0), "{said:?}");
        json(&lab.path("detections/detections.json"))["results"]["a"].as_array().unwrap().len()
    };
    assert_eq!(found(&lab, ""), 20, "what `tiny.toml` says");
    assert_eq!(found(&lab, "--set evaluation.max_detections=3"), 3);
    let variable = ("LONGTAKE__EVALUATION__MAX_DETECTIONS".to_owned(), "2".to_owned());
    let lab = lab.with_variables(vec![variable]);
    assert_eq!(found(&lab, ""), 2, "of the environment");
    assert_eq!(found(&lab, "--set evaluation.max_detections=3"), 3, "`--set` is above the environment");

    cut(&lab, "cut.mp4");
    let refused = lab.run("detect runs/tiny cut.mp4");
    assert!(refused.stderr.contains("`data.allow_truncated = true`"), "{refused:?}");
    let followed = lab.run("detect runs/tiny cut.mp4 --set data.allow_truncated=true");
    assert_eq!(followed.code, Some(0), "{followed:?}");
}

#[test]
fn settings_that_do_not_exist_or_do_not_fit_the_weights_are_refused() {
    let lab = trained();
    copy(&lab, "a.mp4");
    for (words, says) in [
        (
            "detect runs/tiny a.mp4 --set evaluation.max_detection=3",
            "did you mean `evaluation.max_detections`?",
        ),
        (
            "detect runs/tiny a.mp4 --set model.neck.channels=32",
            "`model.neck.channels` is 32 (--set), but they were trained with 16",
        ),
        // The tensors have the same shapes then, but they would not be used as they were trained.
        ("detect runs/tiny a.mp4 --set model.neck.tdm_heads=4", "`model.neck.tdm_heads` is 4 (--set)"),
        ("evaluate runs/tiny tiny.toml --set model.head.convs=2", "`model.head.convs` is 2 (--set)"),
        (
            "evaluate --predictions runs/tiny/results.json --annotations data/annotations.json --set data.fps=3",
            "`--set data.fps` changes nothing here",
        ),
        ("synth made --set train.epochs=3", "`--set train.epochs` changes nothing here"),
        ("config tiny.toml --set checkpoint.url=foo://bucket/x", "the scheme `foo` is not known"),
        ("detect a.mp4 a.mp4", "the weights `a.mp4`"),
        ("import a.mp4", "weights `a.mp4` cannot be read"),
    ] {
        let said = lab.run(words);
        assert_eq!(said.code, Some(78), "{words}: {said:?}");
        assert!(said.stderr.contains(says) && said.stderr.contains("hint: "), "{words}: {said:?}");
    }
    assert!(!lab.path("detections").exists() && !lab.path("made").exists());
    let said =
        lab.run("detect runs/tiny a.mp4 --set model.loss.focal_gamma=1 --set model.backbone.drop_path=0");
    assert_eq!(said.code, Some(0), "what only training looks at does not matter: {said:?}");
}

#[test]
fn a_bad_video_among_many_is_told_at_the_end_and_the_others_are_kept() {
    let lab = trained();
    for name in ["in/a.mp4", "in/deep/a.mp4", "in/c.MP4"] {
        copy(&lab, name);
    }
    cut(&lab, "in/b.mp4");
    let said = lab.run("detect runs/tiny in missing.mp4 --out got");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(names(&lab, "got"), ["c", "deep/a", "in/a"]);
    assert!(said.stderr.contains("2 of 5 videos could not be searched"), "{said:?}");
    for bad in ["in/b.mp4", "missing.mp4"] {
        assert!(said.stderr.contains(&format!("video `{bad}`")), "{said:?}");
    }
    assert!(said.stdout.contains("wrote got/timeline.svg"), "{said:?}");
    for good in ["c", "deep/a", "in/a"] {
        assert_eq!(
            json(&lab.path(&format!("got/videos/{good}.json")))["results"].as_object().unwrap().len(),
            1
        );
    }

    copy(&lab, "in/b.mp4");
    let said = lab.run("detect runs/tiny in --out got --resume --json");
    assert_eq!(said.code, Some(0), "{said:?}");
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&value["resumed"], value["videos"].as_array().unwrap().len()), (&3.into(), 4), "{value}");
    let whole = lab.run("detect runs/tiny in --out whole");
    assert_eq!(whole.code, Some(0), "{whole:?}");
    let read = |out: &str| fs::read(lab.path(&format!("{out}/detections.json"))).unwrap();
    assert_eq!(read("got"), read("whole"));

    let said = lab.run("detect runs/tiny in --out got --resume --json --set evaluation.max_detections=3");
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(value["resumed"], 0, "found with other settings: {value}");
}

#[test]
fn a_place_that_cannot_be_written_is_told_before_the_work() {
    let lab = trained();
    copy(&lab, "a.mp4");
    fs::write(lab.path("file"), "precious").unwrap();
    for (words, says) in [
        ("detect runs/tiny a.mp4 --out file", "`file` is a file"),
        ("detect runs/tiny a.mp4 --out file/below", "cannot be written"),
        ("evaluate runs/tiny tiny.toml --out file/below.json", "`file/below.json` cannot be written"),
        ("evaluate runs/tiny tiny.toml --out data", "`data` cannot be written"),
        ("import a.mp4 file/b.safetensors", "`file/b.safetensors` cannot be written"),
    ] {
        let said = lab.run(words);
        assert_eq!(said.code, Some(78), "{words}: {said:?}");
        assert!(said.stderr.contains(says), "{words}: {said:?}");
    }
    assert_eq!(fs::read(lab.path("file")).unwrap(), b"precious");
}

#[test]
fn a_signal_keeps_what_is_done_and_leaves_nothing_half_written() {
    let lab = trained();
    for number in 0..40 {
        copy(&lab, &format!("in/{number:02}.mp4"));
    }
    let mut running = lab.start("detect runs/tiny in --out got");
    until("the first result", || {
        (lab.path("got/videos/01.json").exists() || running.has_ended()).then_some(())
    });
    running.signal(Signal::INT);
    let said = running.end();
    assert_eq!(said.code, Some(75), "{said:?}");
    assert!(said.stderr.contains("--resume"), "{said:?}");
    assert_eq!(drafts(&lab.path("got")), Vec::<String>::new());
    let kept = names(&lab, "got").len();
    assert!((2..40).contains(&kept), "{kept}");
    let said = lab.run("detect runs/tiny in --out got --resume");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains(&format!("{kept} videos had been done before")), "{said:?}");
    assert_eq!(names(&lab, "got").len(), 40);
}

#[test]
fn a_signal_to_a_command_that_keeps_nothing_leaves_nothing() {
    let lab = Lab::fresh();
    let many = "--set synth.training_videos=400 --set synth.min_duration=60 --set synth.max_duration=60";
    for (words, signal) in [
        (format!("synth made {many}"), Signal::INT),
        (format!("synth made {many}"), Signal::TERM),
        (format!("train tiny.toml {many}"), Signal::HUP),
    ] {
        let mut running = lab.start(&words);
        until("a video", || {
            let begun = drafts(&lab.path("")).iter().any(|draft| {
                fs::read_dir(Path::new(draft).join("videos")).is_ok_and(|videos| videos.count() > 0)
            });
            (begun || running.has_ended()).then_some(())
        });
        running.signal(signal);
        let said = running.end();
        assert_eq!(said.code, Some(130), "{words}: {said:?}");
        assert!(said.stderr.contains("stopped by a signal"), "{words}: {said:?}");
        assert_eq!(drafts(&lab.path("")), Vec::<String>::new());
        assert!(!lab.path("made").exists() && !lab.path("data").exists() && !lab.path("runs").exists());
    }
}

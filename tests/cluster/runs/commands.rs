//! The commands around a run, on what it leaves behind.

use std::fs;
use std::path::Path;

use longtake_shared::checkpoint::PartRef;
use serde_json::Value;

use crate::lab::Lab;

#[test]
fn a_finished_run_is_detected_evaluated_and_explained() {
    let lab = Lab::new();
    let trained = lab.train("--json");
    let trained: Value = serde_json::from_str(&trained.stdout).unwrap();
    assert!(trained["report"]["average"].is_number(), "{trained}");
    for left in ["results.json", "metrics.jsonl", "timeline.svg", "best.safetensors", "logs/worker-0.log"] {
        assert!(lab.path("runs/tiny").join(left).exists(), "{left}");
    }

    let annotations: Value =
        serde_json::from_slice(&fs::read(lab.path("data/annotations.json")).unwrap()).unwrap();
    let videos = annotations["database"].as_object().unwrap();
    let (video, _) = videos.iter().find(|(_, video)| video["subset"] == "validation").unwrap();
    let said = lab.run(&format!(
        "detect runs/tiny/best.safetensors data/videos/{video}.mp4 --annotations data/annotations.json"
    ));
    assert_eq!(said.code, Some(0), "{said:?}");
    let found: Value =
        serde_json::from_slice(&fs::read(lab.path("detections/detections.json")).unwrap()).unwrap();
    assert!(found["results"][video].is_array(), "{found}");
    let picture = fs::read_to_string(lab.path("detections/timeline.svg")).unwrap();
    assert!(picture.contains("<svg") && picture.contains(video.as_str()));

    let evaluated = lab.run("evaluate runs/tiny tiny.toml --json");
    assert_eq!(evaluated.code, Some(0), "{evaluated:?}");
    let by_file =
        lab.run("evaluate --predictions runs/tiny/results.json --annotations data/annotations.json");
    assert_eq!(by_file.code, Some(0), "{by_file:?}");
    assert!(by_file.stdout.contains("mAP"), "{by_file:?}");
}

#[test]
fn the_best_weights_are_those_of_the_best_validation() {
    let lab = Lab::new();
    lab.train("");
    let best = lab.newest().best.unwrap();
    let validations = lab.validations();
    let highest = validations.values().copied().fold(f64::MIN, f64::max);
    assert_eq!(best.average_map.to_bits(), highest.to_bits());
    let checkpoint = lab.manifests().into_iter().find(|manifest| manifest.step == best.step).unwrap();
    let weights = fs::read(lab.path("runs/tiny/best.safetensors")).unwrap();
    assert_eq!(PartRef::of(&weights), checkpoint.model);
}

/// Rewrites a file of weights without the parameter whose name ends so.
fn drop_weight(file: &Path, ending: &str) -> String {
    let bytes = fs::read(file).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (dropped, kept): (Vec<_>, Vec<_>) =
        stored.tensors().into_iter().partition(|(name, _)| name.ends_with(ending));
    assert_eq!(dropped.len(), 1, "{ending}");
    fs::write(file, safetensors::serialize(kept, None).unwrap()).unwrap();
    dropped[0].0.strip_prefix("backbone.").unwrap().to_owned()
}

#[test]
fn weights_to_begin_with_are_reported_and_refused_where_one_is_missing() {
    let lab = Lab::new();
    lab.train("--set pretrain.steps=0 --set train.max_steps=1");
    fs::rename(lab.path("runs/tiny/best.safetensors"), lab.path("start.safetensors")).unwrap();
    let words = "--init start.safetensors --set pretrain.steps=0 --set train.max_steps=1 --set run.name";
    let said = lab.train(&format!("{words}=whole"));
    assert!(said.stderr.contains("the backbone begins with `start.safetensors`"), "{said:?}");
    let line = |what: &str| said.stderr.lines().find(|line| line.contains(what)).unwrap_or_default();
    assert!(line("begin at random").trim_start().starts_with("0 "), "{said:?}");
    assert!(line("in the file, not used").contains("`head."), "{said:?}");
    let log = fs::read_to_string(lab.path("runs/whole/logs/worker-0.log")).unwrap();
    assert!(log.contains("patch_embed.proj.bias"), "{log}");

    let dropped = drop_weight(&lab.path("start.safetensors"), "patch_embed.proj.bias");
    let said = lab.run(&format!("train tiny.toml {words}=refused"));
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(
        said.stderr.contains(&format!("lacks 1 weights of the backbone, the first `{dropped}`")),
        "{said:?}"
    );
    assert!(!lab.path("runs/refused").exists(), "{said:?}");
    let said = lab.train(&format!("{words}=allowed --set model.backbone.weights_may_lack=true"));
    let line = said.stderr.lines().find(|line| line.contains("begin at random")).unwrap_or_default();
    assert!(line.trim_start().starts_with("1 ") && line.contains(&dropped), "{said:?}");
}

#[test]
fn settings_and_data_are_explained_before_a_run() {
    let lab = Lab::new();
    let settings = lab.run("config tiny.toml --set train.epochs=7");
    assert_eq!(settings.code, Some(0), "{settings:?}");
    let row =
        |key: &str| settings.stdout.lines().find(|line| line.contains(key)).unwrap_or_default().to_owned();
    assert!(row("epochs").contains('7') && row("epochs").contains("--set"), "{settings:?}");
    assert!(row("embed_dim").contains("tiny.toml:"), "{settings:?}");
    let data = lab.run("data check tiny.toml");
    assert_eq!(data.code, Some(0), "{data:?}");
    assert!(data.stdout.contains("4 ") && data.stdout.contains("training"), "{data:?}");
}

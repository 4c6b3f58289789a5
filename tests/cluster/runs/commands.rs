//! The commands around a run, on what it leaves behind.

use std::fs;
use std::path::Path;

use longtake_shared::checkpoint::PartRef;
use serde_json::Value;

use crate::lab::Lab;

#[test]
fn a_finished_run_is_detected_evaluated_and_explained() {
    let lab = Lab::new();
    let said = lab.train("--json");
    assert_eq!(said.stderr.matches("decoders: 6 videos embedded\n").count(), 1, "{said:?}");
    let trained: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(trained["report"]["average"].is_number(), "{trained}");
    for left in ["results.json", "metrics.jsonl", "timeline.svg", "best.safetensors", "logs/worker-0.log"] {
        assert!(lab.path("runs/tiny").join(left).exists(), "{left}");
    }
    let log = fs::read_to_string(lab.path("runs/tiny/logs/worker-0.log")).unwrap();
    let opened = log.lines().find(|line| line.contains("opened a video")).unwrap_or_default();
    assert!(opened.contains("decoder=\"embedded\" reason=\"progressive H.264 in MP4\""), "{log}");

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
    check_layout(&found, video, &annotations);
    let picture = fs::read_to_string(lab.path("detections/timeline.svg")).unwrap();
    assert!(picture.contains("<svg") && picture.contains(video.as_str()));
    // The words beside the legend, and each action as its bar says it.
    assert!(picture.contains(">annotated<"), "{picture}");
    for action in videos[video]["annotations"].as_array().unwrap() {
        let bound = |side: usize| action["segment"][side].as_f64().unwrap();
        let label = action["label"].as_str().unwrap();
        let title = format!("<title>{label} from {:.1} s to {:.1} s</title>", bound(0), bound(1));
        assert!(picture.contains(&title), "{title} is not in {picture}");
    }
}

/// ActivityNet's layout of results: `{"version", "results": {video: [{"label", "score", "segment": [start, end]}]}, ...}`.
fn check_layout(results: &Value, video: &str, annotations: &Value) {
    assert!(results["version"].is_string() && results["external_data"].is_object(), "{results}");
    let known: Vec<&Value> = annotations["database"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|video| video["annotations"].as_array().unwrap())
        .map(|action| &action["label"])
        .collect();
    let found = results["results"][video].as_array().unwrap();
    assert!(!found.is_empty(), "{results}");
    for item in found {
        let keys: Vec<&String> = item.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["label", "score", "segment"]);
        assert!(known.contains(&&item["label"]), "{item}");
        assert!((0.0..=1.0).contains(&item["score"].as_f64().unwrap()), "{item}");
        let segment: [f64; 2] = serde_json::from_value(item["segment"].clone()).unwrap();
        assert!(0.0 <= segment[0] && segment[0] < segment[1], "{item}");
    }
}

#[test]
fn weights_and_a_results_file_are_evaluated_as_the_run_has_evaluated_them() {
    let lab = Lab::new();
    // The one validation is the last step's: results, weights and report are of the same parameters.
    let said = lab.train("--json --set train.validate_every=0");
    let trained: Value = serde_json::from_str(&said.stdout).unwrap();
    let average = trained["report"]["average"].as_f64().unwrap();
    let by_file = "evaluate --predictions runs/tiny/results.json --annotations data/annotations.json";
    for words in ["evaluate runs/tiny tiny.toml", by_file] {
        let said = lab.run(&format!("{words} --json"));
        assert_eq!(said.code, Some(0), "{said:?}");
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(report["average"].as_f64().unwrap().to_bits(), average.to_bits(), "{words}: {report}");
        assert_eq!(report["map"], trained["report"]["map"], "{words}");

        let table = lab.run(words);
        let line = table.stdout.lines().find(|line| line.starts_with("mAP %")).unwrap_or_default();
        assert!(line.ends_with(&format!("{:.1}", 100.0 * average)), "{table:?}");
        assert!(
            table.stdout.contains("detections in videos outside the ground truth are wrong"),
            "{table:?}"
        );
        let table = lab.run(&format!("{words} --rules vedatad"));
        for rule in [
            "of two detections with the same score the earlier one counts first",
            "detections in videos outside the ground truth are dropped",
            "computed in 32 bits",
        ] {
            assert!(table.stdout.contains(rule), "{table:?}");
        }
    }
}

/// A tensor's bytes in a file of weights.
fn weight(file: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
}

#[test]
fn a_pretrained_backbone_is_what_another_run_begins_with() {
    let lab = Lab::new();
    let said = lab.run("pretrain tiny.toml --set run.name=pretrained");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("pretraining the backbone: 6 steps"), "{said:?}");
    assert!(!said.stderr.contains("\ntraining: "), "{said:?}");
    let weights = "runs/pretrained/best.safetensors";

    // The first layers stay as they begin, so that they can be compared afterwards.
    let said = lab.train(&format!(
        "--init {weights} --set pretrain.steps=0 --set train.max_steps=1 --set model.backbone.frozen_stages=1"
    ));
    assert!(said.stderr.contains(&format!("the backbone begins with `{weights}`")), "{said:?}");
    let count = |what: &str| -> usize {
        let line = said.stderr.lines().find(|line| line.contains(what)).unwrap_or_default();
        line.split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{said:?}"))
    };
    let bytes = fs::read(lab.path(weights)).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (backbone, others): (Vec<&str>, Vec<&str>) =
        stored.names().into_iter().partition(|name| name.starts_with("backbone."));
    assert!(backbone.len() > 20, "{backbone:?}");
    let told = (count(" used  "), count("not in the file, begin at random"), count("in the file, not used"));
    assert_eq!(told, (backbone.len(), 0, others.len()), "{said:?}");
    let name = "backbone.patch_embed.proj.weight";
    assert_eq!(weight(&lab.path("runs/tiny/best.safetensors"), name), weight(&lab.path(weights), name));
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
        said.stderr.contains(&format!("lacks 1 weight of the backbone, the first `{dropped}`")),
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

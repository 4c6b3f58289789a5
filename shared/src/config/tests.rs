//! Every shipped configuration resolves, and every mistake explains itself.

use std::path::{Path, PathBuf};

use super::*;
use crate::hint::Hint as _;

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load_text(text: &str, environment: &[(&str, &str)], sets: &[&str]) -> Result<Resolved, ConfigError> {
    let (_folder, path) = write(text);
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load(&path, environment, &sets)
}

/// The sentence and its hint, with the temporary folder's name taken out.
fn complaint(text: &str, sets: &[&str]) -> String {
    let (_folder, path) = write(text);
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let error = load(&path, std::iter::empty(), &sets).unwrap_err();
    let folder = format!("{}/", path.parent().unwrap().display());
    let hint = error.hint().map_or_else(String::new, |hint| format!("; hint: {hint}"));
    format!("{error}{hint}").replace(&folder, "")
}

fn source<'r>(rows: &'r [(String, String, String)], key: &str) -> (&'r str, &'r str) {
    let row = rows.iter().find(|row| row.0 == key).unwrap();
    (row.1.as_str(), row.2.as_str())
}

#[test]
fn every_shipped_configuration_resolves() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let resolved = load(&path, std::iter::empty(), &[]).unwrap_or_else(|error| panic!("{error}"));
            let (_folder, copy) = write(&resolved.to_toml());
            let again = load(&copy, std::iter::empty(), &[]).unwrap();
            assert_eq!(again.config, resolved.config, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} configurations");
}

#[test]
fn later_layers_win_and_every_value_knows_its_source() {
    let text = "[data]\nfps = 10\ncrop = 200\n\n[optim]\nlearning_rate = 1\nbetas = [0.8, 0.9]\n";
    let environment = [("LONGTAKE__DATA__CROP", "180"), ("LONGTAKE__RUN__NAME", "7"), ("PATH", "/bin")];
    let resolved =
        load_text(text, &environment, &["optim.learning_rate=0.5", "data.decoder=ffmpeg"]).unwrap();
    let rows = resolved.rows();
    assert!(source(&rows, "data.fps").1.ends_with("run.toml:2"), "{:?}", source(&rows, "data.fps"));
    assert_eq!(source(&rows, "data.fps").0, "10.0");
    assert_eq!(source(&rows, "data.crop"), ("180", "environment variable LONGTAKE__DATA__CROP"));
    assert_eq!(source(&rows, "run.name"), ("\"7\"", "environment variable LONGTAKE__RUN__NAME"));
    assert_eq!(source(&rows, "optim.learning_rate"), ("0.5", "--set"));
    assert_eq!(source(&rows, "optim.betas").0, "[0.8, 0.9]");
    assert!(source(&rows, "optim.betas").1.ends_with(":7"));
    assert_eq!(source(&rows, "optim.momentum"), ("0.9", "default"));
    assert_eq!(resolved.config.data.decoder, DecoderChoice::Ffmpeg);
    assert!(!rows.iter().any(|(key, ..)| key.starts_with("synth")));
    assert_eq!(rows[0].0, "run.name");
}

#[test]
fn a_section_that_is_only_named_is_there() {
    assert_eq!(load_text("[synth]\n", &[], &[]).unwrap().config.synth, Some(SynthConfig::default()));
    let set = load_text("", &[], &["synth.seed=3"]).unwrap().config.synth.unwrap();
    assert_eq!(set, SynthConfig { seed: 3, ..SynthConfig::default() });
    assert_eq!(load_text("", &[], &[]).unwrap().config, RunConfig::default());
}

#[test]
fn part_of_a_section_leaves_the_rest_at_that_sections_defaults() {
    let resolved = load_text("[pretrain.optim]\nlearning_rate = 0.002\n", &[], &[]).unwrap();
    let expected = PretrainConfig::default().optim;
    assert_eq!(resolved.config.pretrain.optim, OptimConfig { learning_rate: 0.002, ..expected });
}

#[test]
fn a_stored_configuration_comes_back_with_its_sources() {
    let resolved = load_text("[synth]\nclasses = 3\n", &[], &["data.fps=12"]).unwrap();
    assert_eq!(Resolved::from_json(&resolved.to_json()).unwrap(), resolved);
    assert!(matches!(Resolved::from_json("{}"), Err(ConfigError::Stored { .. })));
}

#[test]
fn mistakes_of_writing_explain_themselves() {
    let cases: &[(&str, &[&str], &str)] = &[
        (
            "[data]\nfsp = 15\n",
            &[],
            "there is no setting `data.fsp` (run.toml:2); hint: did you mean `data.fps`?",
        ),
        (
            "",
            &["train.learning_rate=1"],
            "there is no setting `train.learning_rate` (--set); hint: did you mean `optim.learning_rate`?",
        ),
        (
            "",
            &["train.colour=red"],
            "there is no setting `train.colour` (--set); hint: known here: `lanes`, `epochs`, `max_steps`, `validate_every`, `max_non_finite`",
        ),
        (
            "",
            &["memory.sampling_rte=1"],
            "there is no setting `memory.sampling_rte` (--set); hint: did you mean `memory.sampling_rate`?",
        ),
        (
            "",
            &["tcm_layers=1"],
            "there is no setting `tcm_layers` (--set); hint: did you mean `model.neck.tcm_layers`?",
        ),
        (
            "",
            &["data.fps.x=1"],
            "`data.fps` takes one value, but --set gives it a section; hint: write `data.fps = ...`",
        ),
        (
            "data = 3\n",
            &[],
            "`data` is a section, but run.toml:1 gives it the value 3; hint: set one of its values, or write them below `[data]`",
        ),
        ("", &["data.fps"], "`--set data.fps` sets nothing; hint: write `--set data.fps=15`"),
        ("", &["data.fps=fast"], "`data.fps` cannot be \"fast\" (--set): expected a number"),
        ("", &["data.fps=nan"], "`data.fps` cannot be \"NaN\" (--set): expected a number"),
        ("", &["train.lanes=-1"], "`train.lanes` cannot be -1 (--set): expected a whole number, 0 or more"),
        ("", &["train.lanes=1.5"], "`train.lanes` cannot be 1.5 (--set): expected a whole number, 0 or more"),
        (
            "",
            &["optim.kind=adam"],
            "`optim.kind` cannot be \"adam\" (--set): expected `sgd` or `adamw`; hint: did you mean `adamw`?",
        ),
        ("", &["data.mean=[1, 2]"], "`data.mean` cannot be [1, 2] (--set): expected a list of 3 values"),
        (
            "",
            &["data.frame_cache=lots"],
            "`data.frame_cache` cannot be \"lots\" (--set): expected a number of bytes such as `512MiB`, `12GiB` or `4096B`",
        ),
        ("[data\n", &[], "line 1 of `run.toml` is not TOML: unclosed table, expected `]`"),
    ];
    for (text, sets, expected) in cases {
        assert_eq!(complaint(text, sets), *expected, "{text:?} {sets:?}");
    }
}

#[test]
fn broken_rules_explain_themselves() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["memory.sampling_rate=0.05"],
            "`memory.sampling_rate` = 0.05 samples no clip of 15 (a window is `data.window_frames` / `data.clip_frames` clips) (`memory.sampling_rate` from --set); hint: set `memory.sampling_rate` to 0 (a frozen backbone) or to at least 0.0667 (one clip of 15)",
        ),
        (
            &["memory.sampling_rate=1.5"],
            "`memory.sampling_rate` is 1.5, but must be a number from 0 to 1 (`memory.sampling_rate` from --set)",
        ),
        (
            &["data.window_frames=100"],
            "`data.window_frames` is 100, which is not a multiple of `data.clip_frames`, 32 (`data.window_frames` from --set); hint: set `data.window_frames` to 96",
        ),
        (
            &["data.clip_frames=15", "data.window_frames=480"],
            "`data.clip_frames` is 15, but must be even (`data.clip_frames` from --set); hint: set `data.clip_frames` to 16",
        ),
        (
            &["data.window_frames=32", "memory.sampling_rate=1"],
            "5 pyramid levels (`model.neck.tdm_kernels` and one more) need 5 positions, but a window of 32 frames has 4 (`data.window_frames` from --set); hint: remove kernels, or set `data.window_frames` to at least 40",
        ),
        (
            &["data.frame_width=100"],
            "`data.crop` is 224, but frames are 100 x 256 (`data.frame_width` from --set); hint: set `data.crop` to at most 100",
        ),
        (
            &["model.backbone.variant=custom", "model.backbone.depths=[1, 1]"],
            "`model.backbone.depths` names 2 stages, `model.backbone.num_heads` 4 (`model.backbone.depths` from --set); hint: give both one entry a stage",
        ),
        (
            &["model.backbone.variant=custom", "model.backbone.num_heads=[1, 2, 5, 8]"],
            "`model.backbone.num_heads` is 5, which does not divide a width of 96 (`model.backbone.num_heads` from --set); hint: set `model.backbone.num_heads` to a divisor of 96",
        ),
        (
            &["model.neck.tdm_kernels=[4]"],
            "`model.neck.tdm_kernels` holds 4, but a band has an odd width (`model.neck.tdm_kernels` from --set); hint: write 5 instead, or 0 for attention without a band",
        ),
        (
            &["optim.betas=[0.9, 1]"],
            "`optim.betas` is 1, but must be a number from 0 to less than 1 (`optim.betas` from --set)",
        ),
        (
            &["data.augment.flip=2"],
            "`data.augment.flip` is 2, but must be a number from 0 to 1 (`data.augment.flip` from --set)",
        ),
        (&["data.fps=0"], "`data.fps` is 0, but must be a number above 0 (`data.fps` from --set)"),
        (
            &["cluster.workers=0"],
            "`cluster.workers` is 0, but must be 1 or more (`cluster.workers` from --set)",
        ),
        (
            &["cluster.workers=17"],
            "`cluster.workers` is 17, but `train.lanes` is 16: a worker needs a lane (`cluster.workers` from --set); hint: set `cluster.workers` to at most 16, or raise `train.lanes`",
        ),
        (
            &["model.loss.negative_iou=0.7"],
            "`model.loss.negative_iou` is 0.7, above `model.loss.positive_iou`, 0.6 (`model.loss.negative_iou` from --set); hint: lower `model.loss.negative_iou` or raise `model.loss.positive_iou`",
        ),
        (
            &["run.name=a/b"],
            "`run.name` is `a/b`, but may hold only letters, digits, `.`, `_` and `-`, and must begin with a letter or digit (`run.name` from --set); hint: choose a name such as `thumos-r0.15`",
        ),
        (
            &["cluster.listen=here"],
            "`cluster.listen` is `here`, which is not an address (`cluster.listen` from --set); hint: write an address and a port such as `127.0.0.1:0` (0: a free one)",
        ),
        (
            &["checkpoint.url=bucket"],
            "`checkpoint.url` is `bucket`, which is not a URL (`checkpoint.url` from --set); hint: write `file:///path`, `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, or nothing for the run's folder",
        ),
        (
            &["checkpoint.url=foo://bucket/x"],
            "`checkpoint.url` is `foo://bucket/x`, but the scheme `foo` is not known (`checkpoint.url` from --set); hint: write `file:///path`, `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, or nothing for the run's folder",
        ),
        (
            &["model.backbone.patch_size=[4, 4, 4]"],
            "`model.backbone.patch_size` is 4, but must be 2 (`model.backbone.patch_size` from --set)",
        ),
    ];
    for (sets, expected) in cases {
        assert_eq!(complaint("", sets), *expected, "{sets:?}");
    }
}

#[test]
fn broken_rules_of_schedule_and_evaluation_explain_themselves() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["optim.schedule.warmup=exp", "optim.schedule.warmup_start=0"],
            "`optim.schedule.warmup_start` is 0, which only a linear warm-up rises from (`optim.schedule.warmup_start` from --set); hint: set `optim.schedule.warmup_start` to a number above 0, such as 0.1",
        ),
        (
            &["evaluation.max_detections=0"],
            "`evaluation.max_detections` is 0, but must be 1 or more, or -1 for all (`evaluation.max_detections` from --set); hint: set `evaluation.max_detections` to -1 to keep all",
        ),
        (
            &["evaluation.max_detections=-2"],
            "`evaluation.max_detections` is -2, but must be 1 or more, or -1 for all (`evaluation.max_detections` from --set); hint: set `evaluation.max_detections` to -1 to keep all",
        ),
        (
            &["evaluation.soft_floor=1"],
            "`evaluation.soft_floor` is 1, but must be a number from 0 to less than 1 (`evaluation.soft_floor` from --set)",
        ),
        (
            &["evaluation.nms_threshold=1e-9"],
            "`evaluation.nms_threshold` is 0.000000001, but must be 0.000001 or more (`evaluation.nms_threshold` from --set)",
        ),
        (
            &["evaluation.tiou=[0.5, 0]"],
            "`evaluation.tiou` is 0, but must be a number above 0 and at most 1 (`evaluation.tiou` from --set)",
        ),
        (
            &["evaluation.tiou=[]"],
            "`evaluation.tiou` is empty (`evaluation.tiou` from --set); hint: give `evaluation.tiou` at least one entry",
        ),
    ];
    for (sets, expected) in cases {
        assert_eq!(complaint("", sets), *expected, "{sets:?}");
    }
}

#[test]
fn a_rate_of_nothing_is_legal_and_one_clip_is_enough() {
    for (rate, sampled) in [("0", 0), ("0.0667", 1), ("0.15", 2), ("0.4", 6), ("1", 15)] {
        let config = load_text("", &[], &[&format!("memory.sampling_rate={rate}")]).unwrap().config;
        assert_eq!(config.memory.sampled_clips(config.data.clips()), sampled, "{rate}");
    }
}

#[test]
fn the_environment_and_sets_apply_on_top_of_stored_settings() {
    let stored = load_text("[data]\nfps = 12\n", &[], &["train.epochs=3"]).unwrap();
    let variables = [("LONGTAKE__DATA__FPS", "5"), ("LONGTAKE__RUN__SEED", "6")];
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let changed = stored.changed(variables, &["run.seed=7".to_owned()]).unwrap();
    let rows = changed.rows();
    assert_eq!(source(&rows, "data.fps"), ("5.0", "environment variable LONGTAKE__DATA__FPS"));
    assert_eq!(source(&rows, "run.seed"), ("7", "--set"));
    assert_eq!(source(&rows, "train.epochs"), ("3", "--set"), "as it was stored");
    let unknown = stored.changed(std::iter::empty(), &["data.fsp=1".to_owned()]).unwrap_err();
    assert_eq!(unknown.hint().as_deref(), Some("did you mean `data.fps`?"));
}

#[test]
fn settings_that_weights_were_not_trained_with_are_told_unless_only_training_looks_at_them() {
    let trained = RunConfig::default();
    let given = |sets: &[&str]| misfits(&trained, &load_text("", &[], sets).unwrap());
    assert_eq!(
        given(&["model.neck.tdm_heads=4", "model.loss.focal_gamma=1", "train.epochs=3"]),
        ["`model.neck.tdm_heads` is 4 (--set), but they were trained with 8"]
    );
    assert_eq!(given(&["model.backbone.embed_dim=48"]), [""; 0], "a published size has its own");
    assert_eq!(given(&["model.backbone.variant=tiny"]).len(), 1);
}

#[test]
fn only_what_training_depends_on_is_compared() {
    let base = RunConfig::default();
    let same = RunConfig {
        run: RunSection { name: "other".into(), folder: "elsewhere".into(), ..base.run.clone() },
        cluster: ClusterConfig { workers: 4, threads: 2, listen: "0.0.0.0:7".into(), ..base.cluster.clone() },
        checkpoint: CheckpointConfig { every: 7, ..base.checkpoint.clone() },
        ..base.clone()
    };
    assert!(differences(&base, &same).is_empty());

    let mut other = base.clone();
    other.optim.learning_rate = 0.02;
    other.run.seed = 11;
    assert_eq!(
        differences(&base, &other),
        [
            "`run.seed`: 10 in the checkpoint, 11 now",
            "`optim.learning_rate`: 0.01 in the checkpoint, 0.02 now"
        ]
    );
}

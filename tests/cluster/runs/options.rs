//! Every option of every command does something, or is refused: none is taken and ignored.

use std::collections::BTreeSet;
use std::fs;

use clap::CommandFactory as _;
use longtake_coordinator::cli::Cli;
use longtake_tests::Said;

use crate::lab::Lab;

/// An option and two calls: what the second says, and the first does not, is what the option does, or why it is refused.
struct Proof {
    /// The command and the option as its help names it; a positional one in angle brackets.
    option: &'static str,
    without: &'static str,
    with: &'static str,
    says: &'static str,
}

const fn proof(option: &'static str, without: &'static str, with: &'static str, says: &'static str) -> Proof {
    Proof { option, without, with, says }
}

const RUNS: [Proof; 22] = [
    proof("train <config>", "train", "train none.toml", "`none.toml` cannot be read"),
    proof(
        "train --set",
        "train tiny.toml",
        "train tiny.toml --set cluster.workers=4",
        "`cluster.workers` is 4",
    ),
    proof("train --resume", "train tiny.toml", "train --resume none", "there is no folder `none`"),
    proof("train --init", "train tiny.toml", "train tiny.toml --set run.name=b --init none.st", "`none.st`"),
    proof(
        "train --allow-different-config",
        "train --resume runs/tiny --set optim.clip_norm=2",
        "train --resume runs/tiny --set optim.clip_norm=2 --allow-different-config",
        "best weights",
    ),
    proof("coordinator <config>", "coordinator", "coordinator none.toml", "`none.toml` cannot be read"),
    proof(
        "coordinator --set",
        "coordinator tiny.toml",
        "coordinator tiny.toml --set cluster.workers=4",
        "`cluster.workers` is 4",
    ),
    proof(
        "coordinator --resume",
        "coordinator tiny.toml",
        "coordinator --resume none",
        "there is no folder `none`",
    ),
    proof(
        "coordinator --init",
        "coordinator tiny.toml",
        "coordinator tiny.toml --set run.name=b --init none.st",
        "`none.st`",
    ),
    proof(
        "coordinator --allow-different-config",
        "coordinator --resume runs/tiny --set optim.clip_norm=3 --set cluster.listen=no.such.host.invalid:1",
        "coordinator --resume runs/tiny --set optim.clip_norm=3 --set cluster.listen=no.such.host.invalid:1 \
         --allow-different-config",
        "no.such.host.invalid:1",
    ),
    proof(
        "agent --run",
        "agent --coordinator 127.0.0.1:1 --token-file none",
        "agent --run runs/none --coordinator 127.0.0.1:1 --token-file none",
        "the token `none` cannot be read",
    ),
    proof("agent --coordinator", "agent", "agent --run runs/none --coordinator 127.0.0.1:1", "--token-file"),
    proof("agent --token-file", "agent", "agent --run runs/none --token-file none", "--coordinator"),
    proof("agent --slots", "agent --run", "agent --run runs/none --slots 0", "0 is not in 1..=65535"),
    proof("agent --threads", "agent --run", "agent --run runs/none --threads many", "'many'"),
    proof("pretrain <config>", "pretrain", "pretrain none.toml", "`none.toml` cannot be read"),
    proof(
        "pretrain --set",
        "pretrain tiny.toml",
        "pretrain tiny.toml --set cluster.workers=4",
        "`cluster.workers` is 4",
    ),
    proof("status <run>", "status", "status none", "there is no folder `none`"),
    proof("stop <run>", "stop", "stop none", "there is no folder `none`"),
    proof("flight <run>", "flight", "flight runs/tiny", "worker 1, process"),
    proof(
        "flight --worker",
        "flight runs/tiny",
        "flight runs/tiny --worker 7",
        "recorded nothing of a worker 7",
    ),
    proof("flight --last", "flight runs/tiny --last 1", "flight runs/tiny --last 0", "nothing recorded"),
];

const CHECKPOINTS_AND_DATA: [Proof; 18] = [
    proof("checkpoint list <run>", "checkpoint list", "checkpoint list runs/tiny", "4-g1 "),
    proof("checkpoint verify <run>", "checkpoint verify", "checkpoint verify runs/tiny", "whole ("),
    proof("checkpoint prune <run>", "checkpoint prune", "checkpoint prune runs/tiny", "removed "),
    proof(
        "checkpoint prune --keep",
        "checkpoint prune runs/tiny",
        "checkpoint prune runs/tiny --keep none",
        "'none'",
    ),
    proof("synth <out>", "synth", "synth data --set synth.classes=1", "`data` is not empty"),
    proof(
        "synth --set",
        "synth made --set synth.training_videos=1 --set synth.validation_videos=1 --set synth.max_duration=5 \
         --set synth.min_duration=5",
        "synth other --set synth.training_videos=2 --set synth.validation_videos=1 --set synth.max_duration=5 \
         --set synth.min_duration=5",
        "3 videos with ",
    ),
    proof(
        "data check --thorough",
        "data check tiny.toml",
        "data check tiny.toml --thorough",
        "decoded every picture of each video",
    ),
    proof("data check <config>", "data check", "data check none.toml", "`none.toml` cannot be read"),
    proof(
        "data check --set",
        "data check tiny.toml",
        "data check tiny.toml --set data.annotations=none.json",
        "`data.annotations` is `none.json`, which is not there in `[FOLDER]`",
    ),
    proof("config <config>", "config", "config tiny.toml", "embed_dim = 8"),
    proof("config --set", "config tiny.toml", "config tiny.toml --set train.epochs=7", "train.epochs = 7"),
    proof("import <weights>", "import", "import none.pth", "`none.pth` cannot be read"),
    proof("import <out>", "import official.pth", "import official.pth data", "`data` cannot be written"),
    proof("bench <name>", "bench", "bench backbone --folder none", "the folder `none/"),
    proof("bench --folder", "bench map --folder", "bench map --folder none", "the folder `none/"),
    proof("worker --socket", "worker --index 0 --bind ::1 --flight none", WORKER, "cannot start the session"),
    proof("worker --index", "worker", "worker --socket none --index -", "'-'"),
    proof("worker --flight", "worker --socket none --index 0 --bind ::1", WORKER, "cannot start the session"),
];

const OF_WEIGHTS: [Proof; 27] = [
    proof("worker --bind", "worker", "worker --socket none --index 0 --bind 1", "'1'"),
    proof("detect <weights>", "detect", "detect none.st a.mp4", "`none.st` cannot be read"),
    proof("detect <videos>", "detect runs/tiny", "detect runs/tiny a.mp4", "wrote detections/timeline.svg"),
    proof(
        "detect --annotations",
        "detect runs/tiny a.mp4",
        "detect runs/tiny a.mp4 --annotations data/annotations.json",
        "the annotations do not name the video `a`",
    ),
    proof(
        "detect --out",
        "detect runs/tiny a.mp4",
        "detect runs/tiny a.mp4 --out b",
        "wrote b/detections.json",
    ),
    proof(
        "detect --threshold",
        "detect runs/tiny a.mp4",
        "detect runs/tiny a.mp4 --threshold 0.9",
        "from score 0.90 on",
    ),
    proof(
        "detect --config",
        "detect runs/tiny a.mp4 --threshold 0",
        "detect runs/tiny a.mp4 --threshold 0 --config other.toml",
        ": 1 from score 0.00 on",
    ),
    proof(
        "detect --set",
        "detect runs/tiny a.mp4 --threshold 0",
        "detect runs/tiny a.mp4 --threshold 0 --set evaluation.max_detections=2",
        ": 2 from score 0.00 on",
    ),
    proof(
        "detect --resume",
        "detect runs/tiny a.mp4 --out again",
        "detect runs/tiny a.mp4 --out again --resume",
        "1 video had been done before",
    ),
    proof("evaluate <weights>", "evaluate", "evaluate none.st tiny.toml", "`none.st` cannot be read"),
    proof(
        "evaluate <config>",
        "evaluate runs/tiny",
        "evaluate runs/tiny none.toml",
        "`none.toml` cannot be read",
    ),
    proof(
        "evaluate --set",
        "evaluate --predictions results.json --annotations truth.json",
        "evaluate --predictions results.json --annotations truth.json --set evaluation.tiou=[0.35]",
        "0.35",
    ),
    proof(
        "evaluate --predictions",
        "evaluate --annotations truth.json",
        "evaluate --annotations truth.json --predictions none.json",
        "`none.json`",
    ),
    proof(
        "evaluate --annotations",
        "evaluate --predictions results.json",
        "evaluate --predictions results.json --annotations none.json",
        "`none.json`",
    ),
    proof(
        "evaluate --out",
        "evaluate runs/tiny tiny.toml",
        "evaluate runs/tiny tiny.toml --out data",
        "`data` cannot be written",
    ),
    of_rules("--tiou", "--tiou 0.35", "0.35"),
    of_rules("--subset", "--subset training", "1 video, 1 action"),
    of_rules("--blocked", "--blocked blocked.json", "1 video, 1 action"),
    of_rules("--rules", "--rules vedatad", "computed in 32 bits"),
    of_rules("--ties", "--ties earlier-first", "the earlier one counts first"),
    of_rules("--unknown-videos", "--unknown-videos dropped", "outside the ground truth are dropped"),
    of_rules("--clean-ground-truth", "--clean-ground-truth", "repeated ground truth is dropped"),
    of_rules("--disputed-videos", "--disputed-videos kept", "wrong or no labels count"),
    of_rules("--round", "--round gtad", "rounded to 0.1 s"),
    of_rules("--epic-label-collision", "--epic-label-collision", "in the place of their number"),
    proof(
        "evaluate --predictions",
        "evaluate runs/tiny tiny.toml",
        "evaluate runs/tiny tiny.toml --predictions results.json --annotations truth.json",
        "cannot be used with",
    ),
    proof("longtake --json", "config tiny.toml", "config tiny.toml --json", "{\"config\":"),
];

/// An option of `evaluate` that changes the rules by which results are judged; `with` is filled in by [`calls`].
const fn of_rules(option: &'static str, with: &'static str, says: &'static str) -> Proof {
    Proof { option, without: JUDGE, with, says }
}

const WORKER: &str = "worker --socket none --index 0 --bind ::1 --flight none";

const JUDGE: &str = "evaluate --predictions results.json --annotations truth.json";

impl Proof {
    fn name(&self) -> String {
        if self.option.starts_with("--") {
            format!("evaluate {}", self.option)
        } else {
            self.option.to_owned()
        }
    }

    fn with(&self) -> String {
        if self.option.starts_with("--") { format!("{JUDGE} {}", self.with) } else { self.with.to_owned() }
    }
}

fn proofs() -> impl Iterator<Item = &'static Proof> {
    RUNS.iter().chain(&CHECKPOINTS_AND_DATA).chain(&OF_WEIGHTS)
}

/// Every option below a command, as [`Proof::option`] names it.
fn options(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        let name = argument
            .get_long()
            .map_or_else(|| format!("<{}>", argument.get_id()), |long| format!("--{long}"));
        found.insert(format!("{path} {name}"));
    }
    for below in command.get_subcommands() {
        let path = if path == "longtake" {
            below.get_name().to_owned()
        } else {
            format!("{path} {}", below.get_name())
        };
        options(below, &path, found);
    }
}

#[test]
fn every_option_has_a_proof_that_it_does_something() {
    let mut found = BTreeSet::new();
    options(&Cli::command(), "longtake", &mut found);
    let proven: BTreeSet<String> = proofs().map(Proof::name).collect();
    assert!(found.len() > 50, "{found:?}");
    assert_eq!(found, proven);
}

const TRUTH: &str = r#"{"taxonomy": [], "database": {
    "video_test_0000270": {"subset": "validation", "duration": 9, "annotations": [{"label": "dive", "segment": [1, 3]}]},
    "lake": {"subset": "validation", "duration": 9, "annotations": [{"label": "swim", "segment": [2, 4]}]},
    "river": {"subset": "validation", "duration": 9, "annotations": [{"label": "dive", "segment": [1, 3]}]},
    "pool": {"subset": "training", "duration": 9, "annotations": [{"label": "swim", "segment": [2, 4]}]}
}}"#;

const RESULTS: &str = r#"{"version": "1", "external_data": {}, "results": {
    "lake": [{"label": "swim", "score": 0.9, "segment": [2, 4]}, {"label": "fly", "score": 0.5, "segment": [1, 2]}],
    "video_test_0000270": [{"label": "dive", "score": 0.8, "segment": [1, 3]}]
}}"#;

/// A finished run, and everything that the proofs name.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.train("--set train.epochs=2");
    let settings = fs::read_to_string(lab.path("tiny.toml")).unwrap();
    let other = settings.replace("max_detections = 20", "max_detections = 1");
    assert_ne!(settings, other);
    let published = longtake_tests::repository().join("worker/src/model/backbone/fixtures/official.pth");
    fs::copy(published, lab.path("official.pth")).unwrap();
    fs::copy(lab.path("data/videos/val_000.mp4"), lab.path("a.mp4")).unwrap();
    for (name, text) in [
        ("other.toml", other.as_str()),
        ("truth.json", TRUTH),
        ("results.json", RESULTS),
        ("blocked.json", r#"["lake"]"#),
    ] {
        fs::write(lab.path(name), text).unwrap();
    }
    lab
}

fn all(said: &Said) -> String {
    format!("{}{}", said.stdout, said.stderr)
}

#[test]
fn no_option_is_taken_and_ignored() {
    let lab = lab();
    for proof in proofs() {
        let (without, with) = (lab.run(proof.without), lab.run(&proof.with()));
        let says = format!("`{}` of `{}`", proof.says, proof.with());
        assert!(all(&with).contains(proof.says), "{says} is not there: {with:?}");
        assert!(!all(&without).contains(proof.says), "{says} is there without the option: {without:?}");
    }
}

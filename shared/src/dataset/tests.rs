//! Files as users have them, whole and wrong.

mod files;
mod odd_files;
mod same;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{AnnotationFormat, DisputedVideos};
use crate::hint::Hint as _;

/// A folder with annotations and empty video files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("videos")).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn with(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    fn videos(self, names: &[&str]) -> Self {
        for name in names {
            self.write(&format!("videos/{name}"), "");
        }
        self
    }

    fn config(&self, annotations: &str) -> DataConfig {
        DataConfig {
            annotations: self.path(annotations),
            videos: self.path("videos"),
            ..DataConfig::default()
        }
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn remarks(dataset: &Dataset) -> Vec<String> {
    dataset.remarks.iter().map(ToString::to_string).collect()
}

fn complaint(config: &DataConfig) -> String {
    let error = load(config).unwrap_err();
    format!("{error}; hint: {}", error.hint().unwrap_or_default())
}

const TWO: &str = r#"{"database": {
    "b": {"subset": "training", "duration": 10, "annotations": [{"label": "run", "segment": [1, 2]}]},
    "a": {"subset": "training", "duration": "20.5", "annotations": [{"label": "jump", "segment": [3, 4]}, {"label": "run", "segment": [1, 9]}]},
    "c": {"subset": "validation", "duration": 5, "annotations": [{"label": "run", "segment": [0, 5]}]},
    "d": {"subset": "testing", "duration": 5, "annotations": []}
}}"#;

fn two() -> Folder {
    Folder::new().with("anno.json", TWO).videos(&["a.mp4", "v_b.webm", "c.AVI", "c.txt"])
}

#[test]
fn an_excerpt_of_a_real_data_set() {
    let annotations =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/annotations/mini_tal_excerpt.json");
    let names = ["train_011_000", "train_011_001", "train_011_002", "valid_011_000", "valid_011_001"];
    let files: Vec<String> = names.iter().map(|name| format!("{name}.mp4")).collect();
    let folder = Folder::new().videos(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let config = DataConfig { annotations: annotations.display().to_string(), ..folder.config("") };
    let dataset = load(&config).unwrap();
    assert_eq!(dataset.classes, ["cross", "fall", "ring", "rise", "spin", "star"]);
    assert_eq!(dataset.videos.iter().map(|video| video.id.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(dataset.subset(Subset::Training).len(), 3);
    assert_eq!(dataset.videos.iter().map(|video| video.actions.len()).sum::<usize>(), 23);
    assert_eq!(dataset.videos[0].actions[0], Action { start: Seconds(2.25), end: Seconds(6.33), label: 2 });
    assert_eq!(dataset.videos[4].duration, Seconds(21.4));
    assert!(dataset.remarks.is_empty(), "{:?}", dataset.remarks);
}

#[test]
fn videos_are_sorted_found_by_name_and_numbered_by_class() {
    let folder = two();
    let dataset = load(&folder.config("anno.json")).unwrap();
    assert_eq!(dataset.classes, ["jump", "run"]);
    let ids: Vec<(&str, Subset)> =
        dataset.videos.iter().map(|video| (video.id.as_str(), video.subset)).collect();
    assert_eq!(ids, [("a", Subset::Training), ("b", Subset::Training), ("c", Subset::Validation)]);
    assert_eq!(dataset.videos[0].duration, Seconds(20.5));
    assert_eq!(dataset.videos[0].actions.iter().map(|action| action.label).collect::<Vec<_>>(), [1, 0]);
    assert!(dataset.videos[1].path.ends_with("v_b.webm"));
    assert!(dataset.videos[2].path.ends_with("c.AVI"));
}

#[test]
fn labels_follow_the_names_of_a_class_list() {
    let folder = two().with("classes.txt", "run\nwalk\njump\n\n");
    let config = DataConfig { classes: folder.path("classes.txt"), ..folder.config("anno.json") };
    let dataset = load(&config).unwrap();
    assert_eq!(dataset.classes, ["run", "walk", "jump"]);
    assert_eq!(dataset.videos[0].actions.iter().map(|action| action.label).collect::<Vec<_>>(), [0, 2]);

    folder.write("classes.txt", "runs\njump\n");
    let text = complaint(&config).replace(&folder.path(""), "");
    assert_eq!(
        text,
        "video `a` shows `run`, which is not in the class list `classes.txt`; \
         hint: did you mean `runs`? Labels are compared by name"
    );
    folder.write("classes.txt", "run\njump\nrun\n");
    assert!(complaint(&config).contains("names `run` twice"));
}

#[test]
fn a_label_that_is_a_number_needs_a_class_list() {
    let text = TWO.replace("\"run\"", "1").replace("\"jump\"", "0");
    let folder = Folder::new().with("anno.json", &text).videos(&["a.mp4", "b.mp4", "c.mp4"]);
    assert!(complaint(&folder.config("anno.json")).contains("shows class number"));
    let list = folder.write("classes.txt", "jump\nrun\n").display().to_string();
    let dataset = load(&DataConfig { classes: list, ..folder.config("anno.json") }).unwrap();
    assert_eq!(dataset.videos[0].actions.iter().map(|action| action.label).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn a_subset_name_that_matches_nothing_lists_what_there_is() {
    let folder = two();
    let config = DataConfig { validation_subset: "holdout".into(), ..folder.config("anno.json") };
    let text = complaint(&config).replace(&folder.path(""), "");
    assert_eq!(
        text,
        "no video of `anno.json` belongs to the subset `holdout`; \
         hint: set `data.validation_subset` to one of `testing`, `training`, `validation`"
    );
    let unannotated = DataConfig { validation_subset: "test".into(), ..folder.config("anno.json") };
    assert!(complaint(&unannotated).contains("the subset `testing` of"), "{}", complaint(&unannotated));
}

#[test]
fn aliases_of_subsets_are_understood_and_said() {
    let folder = two();
    let config = DataConfig {
        train_subset: "train".into(),
        validation_subset: "Validation".into(),
        ..folder.config("anno.json")
    };
    let dataset = load(&config).unwrap();
    assert_eq!(
        remarks(&dataset),
        [
            "the subset `train` is `training` in these annotations",
            "the subset `Validation` is `validation` in these annotations"
        ]
    );
    let same = DataConfig { validation_subset: "train".into(), ..folder.config("anno.json") };
    assert!(complaint(&same).contains("both mean `training`"));
    let overfit = DataConfig { validation_subset: "training".into(), ..folder.config("anno.json") };
    assert_eq!(load(&overfit).unwrap().subset(Subset::Validation).len(), 2);
}

#[test]
fn bad_segments_are_dropped_or_clipped_and_counted() {
    let text = r#"{"database": {
        "a": {"subset": "training", "duration": 10, "annotations": [
            {"label": "run", "segment": [1, 2]}, {"label": "run", "segment": [3, 3]}, {"label": "run", "segment": [5, 4]},
            {"label": "run", "segment": [null, 4]}, {"label": "run", "segment": [12, 13]}, {"label": "run", "segment": [9, 10.5]},
            {"label": "run", "segment": [-1, 1]}]},
        "b": {"subset": "validation", "annotations": [{"label": "run", "segment": [1, 2]}]},
        "c": {"subset": "validation", "duration": 3}
    }}"#;
    let folder = Folder::new().with("anno.json", text).videos(&["a.mp4", "b.mp4", "c.mp4"]);
    let dataset = load(&folder.config("anno.json")).unwrap();
    let spans: Vec<(f64, f64)> =
        dataset.videos[0].actions.iter().map(|action| (action.start.0, action.end.0)).collect();
    assert_eq!(spans, [(0.0, 1.0), (1.0, 2.0), (9.0, 10.0)]);
    assert_eq!(
        remarks(&dataset),
        [
            "3 actions end before they start, or lie outside their video: dropped (first: `a`)",
            "1 action has a time that is not a number: dropped (first: `a`)",
            "2 actions reach beyond their video: clipped (first: `a`)",
            "1 video has no annotated duration (first: `b`)",
            "1 video shows no action (first: `c`)"
        ]
    );
}

#[test]
fn missing_files_are_counted_and_the_first_ten_named() {
    let videos: Vec<String> = (0..12)
        .map(|n| format!(r#""v{n:02}": {{"subset": "training", "duration": 9, "annotations": [{{"label": "run", "segment": [1, 2]}}]}}"#))
        .collect();
    let text = format!(
        r#"{{"database": {{{}, "x": {{"subset": "validation", "annotations": [{{"label": "run", "segment": [1, 2]}}]}}}}}}"#,
        videos.join(",")
    );
    let folder = Folder::new().with("anno.json", &text).videos(&["x.mp4"]);
    assert_eq!(annotations(&folder.config("anno.json")).unwrap().videos.len(), 13);
    let text = load(&folder.config("anno.json")).unwrap_err().to_string();
    assert!(text.starts_with("12 of 13 annotated videos have no file in"), "{text}");
    assert!(text.contains("`v09`") && !text.contains("`v10`"), "{text}");
}

#[test]
fn blocked_videos_are_left_out() {
    let folder = two().with("blocked.json", r#"["v_b", "nobody"]"#);
    let config = DataConfig { blocked: folder.path("blocked.json"), ..folder.config("anno.json") };
    let dataset = load(&config).unwrap();
    assert_eq!(dataset.videos.iter().map(|video| video.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert!(remarks(&dataset)[0].starts_with("1 video of"), "{:?}", dataset.remarks);
    folder.write("blocked.json", "{}");
    assert!(complaint(&config).contains("is not a JSON array of video ids"));
}

#[test]
fn wrong_files_name_file_video_and_field() {
    let folder = Folder::new();
    let try_text = |text: &str| {
        // An odd entry matters where both subsets are there.
        let (odd, end) = text.rsplit_once("}}").unwrap_or((text, ""));
        let others = r#", "t": {"subset": "training"}, "v": {"subset": "validation"}}}"#;
        let whole = if text.contains("training") { format!("{odd}{others}{end}") } else { text.to_owned() };
        folder.write("anno.json", &whole);
        complaint(&folder.config("anno.json")).replace(&folder.path(""), "")
    };
    for (text, part) in [
        (
            "{",
            "`anno.json` is not annotations of ActivityNet's layout: line 1, column 2: the text ends too early",
        ),
        ("{}", "line 1, column 1: missing field `database`"),
        (r#"{"database": []}"#, "line 1, column 14: `database` is [], not an object"),
        (
            r#"{"database": {"a": {"subset": "training", "duration": 3,, "annotations": []}}}"#,
            "line 1, column 57, in `database.a`: a name in double quotes is expected, not `,`",
        ),
        (
            r#"{"database": {"a": {"subset": 3}}}"#,
            "video `a` of `anno.json` (line 1, column 31): `subset` is 3, not a text",
        ),
        (
            r#"{"database": {"a": null}}"#,
            "video `a` of `anno.json` (line 1, column 20): an object with `subset` is expected, not null",
        ),
        (
            "{\"database\": {\"a\": {\"subset\": \"training\", \"annotations\":\n [{\"label\": \"x\"}]}}}",
            "video `a` of `anno.json` (line 2, column 3): missing field `segment`",
        ),
        (
            r#"{"database": {"a": {"subset": "training", "annotations": [{"label": "x", "segment": ["one", 2]}]}}}"#,
            "`segment` is `one`, not a number",
        ),
        (
            r#"{"database": {"a": {"subset": "training", "annotations": [{"label": "x", "segment": [1, 2, 3]}]}}}"#,
            "`segment` is [1, 2, 3], not `[start, end]`",
        ),
        (
            r#"{"database": {"a": {"subset": "training", "annotations": [{"label": " ", "segment": [1, 2]}]}}}"#,
            "video `a` of `anno.json` (line 1, column 69): `label` is empty",
        ),
        (
            r#"{"database": {"a": {"subset": "training", "annotations": [], "annotations": []}}}"#,
            "video `a` of `anno.json` (line 1, column 77): `annotations` is given twice",
        ),
        (
            r#"{"database": {"a": {"subset": "training", "duration": "long", "annotations": []}}}"#,
            "`duration` is `long`, not a number",
        ),
        (r#"{"database": {}}"#, "no video of `anno.json` belongs to the subset `training`"),
        (r#"{"database": {"a": {"annotations": []}}}"#, "lists no video with a `subset`: give"),
    ] {
        let complaint = try_text(text);
        assert!(complaint.contains(part), "{complaint}");
    }
    let nowhere = DataConfig { videos: String::new(), ..folder.config("anno.json") };
    assert!(complaint(&nowhere).contains("`data.videos` is not set"));
    let unnamed = DataConfig { annotations: String::new(), ..folder.config("anno.json") };
    assert!(complaint(&unnamed).contains("`data.annotations` is not set"));
    assert!(complaint(&folder.config("none.json")).contains("cannot be read"));
    assert!(complaint(&folder.config("videos")).contains("is a folder"));
}

fn thumos() -> Folder {
    Folder::new()
        .with(
            "text/val/Diving_val.txt",
            "video_validation_0000001  1.5 3.0\nvideo_validation_0000001 0.5 1.0\n",
        )
        .with("text/val/Ambiguous_val.txt", "video_validation_0000002 1.0 2.0\n")
        .with("text/test/CliffDiving_test.txt", "video_test_0000004 1.0 2.0\nvideo_test_0000270 1.0 2.0\n")
        .with("text/test/Ambiguous_test.txt", "video_test_0000004 5.0 6.0\n")
        .videos(&["val/video_validation_0000001.mp4", "test/video_test_0000004.mp4"])
}

fn thumos_config(folder: &Folder, annotations: &str) -> DataConfig {
    DataConfig { format: AnnotationFormat::Thumos14, ..folder.config(annotations) }
}

#[test]
fn thumos14_text_files_in_their_folders() {
    let folder = thumos();
    let dataset = load(&thumos_config(&folder, "text")).unwrap();
    assert_eq!(dataset.classes, ["CliffDiving", "Diving"]);
    let ids: Vec<&str> = dataset.videos.iter().map(|video| video.id.as_str()).collect();
    assert_eq!(ids, ["video_validation_0000001", "video_test_0000004"]);
    assert_eq!(dataset.videos[0].actions.len(), 2);
    assert_eq!(dataset.videos[0].actions[0].start, Seconds(0.5));
    assert_eq!(
        remarks(&dataset),
        [
            "2 intervals labelled `Ambiguous` are not actions",
            "1 video that shows only undecided intervals is left out: `video_validation_0000002`",
            "test videos with wrong or no labels are left out: `video_test_0000270`",
            "the subset `training` is `val` in these annotations",
            "the subset `validation` is `test` in these annotations",
            "2 videos have no annotated duration (first: `video_validation_0000001`)"
        ]
    );
    let kept = DataConfig { disputed_videos: DisputedVideos::Kept, ..thumos_config(&folder, "text") };
    assert!(complaint(&kept).contains("video_test_0000270"), "it counts now, and has no file here");
    folder.write("text/val/Diving_val.txt", "\nvideo_validation_0000001 1.5\n");
    assert!(complaint(&thumos_config(&folder, "text")).contains("line 2 of"));
    assert!(complaint(&thumos_config(&folder, "videos")).contains("`<Class>_val.txt`"));
}

/// Each release's words for the two subsets, and which of its videos must be trained on.
#[test]
fn thumos14_json_of_every_release() {
    for (training, validation) in [("val", "test"), ("Validation", "Test"), ("training", "validation")] {
        let text = format!(
            r#"{{"database": {{
                "learn": {{"subset": "{training}", "duration": 9.0, "annotations": [{{"label": "Diving", "segment": [1, 2], "label_id": 7}}, {{"label": "Ambiguous", "segment": [3, 4]}}]}},
                "judge": {{"subset": "{validation}", "duration": 9.0, "frame": 270, "annotations": [{{"label": "Diving", "segment": [1, 2]}}]}}
            }}}}"#
        );
        let folder = Folder::new().with("thumos.json", &text).videos(&["learn.mp4", "judge.mp4"]);
        for names in [("val", "test"), ("training", "validation"), ("train", "test")] {
            let config = DataConfig {
                train_subset: names.0.into(),
                validation_subset: names.1.into(),
                ..thumos_config(&folder, "thumos.json")
            };
            let dataset = load(&config).unwrap();
            let of = |subset| dataset.video(dataset.subset(subset)[0]).id.clone();
            assert_eq!(of(Subset::Training), "learn", "{names:?} in {training}/{validation}");
            assert_eq!(of(Subset::Validation), "judge", "{names:?} in {training}/{validation}");
            assert_eq!(dataset.classes, ["Diving"]);
        }
    }
}

#[test]
fn the_fingerprint_follows_what_is_learnt_from() {
    let folder = two();
    let config = folder.config("anno.json");
    let before = load(&config).unwrap().fingerprint().unwrap();
    assert_eq!(load(&config).unwrap().fingerprint().unwrap(), before);
    folder.write("anno.json", &TWO.replace("[3, 4]", "[3, 4.5]"));
    let other_action = load(&config).unwrap().fingerprint().unwrap();
    folder.write("anno.json", TWO);
    folder.write("videos/a.mp4", "longer");
    let other_file = load(&config).unwrap().fingerprint().unwrap();
    assert_ne!(other_action, before);
    assert_ne!(other_file, before);
    let dataset = load(&config).unwrap();
    fs::remove_file(folder.0.path().join("videos/a.mp4")).unwrap();
    assert!(matches!(dataset.fingerprint(), Err(DatasetError::Read { .. })));
}

fn probed(frames: usize, duration: f64) -> ProbedVideo {
    let decoder = DecoderKind::Embedded;
    ProbedVideo {
        frames,
        duration,
        width: 64,
        height: 48,
        decoder,
        reason: "progressive H.264 in MP4".into(),
    }
}

#[test]
fn a_check_finds_every_problem_at_once() {
    let text = TWO.replace(r#""c": {"#, r#""e": {"subset": "validation", "duration": 50, "annotations": [{"label": "fly", "segment": [40, 45]}]}, "c": {"#);
    let folder = Folder::new().with("anno.json", &text).videos(&["a.mp4", "b.mp4", "e.mp4"]);
    let asked = Cell::new(0);
    let examine = |videos: &[&Video]| {
        asked.set(asked.get() + videos.len());
        let answer = |video: &&Video| match video.id.as_str() {
            "b" => Err(Unreadable {
                reason: "is damaged at 3.20 s: a hole".into(),
                hint: Some("copy it".into()),
            }),
            "e" => Ok(probed(300, 20.0)),
            _ => Ok(probed(307, 20.5)),
        };
        videos.iter().map(answer).collect()
    };
    let report = check(&folder.config("anno.json"), &examine).unwrap();
    assert_eq!(asked.get(), 3, "a video without a file is not examined");
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let path = folder.path("videos/b.mp4");
    assert_eq!(
        problems,
        [
            format!("video `b` is damaged at 3.20 s: a hole (`{path}`)"),
            "video `c` has no file".to_owned(),
            "video `e` is 20.00 s long, but an action ends at 45.00 s".to_owned(),
            "video `e` is 20.00 s long, but is annotated as 50.00 s".to_owned(),
            "no training video shows `fly`".to_owned(),
            "no validation video shows `jump`".to_owned(),
        ]
    );
    assert_eq!((report.subsets[0].videos, report.subsets[0].actions), (2, 3));
    assert!((report.subsets[0].seconds - 30.5).abs() < 1e-9);
    assert_eq!(report.classes[2], ClassCount { name: "run".into(), training: 2, validation: 1 });
    let text = report.to_string();
    assert!(text.contains("training         2 videos        3 actions       0.5 min"), "{text}");
    assert!(text.contains(&format!("a hole (`{path}`)\nhint: copy it\nproblem: video `c`")), "{text}");
    let stored: CheckReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(stored, report);
}

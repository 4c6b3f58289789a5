//! Annotation files as people have them: encodings, `NaN`, odd entries, spellings, other units.

use std::path::Path;

use super::*;
use crate::hint::ExitCode;

const VIDEOS: [&str; 4] = ["tr1.mp4", "tr2.mp4", "va1.mp4", "va2.mp4"];

/// Annotations from the fixtures, and a folder with their videos.
fn fixture(name: &str) -> (Folder, DataConfig) {
    let annotations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/annotations").join(name);
    let folder = Folder::new().videos(&VIDEOS).videos(&["a.mp4", "b.mp4"]);
    let config = DataConfig { annotations: annotations.display().to_string(), ..folder.config("") };
    (folder, config)
}

fn loaded(name: &str) -> Dataset {
    let (_folder, config) = fixture(name);
    load(&config).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refused(name: &str) -> (String, DatasetError) {
    let (_folder, config) = fixture(name);
    let error = load(&config).unwrap_err();
    assert_eq!(error.exit(), ExitCode::NeverRestart, "{error}");
    (error.to_string(), error)
}

fn actions(dataset: &Dataset) -> Vec<usize> {
    dataset.videos.iter().map(|video| video.actions.len()).collect()
}

#[test]
fn an_id_that_stands_twice_in_the_file_is_refused_with_both_places() {
    for name in ["dupid.json", "dupid_same.json"] {
        let (text, error) = refused(name);
        assert!(
            text.contains("holds the video `tr1` twice (line 1, column 22, and line 1, column "),
            "{text}"
        );
        assert!(error.hint().is_some());
        let (_folder, config) = fixture(name);
        let report = check(&config, &|videos| vec![Ok(probed(363, 24.2)); videos.len()]).unwrap();
        assert!(report.problems[0].to_string().contains("`tr1` twice"), "{report}");
    }
}

#[test]
fn an_id_that_stands_twice_with_other_accents_is_refused() {
    let folder = Folder::new();
    let text = TWO.replace("\"a\"", "\"caf\u{e9}\"").replace("\"c\"", "\"cafe\u{301}\"");
    folder.write("anno.json", &text);
    let text = annotations(&folder.config("anno.json")).unwrap_err().to_string();
    assert!(text.contains("holds the video `cafe\u{301}` twice"), "{text}");
}

#[test]
fn other_spellings_of_a_subset_are_told_with_what_they_leave_out() {
    let dataset = loaded("sub_mixed.json");
    assert_eq!(
        remarks(&dataset),
        [
            "the subset `validation` is taken (1 video), and `Validation` is not (1 video): `va1`",
            "the subset `training` is taken (1 video), and `train` is not (1 video): `tr1`",
        ]
    );
    assert!(dataset.remarks.iter().all(|remark| remark.severity() == Severity::Warning));
    assert_eq!(remarks(&loaded("sub_missing.json")), ["1 video has no subset and is left out: `tr1`"]);
}

#[test]
fn a_subset_that_nobody_asked_for_is_told_unless_it_is_the_test() {
    let text = TWO.replace("\"d\": {\"subset\": \"testing\"", "\"d\": {\"subset\": \"trianing\"");
    let folder = two().with("typo.json", &text);
    assert_eq!(
        remarks(&load(&folder.config("typo.json")).unwrap()),
        ["1 video of the subset `trianing` is left out: `d`"]
    );
    assert!(remarks(&load(&folder.config("anno.json")).unwrap()).is_empty());
}

#[test]
fn labels_that_look_alike_are_told_and_stay_apart() {
    let dataset = loaded("labels_near.json");
    assert_eq!(dataset.classes.len(), 5);
    assert_eq!(
        remarks(&dataset),
        [
            "the labels `Pour`, `pour`, `pour ` are taken as 3 classes, though they differ only in case, blanks, hyphens or \
             underscores (first in `a`)",
            "the labels `pour tea`, `pour_tea` are taken as 2 classes, though they differ only in case, blanks, hyphens or \
             underscores (first in `a`)",
        ]
    );
    assert!(dataset.remarks.iter().all(|remark| remark.hint().is_some()));
}

#[test]
fn times_in_frames_are_recognised() {
    let (text, error) = refused("frames.json");
    assert!(text.contains("all actions of the subset `training` of"), "{text}");
    assert!(
        text.ends_with("lie outside their videos, such as one of `tr1` that begins at 30.0 of 24.2 s"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("frame numbers must be divided by the frame rate"));

    // Short videos begin within the first frames.
    let early = TWO.replace("[1, 2]", "[30, 60]").replace("[3, 4]", "[90, 120]");
    let folder = two().with("early.json", &early);
    let dataset = load(&folder.config("early.json")).unwrap();
    let warning = &dataset.remarks[0];
    assert_eq!(
        warning.to_string(),
        "2 of 4 actions lie outside their videos and are dropped, such as one of `a` that begins at 90.0 of 20.5 s"
    );
    assert_eq!(warning.severity(), Severity::Warning);
}

#[test]
fn what_python_writes_for_no_number_is_dropped_and_told() {
    let dataset = loaded("nan.json");
    assert_eq!(actions(&dataset), [1, 2, 1, 1]);
    assert_eq!(remarks(&dataset), ["1 action has a time that is not a number: dropped (first: `tr1`)"]);
    let endless = TWO.replace("20.5", "Infinity").replace("[3, 4]", "[3, -Infinity]");
    let folder = two().with("endless.json", &endless);
    let said = remarks(&load(&folder.config("endless.json")).unwrap());
    assert_eq!(said[0], "1 action has a time that is not a number: dropped (first: `a`)");
}

#[test]
fn every_encoding_is_read() {
    assert_eq!(actions(&loaded("bom.json")), [2, 2, 1, 1]);
    let folder = two();
    let units = TWO.encode_utf16().flat_map(u16::to_le_bytes);
    fs::write(folder.0.path().join("wide.json"), [0xff, 0xfe].into_iter().chain(units).collect::<Vec<u8>>())
        .unwrap();
    fs::write(folder.0.path().join("classes.txt"), "\u{feff}run\r\njump\r\n").unwrap();
    let config = DataConfig { classes: folder.path("classes.txt"), ..folder.config("wide.json") };
    assert_eq!(load(&config).unwrap().classes, ["run", "jump"]);
    fs::write(
        folder.0.path().join("latin.json"),
        TWO.replace("run", "caf\u{e9}").chars().map(|c| c as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    let text = complaint(&folder.config("latin.json"));
    assert!(
        text.contains("line 2 of `") && text.contains("is not UTF-8; hint: save the file as UTF-8"),
        "{text}"
    );
}

#[test]
fn no_annotations_may_be_written_as_null() {
    let dataset = loaded("anull.json");
    assert_eq!(actions(&dataset), [0, 2, 1, 1]);
    assert_eq!(remarks(&dataset), ["1 video shows no action (first: `tr1`)"]);
}

#[test]
fn an_odd_entry_matters_where_its_subset_is_used() {
    let odd = |subset: &str| {
        TWO.replacen(
            "{\"database\": {",
            &format!("{{\"database\": {{\"o\": {{\"subset\": {subset}, \"annotations\": [{{}}]}},"),
            1,
        )
    };
    let folder = two()
        .with("other.json", &odd("\"testing\""))
        .with("used.json", &odd("\"training\""))
        .with("unknown.json", &odd("7"));
    assert_eq!(
        remarks(&load(&folder.config("other.json")).unwrap()),
        [
            "1 video of other subsets cannot be understood and is left out: `o` (line 1, column 58: missing field `segment`)"
        ]
    );
    assert!(complaint(&folder.config("used.json")).contains("video `o` of `"));
    assert!(complaint(&folder.config("unknown.json")).contains("`subset` is 7, not a text"));
}

/// Both archives as they unpack, beside what macOS adds.
#[test]
fn thumos14_archives_are_read_as_they_unpack() {
    let folder = thumos();
    fs::rename(
        folder.0.path().join("text/val"),
        folder.0.path().join("text/TH14_Temporal_annotations_validation"),
    )
    .unwrap();
    for (name, text) in [
        (
            "unpacked/TH14_Temporal_annotations_validation/annotation/Diving_val.txt",
            "video_validation_0000001 1 2\n",
        ),
        (
            "unpacked/TH14_Temporal_annotations_test/annotation/Diving_test.txt",
            "\u{feff}video_test_0000004  1.5 2\r\n",
        ),
        ("unpacked/TH14_Temporal_annotations_test/annotation/Ambiguous_test.txt", "video_test_0000004 5 6\n"),
        ("unpacked/TH14_Temporal_annotations_test/annotation/detclasslist.txt", "7 BaseballPitch\n"),
        ("unpacked/__MACOSX/annotation/._Diving_val.txt", "\0\x05\x16\x07"),
        ("unpacked/TH14_Temporal_annotations_validation/annotation/._Diving_val.txt", "\0\x05\x16\x07"),
    ] {
        folder.write(name, text);
    }
    let dataset = load(&thumos_config(&folder, "unpacked")).unwrap();
    assert_eq!(dataset.classes, ["Diving"]);
    assert_eq!(actions(&dataset), [1, 1]);

    folder.write("unpacked/copy/Diving_val.txt", "video_validation_0000001 1 2\n");
    let said = remarks(&load(&thumos_config(&folder, "unpacked")).unwrap());
    assert!(
        said.iter().any(|remark| remark.contains("have the same content: the first is read")),
        "{said:?}"
    );
    folder.write("unpacked/copy/Diving_val.txt", "video_validation_0000001 1 3\n");
    assert!(complaint(&thumos_config(&folder, "unpacked")).contains("annotate the same class and subset"));
}

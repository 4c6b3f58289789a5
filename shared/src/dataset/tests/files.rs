//! Every video that is there is found.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use super::super::files::Listing;
use super::*;

fn listing(files: &[&str]) -> (Folder, Listing) {
    let folder = Folder::new().videos(files);
    let listing = Listing::of(&folder.path("videos")).unwrap();
    (folder, listing)
}

#[test]
fn files_are_found_by_every_way_to_write_an_id() {
    for (file, id) in [
        ("x.mp4", "x"),
        ("x.MP4", "x"),
        ("x.mp4", "x.mp4"),
        ("x.mp4", "x.avi"),
        ("v_x.mp4", "x"),
        ("x.mp4", "v_x"),
        ("v_x.mp4", "x.mp4"),
        ("a/b/c/d/x.mp4", "x"),
        ("sub/x.mp4", "sub/x"),
        ("sub/x.mp4", "sub/x.mp4"),
        ("sub/x.mp4", "./sub/x.mp4"),
        ("deep/sub/x.mp4", "sub/x"),
        ("sub/x.mp4", "sub\\x.mp4"),
        ("x.mp4", "/data/elsewhere/x.mp4"),
        ("cafe\u{301}.mp4", "caf\u{e9}"),
        ("caf\u{e9}.mp4", "cafe\u{301}"),
        ("caf\u{e9}/x.mp4", "cafe\u{301}/x"),
        ("-_x.y.mp4", "-_x.y"),
        ("x.mp4.mp4", "x.mp4"),
    ] {
        let (folder, listing) = listing(&[file]);
        let found = listing.find(id).unwrap_or_else(|| panic!("`{id}` for `{file}`"));
        assert_eq!(found.path, folder.0.path().join("videos").join(file));
        assert!(found.unused.is_empty());
    }
}

#[test]
fn every_container_is_found() {
    for ending in [
        "mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "vob", "wmv", "asf",
        "flv", "f4v", "3gp", "3g2", "ogv", "ogg", "mxf", "y4m", "M2TS", "Mkv",
    ] {
        let (_folder, listing) = listing(&[&format!("x.{ending}"), "y.txt"]);
        assert!(listing.find("x").is_some(), "{ending}");
        assert!(listing.find("y").is_none());
    }
}

#[test]
fn a_folder_and_an_ending_choose_between_files() {
    let (folder, listing) = listing(&["a/x.mp4", "b/x.mp4", "b/x.mkv"]);
    let find = |id: &str| {
        let found = listing.find(id).unwrap();
        let name = |path: &Path| path.strip_prefix(folder.path("videos")).unwrap().display().to_string();
        (name(&found.path), found.unused.iter().map(|path| name(path)).collect::<Vec<_>>())
    };
    assert_eq!(find("b/x.mkv"), ("b/x.mkv".into(), vec![]));
    assert_eq!(find("b/x.mp4"), ("b/x.mp4".into(), vec![]));
    assert_eq!(find("b/x"), ("b/x.mp4".into(), vec!["b/x.mkv".into()]));
    assert_eq!(find("x"), ("a/x.mp4".into(), vec!["b/x.mp4".into(), "b/x.mkv".into()]));
}

#[test]
fn links_that_lead_back_end_the_walk() {
    let folder = Folder::new().videos(&["a/x.mp4"]);
    let videos = folder.0.path().join("videos");
    symlink(&videos, videos.join("a/again")).unwrap();
    symlink("nowhere", videos.join("gone")).unwrap();
    assert!(Listing::of(&folder.path("videos")).unwrap().find("x").unwrap().unused.is_empty());
}

#[test]
fn ids_with_an_ending_are_found_where_the_annotations_have_them() {
    let annotations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/annotations/ext.json");
    let folder =
        Folder::new().videos(&["tr1.mp4", "tr2.mp4", "va1.mp4", "va2.mp4"]).with("out.json", r#"["tr2"]"#);
    let config = DataConfig { annotations: annotations.display().to_string(), ..folder.config("") };
    assert_eq!(load(&config).unwrap().videos.len(), 4);
    let blocked = DataConfig { blocked: folder.path("out.json"), ..config };
    assert_eq!(load(&blocked).unwrap().videos.len(), 3, "a list leaves out ids whatever their ending");
}

#[test]
fn two_files_for_one_id_are_told() {
    let folder = two().videos(&["a.mkv", "deep/down/a.mp4", "v_c.avi"]);
    let dataset = load(&folder.config("anno.json")).unwrap();
    let root = folder.path("videos");
    let said: Vec<String> = remarks(&dataset).iter().map(|remark| remark.replace(&root, "")).collect();
    assert_eq!(
        said,
        [
            "video `a` has 3 files: `/a.mp4` is used, not `/deep/down/a.mp4`, `/a.mkv`",
            "video `c` has 2 files: `/c.AVI` is used, not `/v_c.avi`",
        ]
    );
}

#[test]
fn a_video_without_a_file_is_told_with_the_nearest_name() {
    let folder = Folder::new().with("anno.json", &TWO.replace("\"a\"", "\"kitchen_001\"")).videos(&[
        "Kitchen-001.mp4",
        "b.mp4",
        "c.mp4",
    ]);
    let text = complaint(&folder.config("anno.json"));
    assert!(text.contains("1 of 3 annotated videos has no file in `"), "{text}");
    assert!(text.contains("hint: the nearest names there: `Kitchen-001.mp4` for `kitchen_001`; "), "{text}");
    let report = check(&folder.config("anno.json"), &|videos| vec![Ok(probed(75, 5.0)); videos.len()])
        .unwrap()
        .to_string();
    assert!(
        report.contains("video `kitchen_001` has no file; the nearest name is `Kitchen-001.mp4`"),
        "{report}"
    );

    let (_folder, listing) = listing(&["video_0002.mp4", "video_0001.part"]);
    let taken = folder.0.path().join("videos/video_0002.mp4");
    assert_eq!(
        listing.nearest("video_0001", &BTreeSet::from([taken.as_path()])).as_deref(),
        Some("video_0001.part")
    );
    assert_eq!(listing.nearest("kitchen", &BTreeSet::new()), None);
}

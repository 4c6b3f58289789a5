//! Against another parser, and what is said of mistakes.

use proptest::prelude::*;
use serde_json::Value as Other;

use super::*;

fn wrong(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn converted(value: &Value<'_>) -> Other {
    match &value.kind {
        Kind::Null => Other::Null,
        Kind::Bool(value) => Other::Bool(*value),
        Kind::Number(value) => Other::from(*value),
        Kind::Text(text) => Other::from(&**text),
        Kind::List(values) => values.iter().map(converted).collect(),
        Kind::Object(members) => {
            members.iter().map(|(name, value)| (name.to_string(), converted(value))).collect()
        }
    }
}

fn any_json() -> impl Strategy<Value = Other> {
    let leaf = prop_oneof![
        Just(Other::Null),
        any::<bool>().prop_map(Other::from),
        (-1e9..1e9f64).prop_map(Other::from),
        any::<String>().prop_map(Other::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Other::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_another_program_writes_is_read_as_it_was(json in any_json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
        prop_assert_eq!(converted(&parse(&text.unwrap()).unwrap()), json);
    }

    #[test]
    fn what_another_program_refuses_is_refused(text in r#"[\[\]{}:,"0-9eE.+\\ua-d-]{0,12}"#) {
        match (parse(&text), serde_json::from_str::<Other>(&text)) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            // A number beyond the range is infinite here and an error there.
            (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("out of range"), "{error}"),
            (Err(error), Ok(_)) => prop_assert!(false, "{error}"),
        }
    }
}

#[test]
fn escapes_and_numbers_that_are_not_finite() {
    let text = r#"["\u00e9\ud83d\ude00\n\/", NaN, Infinity, -Infinity, -0.5e-1]"#;
    let value = parse(text).unwrap();
    let values = value.list("it").unwrap();
    assert_eq!(values[0].name("x").unwrap(), "\u{e9}\u{1f600}\n/");
    assert!(values[1].number("x").unwrap().is_nan());
    assert_eq!(values[2].number("x").unwrap(), f64::INFINITY);
    assert_eq!(values[3].number("x").unwrap(), f64::NEG_INFINITY);
    assert_eq!(values[4].number("x").unwrap(), -0.05);
}

#[test]
fn a_mistake_is_named_with_its_place_and_the_names_that_lead_there() {
    assert_eq!(wrong("{"), "line 1, column 2: the text ends too early");
    assert_eq!(
        wrong("{\"database\": {\n  \"\u{e9}1\": {\"annotations\": [{\"segment\": [1, nan]}]}}}"),
        "line 2, column 42, in `database.\u{e9}1.annotations[0].segment[1]`: `nan` is not a value"
    );
    assert_eq!(wrong("[1,]"), "line 1, column 4, in `[1]`: a value is expected, not `]`");
    assert_eq!(wrong("{\"a\" 1}"), "line 1, column 6: `:` is expected after a name, not `1`");
    assert_eq!(wrong("{'a': 1}"), "line 1, column 2: a name in double quotes is expected, not `\\'`");
    assert_eq!(wrong("[01]"), "line 1, column 2, in `[0]`: `01` is not a value");
    assert_eq!(wrong("{} {}"), "line 1, column 4: nothing more is expected after the end, not `{`");
    assert_eq!(wrong("\"\\ud800\""), "line 1, column 2: half of a character that needs two escapes");
    assert_eq!(wrong("\"abc"), "line 1, column 5: the text ends inside of a string");
    assert!(wrong(&"[".repeat(100_000)).contains("nested more than 128 deep"));
}

#[test]
fn names_that_an_object_has_twice_are_found() {
    let find = |text| {
        let value = parse(text).unwrap();
        repeated(value.members("it").unwrap()).map(|(name, places)| (name.to_owned(), places))
    };
    assert_eq!(find(r#"{"a": 1, "b": 2}"#), None);
    assert_eq!(find(r#"{"a": 1, "b": 2, "a": 3}"#), Some(("a".to_owned(), [6, 22])));
    assert_eq!(find("{\"caf\u{e9}\": 1, \"cafe\u{301}\": 2}"), Some(("cafe\u{301}".to_owned(), [10, 23])));
}

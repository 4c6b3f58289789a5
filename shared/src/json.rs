//! JSON as other programs write it, `NaN` and repeated names included; every value knows its place in the text.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Lists and objects inside each other; a text that nests deeper is no data set.
const DEEPEST: usize = 128;
/// Characters of a value that a message repeats.
const SHOWN: usize = 40;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// Characters from the line's start, from 1.
    pub column: usize,
}

impl Place {
    /// The place of a byte.
    pub(crate) fn of(text: &str, at: usize) -> Self {
        let before = &text.as_bytes()[..at.min(text.len())];
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.split(|byte| *byte == b'\n').count();
        // A byte that continues a character (10xxxxxx) begins none.
        let column = 1 + before[start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        Self { line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One value with the place where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value<'t> {
    pub(crate) at: usize,
    pub(crate) kind: Kind<'t>,
    source: &'t str,
}

/// A member of an object; an object keeps all, in the order of the text, those with the same name too.
pub(crate) type Member<'t> = (Cow<'t, str>, Value<'t>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind<'t> {
    Null,
    Bool(bool),
    /// Not finite where the text says `NaN` or `Infinity`, as Python writes them.
    Number(f64),
    Text(Cow<'t, str>),
    List(Vec<Value<'t>>),
    Object(Vec<Member<'t>>),
}

/// A value that is not what its reader understands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Odd {
    pub(crate) at: usize,
    /// The field and what is wrong with it.
    pub(crate) message: String,
}

impl<'t> Value<'t> {
    /// The value as it is written, cut where it is long.
    pub(crate) fn shown(&self) -> String {
        match self.source.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}...", &self.source[..end]),
            None => self.source.to_owned(),
        }
    }

    pub(crate) fn odd(&self, message: impl Into<String>) -> Odd {
        Odd { at: self.at, message: message.into() }
    }

    /// The members of an object; `what` names it in the complaint.
    pub(crate) fn members(&self, what: &str) -> Result<&[Member<'t>], Odd> {
        match &self.kind {
            Kind::Object(members) => Ok(members),
            _ => Err(self.odd(format!("{what} is {}, not an object", self.shown()))),
        }
    }

    /// The values of a list.
    pub(crate) fn list(&self, what: &str) -> Result<&[Value<'t>], Odd> {
        match &self.kind {
            Kind::List(values) => Ok(values),
            _ => Err(self.odd(format!("{what} is {}, not a list", self.shown()))),
        }
    }

    /// The member with one of the names: nothing where there is none or it is `null`.
    pub(crate) fn field(&self, names: &[&str]) -> Result<Option<&Value<'t>>, Odd> {
        let Kind::Object(members) = &self.kind else {
            return Err(self.odd(format!("an object with `{}` is expected, not {}", names[0], self.shown())));
        };
        let mut found = members.iter().filter(|(name, _)| names.contains(&&**name));
        let first = found.next();
        if let Some((name, second)) = found.next() {
            return Err(second.odd(format!("`{name}` is given twice")));
        }
        Ok(first.map(|(_, value)| value).filter(|value| value.kind != Kind::Null))
    }

    /// The member that must be there.
    pub(crate) fn needed(&self, names: &[&str]) -> Result<&Value<'t>, Odd> {
        self.field(names)?.ok_or_else(|| self.odd(format!("missing field `{}`", names[0])))
    }

    /// A number, or a number written as text (HACS writes durations so). `null` is not a number, as `NaN` is none.
    pub(crate) fn number(&self, field: &str) -> Result<f64, Odd> {
        match &self.kind {
            Kind::Number(number) => Ok(*number),
            Kind::Null => Ok(f64::NAN),
            Kind::Text(text) => {
                text.trim().parse().map_err(|_| self.odd(format!("`{field}` is `{text}`, not a number")))
            }
            _ => Err(self.odd(format!("`{field}` is {}, not a number", self.shown()))),
        }
    }

    /// A start and an end.
    pub(crate) fn pair(&self, field: &str) -> Result<[f64; 2], Odd> {
        match self.list(&format!("`{field}`"))? {
            [start, end] => Ok([start.number(field)?, end.number(field)?]),
            _ => Err(self.odd(format!("`{field}` is {}, not `[start, end]`", self.shown()))),
        }
    }

    /// A name; one without a visible character is none.
    pub(crate) fn name(&self, field: &str) -> Result<&str, Odd> {
        match &self.kind {
            Kind::Text(text) if text.trim().is_empty() => Err(self.odd(format!("`{field}` is empty"))),
            Kind::Text(text) => Ok(text),
            _ => Err(self.odd(format!("`{field}` is {}, not a text", self.shown()))),
        }
    }
}

/// A name that an object has twice, with both places; accents may be composed differently.
pub(crate) fn repeated<'v>(members: &'v [Member<'_>]) -> Option<(&'v str, [usize; 2])> {
    let mut seen = BTreeMap::new();
    members.iter().find_map(|(name, value)| {
        let earlier = seen.insert(crate::text::composed(name), value.at)?;
        Some((&**name, [earlier, value.at]))
    })
}

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Malformed {
    at: Place,
    /// The names and positions that lead there.
    within: String,
    message: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, within, message } = self;
        if within.is_empty() {
            write!(f, "{at}: {message}")
        } else {
            write!(f, "{at}, in `{within}`: {message}")
        }
    }
}

/// Reads a whole text.
pub(crate) fn parse(text: &str) -> Result<Value<'_>, Malformed> {
    let mut parser = Parser { text, at: 0, within: Vec::new() };
    let parsed = parser.value().and_then(|value| {
        parser.blanks();
        match parser.peek() {
            None => Ok(value),
            Some(_) => Err(parser.complaint("nothing more is expected after the end")),
        }
    });
    parsed.map_err(|(at, message)| {
        let mut within = String::new();
        for step in &parser.within {
            match step {
                Step::Member(name) if within.is_empty() => within.push_str(name),
                Step::Member(name) => within = format!("{within}.{name}"),
                Step::Position(position) => within = format!("{within}[{position}]"),
            }
        }
        Malformed { at: Place::of(text, at), within, message }
    })
}

/// Where the parser is, from the outermost value inwards.
enum Step<'t> {
    Member(Cow<'t, str>),
    Position(usize),
}

/// A byte and what is wrong there. The steps that lead there stay in the parser.
type Wrong = (usize, String);

struct Parser<'t> {
    text: &'t str,
    at: usize,
    within: Vec<Step<'t>>,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// What was met where something else belongs.
    fn complaint(&self, expected: &str) -> Wrong {
        match self.text[self.at..].chars().next() {
            None => (self.at, "the text ends too early".to_owned()),
            Some(character) => (self.at, format!("{expected}, not `{}`", character.escape_debug())),
        }
    }

    fn expect(&mut self, byte: u8, expected: &str) -> Result<(), Wrong> {
        self.blanks();
        if self.peek() != Some(byte) {
            return Err(self.complaint(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<Value<'t>, Wrong> {
        self.blanks();
        let at = self.at;
        if self.within.len() > DEEPEST {
            return Err((at, format!("lists and objects are nested more than {DEEPEST} deep")));
        }
        let kind = match self.peek() {
            Some(b'{') => self.object()?,
            Some(b'[') => self.list()?,
            Some(b'"') => Kind::Text(self.string()?),
            _ => self.word()?,
        };
        Ok(Value { at, kind, source: &self.text[at..self.at] })
    }

    fn object(&mut self) -> Result<Kind<'t>, Wrong> {
        self.at += 1;
        let mut members = Vec::new();
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Kind::Object(members));
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.complaint("a name in double quotes is expected"));
            }
            let name = self.string()?;
            self.expect(b':', "`:` is expected after a name")?;
            self.within.push(Step::Member(name.clone()));
            let value = self.value()?;
            self.within.pop();
            members.push((name, value));
            if !self.goes_on(b'}')? {
                return Ok(Kind::Object(members));
            }
        }
    }

    fn list(&mut self) -> Result<Kind<'t>, Wrong> {
        self.at += 1;
        let mut values = Vec::new();
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Kind::List(values));
        }
        loop {
            self.within.push(Step::Position(values.len()));
            values.push(self.value()?);
            self.within.pop();
            if !self.goes_on(b']')? {
                return Ok(Kind::List(values));
            }
        }
    }

    /// After a member or an entry: whether another follows.
    fn goes_on(&mut self, close: u8) -> Result<bool, Wrong> {
        self.blanks();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.complaint(&format!("`,` or `{}` is expected", char::from(close)))),
        }
    }

    /// `null`, `true`, `false`, a number, or what Python writes for one that is not finite.
    fn word(&mut self) -> Result<Kind<'t>, Wrong> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|character: char| !(character.is_ascii_alphanumeric() || "+-._".contains(character)))
            .unwrap_or(rest.len());
        let word = &rest[..length];
        let kind = match word {
            "null" => Kind::Null,
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            "NaN" => Kind::Number(f64::NAN),
            "Infinity" => Kind::Number(f64::INFINITY),
            "-Infinity" => Kind::Number(f64::NEG_INFINITY),
            "" => return Err(self.complaint("a value is expected")),
            _ if is_number(word) => {
                Kind::Number(word.parse().map_err(|_| (self.at, format!("`{word}` is not a number")))?)
            }
            _ => return Err((self.at, format!("`{word}` is not a value"))),
        };
        self.at += length;
        Ok(kind)
    }

    fn string(&mut self) -> Result<Cow<'t, str>, Wrong> {
        self.at += 1;
        let mut decoded = String::new();
        let mut start = self.at;
        loop {
            match self.peek() {
                None => return Err((self.at, "the text ends inside of a string".to_owned())),
                Some(b'"') => {
                    let tail = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(if decoded.is_empty() { tail.into() } else { (decoded + tail).into() });
                }
                Some(b'\\') => {
                    decoded.push_str(&self.text[start..self.at]);
                    decoded.push(self.escape()?);
                    start = self.at;
                }
                Some(0..0x20) => {
                    return Err(self.complaint("a string may not hold a control character"));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// One escaped character, from its backslash on.
    fn escape(&mut self) -> Result<char, Wrong> {
        let at = self.at;
        let wrong = || (at, "an escape that JSON does not have".to_owned());
        let letter = self.text.as_bytes().get(at + 1).copied().ok_or_else(wrong)?;
        self.at += 2;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.four_digits().ok_or_else(wrong)?;
                let mut units = vec![first];
                if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    units.push(self.four_digits().ok_or_else(wrong)?);
                }
                let mut characters = char::decode_utf16(units);
                match (characters.next(), characters.next()) {
                    (Some(Ok(character)), None) => character,
                    _ => return Err((at, "half of a character that needs two escapes".to_owned())),
                }
            }
            _ => return Err(wrong()),
        })
    }

    fn four_digits(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let all_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.at += 4;
        u16::from_str_radix(digits, 16).ok().filter(|_| all_hex)
    }
}

/// JSON's grammar of numbers (RFC 8259, section 6).
fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

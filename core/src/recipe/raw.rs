//! The TOML of a recipe exactly as written, with the place of every value: each reader here takes one value, says
//! what is wrong with it, and lets the rest be read on.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::args::{self, Args, Slip, SlipKind};
use super::keys::{self, Key, Shape, Text};
use super::mistake::Mistake;

/// What a check says of a text that it refuses; where the text is, it does not know.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What was found, and what is wrong with it.
    pub(super) what: String,
    /// What would be right, where the key's own words do not say it.
    pub(super) expected: Option<String>,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

/// The text of a recipe and what was found to be wrong with it so far.
#[derive(Debug)]
pub(super) struct Raw<'t> {
    pub(super) text: &'t str,
    args: OnceCell<Args>,
    /// The names of the arguments that were put in since somebody asked.
    used: RefCell<BTreeSet<String>>,
    mistakes: RefCell<Vec<Mistake>>,
}

/// A table with the keys that it may hold.
#[derive(Debug)]
pub(super) struct Section<'r> {
    raw: &'r Raw<'r>,
    /// How it is called in messages: `[run]`, or the verb of a step.
    name: String,
    /// Where it begins: its header, or the whole of an inline table.
    span: Range<usize>,
    table: &'r DeTable<'r>,
    keys: Vec<&'static Key>,
}

/// One value with the key that it stands behind.
#[derive(Debug)]
pub(super) struct Value<'r> {
    raw: &'r Raw<'r>,
    key: &'static Key,
    it: &'r Spanned<DeValue<'r>>,
}

impl<'t> Raw<'t> {
    /// Returns `text` with nothing found yet.
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            args: OnceCell::new(),
            used: RefCell::default(),
            mistakes: RefCell::default(),
        }
    }

    /// Says what the arguments are; before that, there are none.
    pub(super) fn set_args(&self, args: Args) {
        self.args.get_or_init(|| args);
    }

    fn args(&self) -> &Args {
        static NONE: Args = Args::new();
        self.args.get().unwrap_or(&NONE)
    }

    /// Takes note of a mistake at `span`, unless the same was noted there before.
    pub(super) fn note(
        &self,
        span: Range<usize>,
        what: impl Into<String>,
        expected: Option<String>,
        hint: Option<String>,
    ) {
        let end = self.text.len();
        let start = span.start.min(end);
        // Whatever a message quotes, nothing in it may act on a terminal.
        let shown = |text: String| crate::path::shown(text.as_bytes());
        let mistake = Mistake {
            span: start..span.end.clamp(start, end),
            what: shown(what.into()),
            expected: expected.map(shown),
            hint: hint.map(shown),
        };
        let mut mistakes = self.mistakes.borrow_mut();
        if !mistakes.contains(&mistake) {
            mistakes.push(mistake);
        }
    }

    /// Whether something wrong was found at exactly `span`.
    fn is_noted(&self, span: &Range<usize>) -> bool {
        self.mistakes.borrow().iter().any(|mistake| mistake.span == *span)
    }

    /// Whether nothing wrong was found.
    pub(super) fn is_fine(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// Returns what was found to be wrong, in the order of the text.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        mistakes
    }

    /// Returns the names of the arguments that were put in since this was last asked.
    pub(super) fn used_args(&self) -> Vec<String> {
        std::mem::take(&mut *self.used.borrow_mut()).into_iter().collect()
    }

    /// Returns the value of every argument.
    pub(super) fn arg_values(&self) -> BTreeMap<String, String> {
        let values = self.args().iter();
        values
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect()
    }

    /// Puts the arguments into `text`, which is written at `span`.
    fn fill(&self, text: &str, span: &Range<usize>) -> Option<String> {
        let named = self
            .args()
            .keys()
            .filter(|name| text.contains(&format!("{{{name}}}")));
        self.used.borrow_mut().extend(named.cloned());
        match args::fill(text, self.args()) {
            Ok(filled) => filled,
            Err(slips) => {
                slips.iter().for_each(|slip| self.note_slip(slip, text, span));
                None
            }
        }
    }

    fn note_slip(&self, slip: &Slip, text: &str, span: &Range<usize>) {
        let found = quoted(&text[slip.at.clone()]);
        let place = self.brace(slip, text, span);
        const LITERAL: &str = "braces that are meant literally are doubled: `{{` and `}}`";
        match &slip.kind {
            SlipKind::Unknown(name) => {
                let hint = match keys::meant(name, self.args().keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean `{{{meant}}}`? ({LITERAL})"),
                    None => format!("declare it in `[args]`; {LITERAL}"),
                };
                self.note(place, format!("{found} names no argument"), None, Some(hint));
            }
            SlipKind::NoName => self.note(
                place,
                format!("{found} holds no name"),
                Some("the name of an argument between `{` and `}`".to_owned()),
                Some(LITERAL.to_owned()),
            ),
            SlipKind::Unclosed => self.note(
                place,
                "this `{` has no `}` on its line",
                Some("`{name}`".to_owned()),
                Some(LITERAL.to_owned()),
            ),
            SlipKind::Unopened => self.note(
                place,
                "this `}` has no `{` before it",
                Some("`{name}`".to_owned()),
                Some(LITERAL.to_owned()),
            ),
        }
    }

    /// Finds a brace of `text` in the source at `span`, where escapes may have moved it: by counting, as long as the
    /// source holds as many braces as the text.
    fn brace(&self, slip: &Slip, text: &str, span: &Range<usize>) -> Range<usize> {
        let Some(source) = self.text.get(span.clone()) else {
            return span.clone();
        };
        let braces = |text: &str| text.matches(['{', '}']).count();
        if braces(source) != braces(text) {
            return span.clone();
        }
        let before = braces(&text[..slip.at.start]);
        let Some((at, _)) = source.match_indices(['{', '}']).nth(before) else {
            return span.clone();
        };
        let written = &text[slip.at.clone()];
        let length = if source[at..].starts_with(written) {
            written.len()
        } else {
            1
        };
        span.start + at..span.start + at + length
    }
}

impl<'r> Section<'r> {
    /// Returns the table at `span`, and notes each key in it that is none of `keys`.
    pub(super) fn new(
        raw: &'r Raw<'r>,
        name: impl Into<String>,
        span: Range<usize>,
        table: &'r DeTable<'r>,
        keys: Vec<&'static Key>,
    ) -> Self {
        let section = Self {
            raw,
            name: name.into(),
            span,
            table,
            keys,
        };
        section.note_unknown();
        section
    }

    fn note_unknown(&self) {
        let names = || self.keys.iter().map(|key| key.name);
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if names().any(|known| known == name) || self.raw.is_noted(&key.span()) {
                continue;
            }
            let known: Vec<String> = names().map(|known| format!("`{known}`")).collect();
            let hint = keys::meant(name, names())
                .map(|meant| format!("did you mean `{meant}`?"))
                .or_else(|| keys::belongs(name));
            self.raw.note(
                key.span(),
                format!("{} is not a key of {}", quoted(name), self.name),
                Some(alternatives(&known)),
                hint,
            );
        }
    }

    fn get(&self, name: &'static str) -> Option<Value<'r>> {
        let key = self.keys.iter().find(|key| key.name == name);
        debug_assert!(key.is_some(), "mk bug: `{name}` is not in the table of keys");
        Some(Value {
            raw: self.raw,
            key: key?,
            it: self.table.get(name)?,
        })
    }

    /// Where it is, and whose mistakes are noted there.
    pub(super) fn place(&self) -> (&'r Raw<'r>, Range<usize>) {
        (self.raw, self.span.clone())
    }

    /// Reads a key that must be there; `None`: a mistake was noted.
    pub(super) fn required<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(Value<'r>) -> Option<T>,
    ) -> Option<T> {
        match self.get(name) {
            Some(value) => read(value),
            None => {
                let about = self.keys.iter().find(|key| key.name == name);
                self.raw.note(
                    self.span.clone(),
                    format!("{} needs `{name}`", self.name),
                    None,
                    about.map(|key| format!("`{name}`: {}", lower_first(key.about))),
                );
                None
            }
        }
    }

    /// Reads a key that may be there; `None`: a mistake was noted, `Some(None)`: it is not there.
    pub(super) fn optional<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(Value<'r>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(name) {
            Some(value) => read(value).map(Some),
            None => Some(None),
        }
    }
}

impl<'r> Value<'r> {
    /// Where it is written.
    pub(super) fn span(&self) -> Range<usize> {
        self.it.span()
    }

    /// Where the whole text is, for mistakes about more than one value.
    pub(super) fn raw(&self) -> &'r Raw<'r> {
        self.raw
    }

    /// Reads a text, puts the arguments in and hands it to `check`.
    pub(super) fn text<T>(self, check: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let filled = self
            .plain_text(self.it)
            .and_then(|text| self.raw.fill(text, &self.span()))?;
        self.checked(&filled, self.span(), &check)
    }

    /// Reads a text exactly as it is written, braces and all.
    pub(super) fn literal<T>(self, check: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.plain_text(self.it)?;
        self.checked(text, self.span(), &check)
    }

    /// Reads a list of texts, which is not empty; where the key allows it, a single text is a list of one.
    pub(super) fn list<T>(self, check: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        self.list_of(self.it, &check)
            .map(|list| list.into_iter().map(|(item, _)| item).collect())
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.it.get_ref(), DeValue::Table(_))
    }

    /// Whether it is a single text.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.it.get_ref(), DeValue::String(_))
    }

    /// Reads a list of texts in which nothing may stand twice.
    pub(super) fn set<T: PartialEq>(self, check: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        let list = self.list_of(self.it, &check)?;
        self.without_doubles(list)
    }

    /// Reads a whole number in the range that the key allows.
    pub(super) fn number(self) -> Option<i64> {
        let &Shape::Number { most } = &self.key.shape else {
            return None;
        };
        let DeValue::Integer(number) = self.it.get_ref() else {
            return self.wrong_type(self.it);
        };
        let value = i64::from_str_radix(number.as_str(), number.radix());
        match value {
            Ok(value) if (0..=most).contains(&value) => Some(value),
            _ => {
                let is_milliseconds = self.key.name == "epoch" && value.is_ok_and(|value| value > most);
                self.raw.note(
                    self.span(),
                    format!("`{}` cannot be {number}", self.key.name),
                    Some(format!("a whole number from 0 to {most}")),
                    is_milliseconds.then(|| "it counts seconds, not milliseconds".to_owned()),
                );
                None
            }
        }
    }

    /// Reads a table from names to texts. `name` checks the name, `text` what it stands for.
    pub(super) fn texts<N: Ord, T>(
        self,
        name: impl Fn(&str) -> Result<N, Wrong>,
        text: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<BTreeMap<N, T>> {
        let (all, whole) = self.table(name, |key, value| {
            let filled = self
                .entry_text(key, value)
                .and_then(|text| self.raw.fill(text, &value.span()))?;
            self.checked(&filled, value.span(), &text)
        })?;
        whole.then_some(all)
    }

    /// Reads a table from names to texts exactly as they are written; a text that is a mistake is a `None`, so that its
    /// name is known all the same, and a name that is a mistake is left out.
    pub(super) fn entries<N: Ord, T>(
        self,
        name: impl Fn(&str) -> Result<N, Wrong>,
        text: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<BTreeMap<N, Option<T>>> {
        let (all, _) = self.table(name, |key, value| {
            let plain = self.entry_text(key, value);
            Some(plain.and_then(|plain| self.checked(plain, value.span(), &text)))
        })?;
        Some(all)
    }

    /// Reads a table from names to lists of texts, in each of which nothing may stand twice.
    pub(super) fn lists<N: Ord, T: PartialEq>(
        self,
        name: impl Fn(&str) -> Result<N, Wrong>,
        text: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<BTreeMap<N, Vec<T>>> {
        let (all, whole) = self.table(name, |_, value| {
            let list = self.list_of(value, &text)?;
            self.without_doubles(list)
        })?;
        whole.then_some(all)
    }

    /// Reads a table with keys of its own.
    pub(super) fn section(self, name: &str) -> Option<Section<'r>> {
        let (DeValue::Table(table), Shape::Table(keys) | Shape::TextOrTable(_, keys)) =
            (self.it.get_ref(), &self.key.shape)
        else {
            return self.wrong_type(self.it);
        };
        Some(Section::new(
            self.raw,
            name,
            self.span(),
            table,
            keys.iter().collect(),
        ))
    }

    /// Reads a list of tables with keys of their own, which is not empty.
    pub(super) fn sections(self, name: &str) -> Option<Vec<Section<'r>>> {
        let (DeValue::Array(array), &Shape::Tables(keys)) = (self.it.get_ref(), &self.key.shape) else {
            return self.wrong_type(self.it);
        };
        if array.is_empty() {
            let what = format!("the list of `{}` is empty", self.key.name);
            self.raw.note(self.span(), what, self.expected(), None);
            return None;
        }
        let sections = array.iter().map(|item| match item.get_ref() {
            DeValue::Table(table) => Some(Section::new(
                self.raw,
                name,
                item.span(),
                table,
                keys.iter().collect(),
            )),
            _ => self.wrong_type(item),
        });
        // Collected first, so that every item that is no table is told.
        let sections: Vec<_> = sections.collect();
        sections.into_iter().collect()
    }

    /// Reads true or false.
    pub(super) fn switch(self) -> Option<bool> {
        match self.it.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type(self.it),
        }
    }

    /// Reads the list of steps: each table with its place.
    pub(super) fn steps(self) -> Option<Vec<(Range<usize>, &'r DeTable<'r>)>> {
        let DeValue::Array(array) = self.it.get_ref() else {
            return self.wrong_type(self.it);
        };
        if array.is_empty() {
            let what = format!("the list of `{}` is empty", self.key.name);
            self.raw.note(self.span(), what, self.expected(), None);
            return None;
        }
        let tables = array.iter().map(|item| match item.get_ref() {
            DeValue::Table(table) => Some((item.span(), table)),
            _ => self.wrong_type(item),
        });
        // Collected first, so that every item that is no table is told.
        let tables: Vec<_> = tables.collect();
        Some(tables.into_iter().flatten().collect())
    }

    /// Reads what can be read of a table, and says whether that is all of it.
    fn table<N: Ord, T>(
        &self,
        name: impl Fn(&str) -> Result<N, Wrong>,
        read: impl Fn(&str, &'r Spanned<DeValue<'r>>) -> Option<T>,
    ) -> Option<(BTreeMap<N, T>, bool)> {
        let DeValue::Table(table) = self.it.get_ref() else {
            return self.wrong_type(self.it);
        };
        let mut all = BTreeMap::new();
        let mut whole = true;
        for (key, value) in table {
            let value = read(key.get_ref(), value);
            let name = self.checked(key.get_ref(), key.span(), &name);
            let (Some(name), Some(value)) = (name, value) else {
                whole = false;
                continue;
            };
            if all.insert(name, value).is_some() {
                whole = false;
                let what = format!("{} is here twice, in two spellings", quoted(key.get_ref()));
                self.raw.note(key.span(), what, None, None);
            }
        }
        Some((all, whole))
    }

    fn plain_text(&self, value: &'r Spanned<DeValue<'r>>) -> Option<&'r str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => self.wrong_type(value),
        }
    }

    /// Reads the text that `name` stands for in a table.
    fn entry_text(&self, name: &str, value: &'r Spanned<DeValue<'r>>) -> Option<&'r str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => self.mistyped(name, Some("a text in quotes".to_owned()), value),
        }
    }

    fn list_of<T>(
        &self,
        value: &'r Spanned<DeValue<'r>>,
        check: &impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let one = |item: &'r Spanned<DeValue<'r>>| {
            let filled = self
                .plain_text(item)
                .and_then(|text| self.raw.fill(text, &item.span()))?;
            Some((self.checked(&filled, item.span(), check)?, item.span()))
        };
        match value.get_ref() {
            DeValue::Array(array) if array.is_empty() => {
                let what = format!("the list of `{}` is empty", self.key.name);
                self.raw.note(value.span(), what, self.expected(), None);
                None
            }
            DeValue::Array(array) => {
                let items: Vec<_> = array.iter().map(one).collect();
                items.into_iter().collect()
            }
            DeValue::String(_) if !matches!(self.key.shape, Shape::List(_)) => {
                one(value).map(|item| vec![item])
            }
            _ => self.wrong_type(value),
        }
    }

    fn without_doubles<T: PartialEq>(&self, list: Vec<(T, Range<usize>)>) -> Option<Vec<T>> {
        let mut whole = true;
        for (at, (item, span)) in list.iter().enumerate() {
            if list[..at].iter().any(|(before, _)| before == item) {
                whole = false;
                let what = format!("this is in the list of `{}` twice", self.key.name);
                self.raw.note(span.clone(), what, None, None);
            }
        }
        whole.then(|| list.into_iter().map(|(item, _)| item).collect())
    }

    fn checked<T>(
        &self,
        text: &str,
        span: Range<usize>,
        check: &impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match check(text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.raw.note(span, wrong.what, wrong.expected, wrong.hint);
                None
            }
        }
    }

    /// In words, what the key takes.
    fn expected(&self) -> Option<String> {
        let list = |text: &Text| format!("a list, each {}", text.expected);
        Some(match &self.key.shape {
            Shape::Text(text) => text.expected.to_owned(),
            Shape::List(text) => list(text),
            Shape::OneOrList(text) => format!("{}, or a list of such", text.expected),
            Shape::Command(text) => format!("{}, or a list of program and arguments", text.expected),
            Shape::Number { most } => format!("a whole number from 0 to {most}"),
            Shape::Texts(_) => "a table from names to texts in quotes".to_owned(),
            Shape::Lists(_) => "a table from names to lists of texts".to_owned(),
            Shape::Table(_) => format!("a table: `[{}]` on a line of its own", self.key.name),
            Shape::Tables(keys) => {
                let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                format!("a list of tables with {}", names.join(", "))
            }
            Shape::Switch => "true or false".to_owned(),
            Shape::TextOrTable(text, keys) => {
                let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                format!("{}, or a table `{{ {} }}`", text.expected, names.join(", "))
            }
            Shape::Steps => "`[[step]]` on a line of its own before each step".to_owned(),
        })
    }

    /// Notes that `value` is of another type than the key takes.
    fn wrong_type<T>(&self, value: &Spanned<DeValue<'_>>) -> Option<T> {
        self.mistyped(self.key.name, self.expected(), value)
    }

    /// The same of a value that has a name of its own.
    fn mistyped<T>(&self, name: &str, expected: Option<String>, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text".to_owned(),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(value) => format!("{value}"),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        let hint = type_hint(self.key, value.get_ref());
        self.raw.note(
            value.span(),
            format!("{} cannot be {found}", quoted(name)),
            expected,
            hint,
        );
        None
    }
}

/// What to do about a value of the wrong type, where that is plain.
fn type_hint(key: &Key, value: &DeValue<'_>) -> Option<String> {
    match (key.name, value) {
        ("mode", DeValue::Integer(number)) if number.radix() == 8 => {
            Some(format!("write it in quotes: \"{:0>4}\"", number.as_str()))
        }
        ("mode", DeValue::Integer(number)) => Some(format!(
            "a mode is octal and a number in TOML is decimal, so it is written in quotes: \"{:0>4}\"",
            number.as_str()
        )),
        ("epoch", DeValue::Datetime(date)) => {
            Some(format!("`date -d '{date}' +%s` prints it in seconds since 1970"))
        }
        ("command", DeValue::String(_)) => {
            Some("each argument is a text of its own: [\"/bin/sh\", \"-c\", \"…\"]".to_owned())
        }
        ("step", DeValue::Table(_)) => Some("write `[[step]]` with two brackets".to_owned()),
        (_, DeValue::Integer(number))
            if !matches!(key.shape, Shape::Table(_) | Shape::Steps | Shape::Number { .. }) =>
        {
            Some(format!("write it in quotes: \"{number}\""))
        }
        (_, DeValue::String(text))
            if matches!(key.shape, Shape::Number { .. }) && text.parse::<u32>().is_ok() =>
        {
            Some("write it without quotes".to_owned())
        }
        _ => None,
    }
}

/// Returns `text` for a message: in backticks, not too long, nothing in it that a terminal acts on.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let shown = crate::path::shown(text.as_bytes());
    match shown.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &shown[..end]),
        None => format!("`{shown}`"),
    }
}

/// Returns `a`, or `one of a, b`.
pub(super) fn alternatives(words: &[String]) -> String {
    match words {
        [] => "nothing here".to_owned(),
        [one] => one.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

fn lower_first(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

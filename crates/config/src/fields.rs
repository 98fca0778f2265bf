//! A table of the file, read by the description of its block.

use crate::key::{Absent, Block, Key, Later, Needs};
use crate::node::{self, Entry, Node};
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::protocol::{Protocol, not_in_this_version, quoted};
use crate::suggest::nearest;
use crate::value::{self, NAME_RULE, Of, Value, is_name};

/// The values of one block: those of the file, and the defaults of what it leaves out.
///
/// Every value is taken once, by its name. Taking a key that is not described, and leaving a described one,
/// are defects that [`Fields::done`] and [`Fields::take`] find in every test that reads the block.
#[derive(Debug)]
pub(crate) struct Fields {
    block: &'static Block,
    place: Place,
    sound: bool,
    /// The keys that were meant by names that are none.
    mistyped: Vec<&'static str>,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    key: &'static Key,
    /// Where its name stands, or its block where it was left out.
    name: Place,
    place: Place,
    /// Whether the file has the key, be its value right or wrong.
    written: bool,
    /// Whether nothing was wrong with what the file has.
    sound: bool,
    value: Option<Value>,
}

/// A key that stands in the file and is for some protocols alone.
#[derive(Clone, Debug)]
pub(crate) struct Confined {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) protocols: &'static [Protocol],
}

/// A value taken, and how it came there.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub(crate) value: T,
    /// Where its value stands, or its block where it was left out.
    pub(crate) place: Place,
    /// Whether the file has it; else it is the default.
    pub(crate) written: bool,
}

impl Fields {
    /// Reads the table `entries` as `block`, telling of every key that it does not have and of every value
    /// that is wrong.
    pub(crate) fn read(
        block: &'static Block,
        place: Place,
        entries: &[Entry],
        problems: &mut Problems,
    ) -> Self {
        let before = problems.count();
        let unknown = entries.iter().filter(|entry| block.key(&entry.name.value).is_none());
        let meant: Vec<_> = unknown.filter_map(|entry| refuse(block, &entry.name, problems)).collect();
        let mut fields = Vec::with_capacity(block.keys.len());
        for key in block.keys {
            let entry = entries.iter().find(|entry| entry.name.value == key.name);
            fields.push(match entry {
                Some(entry) => field(key, entry, problems),
                None => {
                    // A key that was mistyped is not missing as well.
                    if key.absent == Absent::Refused && !meant.contains(&key.name) {
                        let error = problems.error(place, format!("`{}` is missing", key.name));
                        error.hint(format!("write {}", example(key)));
                    }
                    default(key, place)
                }
            });
        }
        Self { block, place, sound: problems.count() == before, mistyped: meant, fields }
    }

    /// A block that the file leaves out: every key at its default.
    pub(crate) fn absent(block: &'static Block, place: Place) -> Self {
        let fields = block.keys.iter().map(|key| default(key, place));
        Self { block, place, sound: true, mistyped: Vec::new(), fields: fields.collect() }
    }

    /// Where the table begins.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Whether nothing was wrong within the table: else what it seems to lack may be what was refused.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }

    /// Whether nothing was wrong with the value of the key `name`; to be asked before it is taken.
    pub(crate) fn is_sound_at(&self, name: &str) -> bool {
        self.fields.iter().all(|field| field.key.name != name || field.sound)
    }

    /// Whether the file has the key `name`, be its value right or wrong; to be asked before it is taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.key.name == name && field.written)
    }

    /// Whether the key `name` is missing, and no other name was meant for it; to be asked before it is taken.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        !self.has(name) && !self.mistyped.contains(&name)
    }

    /// Whether the value of the key `name` is an array; to be asked before it is taken.
    pub(crate) fn is_list(&self, name: &str) -> bool {
        let is_list = |field: &Field| matches!(field.value, Some(Value::List(_)));
        self.fields.iter().any(|field| field.key.name == name && is_list(field))
    }

    /// The keys within the table that are for some protocols alone; to be asked before any is taken.
    pub(crate) fn confined(&self) -> Vec<Confined> {
        let mut found = Vec::new();
        for Field { key, name, written, value, .. } in &self.fields {
            if *written && !key.protocols.is_empty() {
                found.push(Confined { name: key.name, place: *name, protocols: key.protocols });
            } else if let Some(value) = value {
                value.tables().into_iter().for_each(|table| found.extend(table.confined()));
            }
        }
        found
    }

    /// Where the value of the key `name` stands, or the block where it was left out; to be asked before it is
    /// taken.
    pub(crate) fn place_of(&self, name: &str) -> Place {
        self.fields.iter().find(|field| field.key.name == name).map_or(self.place, |field| field.place)
    }

    /// The value of the key `name`; `None` if it was left out without a default, or refused.
    pub(crate) fn take<T: Of>(&mut self, name: &str) -> Option<Taken<T>> {
        let Field { place, written, value, .. } = self.take_field(name)?;
        let value = T::of(value?);
        debug_assert!(
            value.is_some(),
            "{}.{name} is described as another kind than it is taken as",
            self.block.path
        );
        Some(Taken { value: value?, place, written })
    }

    /// The value of the key `name`, which has a default or must not be left out.
    pub(crate) fn value<T: Of>(&mut self, name: &str) -> T {
        self.take(name).map_or_else(T::stand_in, |taken| taken.value)
    }

    /// The value of the key `name`, which may be left out.
    pub(crate) fn maybe<T: Of>(&mut self, name: &str) -> Option<T> {
        self.take(name).map(|taken| taken.value)
    }

    /// The whole number of the key `name`, whose range fits `T`.
    pub(crate) fn whole<T: TryFrom<u64>>(&mut self, name: &str) -> Option<T> {
        let taken = self.take::<u64>(name)?;
        let number = T::try_from(taken.value).ok();
        debug_assert!(number.is_some(), "the range of {}.{name} is that of another type", self.block.path);
        number
    }

    /// What the word of the key `name` stands for, as `from_word` reads it; `None` if it is no word.
    pub(crate) fn word<T>(&mut self, name: &str, from_word: fn(&str) -> Option<T>) -> Option<T> {
        match self.take_field(name)?.value? {
            Value::Word(word) => from_word(word),
            _ => None,
        }
    }

    /// The table of the key `name`; one of defaults where the file has none.
    pub(crate) fn table(&mut self, name: &str) -> Fields {
        let field = self.take_field(name);
        match field {
            Some(Field { value: Some(Value::Table(fields)), .. }) => fields,
            Some(Field { key, place, .. }) => Fields::absent(key.kind.block().unwrap_or(self.block), place),
            None => Fields::absent(self.block, self.place),
        }
    }

    /// The table of the key `name`, if the file has it.
    pub(crate) fn table_if_written(&mut self, name: &str) -> Option<Fields> {
        match self.take_field(name)?.value {
            Some(Value::Table(fields)) => Some(fields),
            _ => None,
        }
    }

    /// The items of the array of the key `name`, each as a `T`; what was refused is left out.
    pub(crate) fn list<T: Of>(&mut self, name: &str) -> Vec<Spot<T>> {
        let items = self.value::<Vec<Spot<Value>>>(name).into_iter();
        items.filter_map(|item| Some(Spot { value: T::of(item.value)?, place: item.place })).collect()
    }

    /// The named tables of the key `name`, in the order of the file.
    pub(crate) fn named(&mut self, name: &str) -> Vec<(Spot<String>, Fields)> {
        match self.maybe::<Value>(name) {
            Some(Value::Named(tables)) => tables,
            _ => Vec::new(),
        }
    }

    /// Ends the reading of the block: every key that is described has been taken.
    pub(crate) fn done(self) {
        let left: Vec<_> = self.fields.iter().map(|field| field.key.name).collect();
        debug_assert!(left.is_empty(), "{} describes keys that nothing reads: {left:?}", self.block.path);
    }

    fn take_field(&mut self, name: &str) -> Option<Field> {
        let at = self.fields.iter().position(|field| field.key.name == name);
        debug_assert!(at.is_some(), "{}.{name} is read, and not described or read before", self.block.path);
        Some(self.fields.swap_remove(at?))
    }
}

fn field(key: &'static Key, entry: &Entry, problems: &mut Problems) -> Field {
    let before = problems.count();
    let place = entry.value.place;
    let empty = matches!(&entry.value.value, Node::List(items) if items.is_empty());
    match (key.absent, key.kind) {
        (Absent::Refused, _) if empty => {
            problems.error(place, format!("`{}` is empty", key.name)).hint(format!("write {}", example(key)));
        }
        (_, kind) if empty && kind.is_one_or_more() => {
            problems
                .error(place, format!("`{}` is empty", key.name))
                .hint("leave it out, or name one at least");
        }
        _ => {}
    }
    let value = value::read(&key.kind, key.name, &entry.value, problems);
    Field { key, name: entry.name.place, place, written: true, sound: problems.count() == before, value }
}

fn default(key: &'static Key, place: Place) -> Field {
    let value = match key.absent {
        // A default that its own key refuses would be found by the test that reads them all.
        Absent::Is(text) => read_alone(key, text).ok(),
        Absent::Refused | Absent::Means(_) => None,
    };
    Field { key, name: place, place, written: false, sound: true, value }
}

/// Reads `text`, a default or an example of `key`, as if it stood in a file.
pub(crate) fn read_alone(key: &Key, text: &str) -> Result<Value, String> {
    let mut problems = Problems::of("");
    let node = Spot { value: node::parse_value(text), place: Place::START };
    let value = value::read(&key.kind, key.name, &node, &mut problems);
    match problems.into_sorted().first() {
        Some(problem) => Err(problem.to_string()),
        None => value.ok_or_else(|| format!("{} takes another kind of value than {text}", key.name)),
    }
}

/// `name = "value"`: the example of `key` as it would stand in a file.
pub(crate) fn example(key: &Key) -> String {
    format!("{} = {}", key.name, as_toml(key.example))
}

/// `text` as TOML: in quotes, unless it is a value as it stands.
pub(crate) fn as_toml(text: &str) -> String {
    match node::parse_value(text) {
        Node::Text(plain) if plain == text => format!("\"{text}\""),
        _ => text.into(),
    }
}

/// Reads the tables of `block`, each under a name of the user's choice.
pub(crate) fn read_named(
    block: &'static Block,
    entries: &[Entry],
    problems: &mut Problems,
) -> Vec<(Spot<String>, Fields)> {
    let mut tables = Vec::new();
    for Entry { name, value } in entries {
        let Node::Table(inner) = &value.value else {
            let message = format!("\"{}\" is {}, not a table", name.value, value.value.describe());
            let header = block.path.replace('*', "NAME");
            problems.error(name.place, message).hint(format!("write [{header}] and its keys below"));
            continue;
        };
        if !is_name(&name.value) {
            problems.error(name.place, format!("\"{}\" is no name; {NAME_RULE}", name.value));
        }
        tables.push((name.clone(), Fields::read(block, name.place, inner, problems)));
    }
    tables
}

/// Tells of a key that `block` does not have; the answer is the key that was meant, if it was mistyped.
fn refuse(block: &'static Block, name: &Spot<String>, problems: &mut Problems) -> Option<&'static str> {
    let Spot { value: name, place } = name;
    if let Some(later) = block.later.iter().find(|later| later.name == name) {
        problems.error(*place, lacks(later));
        return None;
    }
    let known = block.keys.iter().map(|key| key.name).chain(block.later.iter().map(|later| later.name));
    let meant = nearest(name, known);
    let whose = match block.path {
        "" => "the file".into(),
        path => format!("[{}]", path.replace('*', "NAME")),
    };
    let error = problems.error(*place, format!("`{name}` is no key of {whose}"));
    error.maybe(|| meant.map(|meant| format!("did you mean \"{meant}\"?")).or_else(|| elsewhere(name)));
    meant
}

/// What a key asks for that this version lacks.
pub(crate) fn lacks(later: &Later) -> String {
    let name = later.name;
    match later.needs {
        Needs::Protocols([one]) => {
            format!("`{name}` belongs to protocol \"{one}\", which is {}", not_in_this_version())
        }
        Needs::Protocols(protocols) => {
            format!(
                "`{name}` belongs to protocols {}, which are {}",
                quoted(protocols),
                not_in_this_version()
            )
        }
        Needs::Feature(feature) => format!("`{name}` needs {feature}, which this version does not have"),
    }
}

/// Where the key `name` does stand, if it is one of another block.
fn elsewhere(name: &str) -> Option<String> {
    let block = crate::explain::blocks().into_iter().find(|block| block.key(name).is_some())?;
    match block.path {
        "" => None,
        path => Some(format!("it is a key of [{}]", path.replace('*', "NAME"))),
    }
}

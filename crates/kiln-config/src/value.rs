//! Values: what expressions evaluate to, each with where it was written and what it was derived from.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::ServiceName;
use unicode_normalization::{UnicodeNormalization, is_nfc_quick};

use crate::number::Number;
use crate::source::Span;

/// Values share what they hold, so a few lines can denote 2^60 elements; this many may be written out.
pub(crate) const WEIGHT_MAX: u64 = 2_000_000;

/// Values nested deeper than this would overflow the stack of whoever walks them.
pub(crate) const DEPTH_MAX: u16 = 64;

/// A string that a template or function makes may not be larger.
pub(crate) const STRING_BYTES_MAX: usize = 8 << 20;

/// A value with its origin and marks.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    /// Where it was written.
    pub(crate) origin: Span,
    pub(crate) marks: Marks,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    String(Arc<str>),
    Seq(Arc<Seq>),
    Map(Arc<Map>),
    Ref(Reference),
}

/// What a value was derived from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    /// It must not be shown.
    pub(crate) sensitive: bool,
    /// The services whose `url` is in it.
    pub(crate) uses: Option<Arc<BTreeSet<ServiceName>>>,
}

/// A tuple, list or set.
#[derive(Debug)]
pub(crate) struct Seq {
    pub(crate) kind: SeqKind,
    pub(crate) items: Vec<Value>,
    facts: Facts,
}

/// An object or map, sorted by key.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) kind: MapKind,
    pub(crate) items: BTreeMap<Arc<str>, Value>,
    facts: Facts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeqKind {
    /// `[…]`: each element has its own type.
    Tuple,
    List,
    /// Sorted, each element once.
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapKind {
    /// `{…}`: each attribute has its own type.
    Object,
    Map,
}

/// What holds for a collection with all that is in it, computed once.
#[derive(Debug, Clone, Default)]
struct Facts {
    weight: u64,
    depth: u16,
    marks: Marks,
    has_reference: bool,
}

/// What is declared by a block, as a value: it can be handed on, but not looked into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// The block's kind: `image`, `service`, …
    pub(crate) kind: &'static str,
    /// The name, with the key of `for_each`.
    pub(crate) name: Arc<str>,
    /// The index of the block among those of its kind.
    pub(crate) block: usize,
    /// A port of a service.
    pub(crate) port: Option<Arc<str>>,
}

/// A value would be larger or deeper than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Marks {
    pub(crate) fn join(&self, other: &Self) -> Self {
        let uses = match (&self.uses, &other.uses) {
            (Some(a), Some(b)) if a.is_superset(b) => Some(a.clone()),
            (Some(a), Some(b)) => Some(Arc::new(a.union(b).cloned().collect())),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        Self { sensitive: self.sensitive || other.sensitive, uses }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.sensitive && self.uses.is_none()
    }
}

impl Value {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, origin: Span::NONE, marks: Marks::default() }
    }

    pub(crate) fn null() -> Self {
        Self::new(Kind::Null)
    }

    pub(crate) fn bool(value: bool) -> Self {
        Self::new(Kind::Bool(value))
    }

    pub(crate) fn number(value: impl Into<Number>) -> Self {
        Self::new(Kind::Number(value.into()))
    }

    pub(crate) fn string(text: impl AsRef<str>) -> Self {
        Self::new(Kind::String(normalized(text.as_ref())))
    }

    pub(crate) fn seq(kind: SeqKind, items: Vec<Self>) -> Result<Self, TooLarge> {
        let facts = Facts::of(items.iter())?;
        Ok(Self::new(Kind::Seq(Arc::new(Seq { kind, items, facts }))))
    }

    pub(crate) fn tuple(items: Vec<Self>) -> Result<Self, TooLarge> {
        Self::seq(SeqKind::Tuple, items)
    }

    pub(crate) fn list(items: Vec<Self>) -> Result<Self, TooLarge> {
        Self::seq(SeqKind::List, items)
    }

    /// Returns a set: sorted, each element once.
    pub(crate) fn set(mut items: Vec<Self>) -> Result<Self, TooLarge> {
        items.sort_by(Self::order);
        items.dedup_by(|a, b| a.order(b) == Ordering::Equal);
        Self::seq(SeqKind::Set, items)
    }

    pub(crate) fn map(kind: MapKind, items: BTreeMap<Arc<str>, Self>) -> Result<Self, TooLarge> {
        let facts = Facts::of(items.values())?;
        Ok(Self::new(Kind::Map(Arc::new(Map { kind, items, facts }))))
    }

    pub(crate) fn object(items: BTreeMap<Arc<str>, Self>) -> Result<Self, TooLarge> {
        Self::map(MapKind::Object, items)
    }

    pub(crate) fn at(mut self, origin: Span) -> Self {
        self.origin = origin;
        self
    }

    pub(crate) fn marked(mut self, marks: &Marks) -> Self {
        if !marks.is_empty() {
            self.marks = self.marks.join(marks);
        }
        self
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// The marks of the value and of all that is in it.
    pub(crate) fn all_marks(&self) -> Marks {
        match &self.kind {
            Kind::Seq(seq) => self.marks.join(&seq.facts.marks),
            Kind::Map(map) => self.marks.join(&map.facts.marks),
            _ => self.marks.clone(),
        }
    }

    /// Whether a block is referred to by it or anything in it.
    pub(crate) fn has_reference(&self) -> bool {
        match &self.kind {
            Kind::Ref(_) => true,
            Kind::Seq(seq) => seq.facts.has_reference,
            Kind::Map(map) => map.facts.has_reference,
            _ => false,
        }
    }

    /// How many values it holds, itself included: what walking it costs.
    pub(crate) fn weight(&self) -> u64 {
        self.facts().0
    }

    fn facts(&self) -> (u64, u16) {
        match &self.kind {
            Kind::Seq(seq) => (seq.facts.weight, seq.facts.depth),
            Kind::Map(map) => (map.facts.weight, map.facts.depth),
            _ => (1, 0),
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_seq(&self) -> Option<&Seq> {
        match &self.kind {
            Kind::Seq(seq) => Some(seq),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.kind {
            Kind::Map(map) => Some(map),
            _ => None,
        }
    }

    /// What it is, for messages: never its content.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "null".into(),
            Kind::Bool(_) => "a bool".into(),
            Kind::Number(_) => "a number".into(),
            Kind::String(_) => "a string".into(),
            Kind::Seq(seq) => match seq.kind {
                SeqKind::Tuple | SeqKind::List => "a list".into(),
                SeqKind::Set => "a set".into(),
            },
            Kind::Map(map) => match map.kind {
                MapKind::Object => "an object".into(),
                MapKind::Map => "a map".into(),
            },
            Kind::Ref(reference) => reference.describe(),
        }
    }

    /// A total order of values, by kind and then by content; marks and origins don't count.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        match (&self.kind, &other.kind) {
            (Kind::Bool(a), Kind::Bool(b)) => a.cmp(b),
            (Kind::Number(a), Kind::Number(b)) => a.cmp(b),
            (Kind::String(a), Kind::String(b)) => a.cmp(b),
            (Kind::Seq(a), Kind::Seq(b)) if Arc::ptr_eq(a, b) => Ordering::Equal,
            (Kind::Map(a), Kind::Map(b)) if Arc::ptr_eq(a, b) => Ordering::Equal,
            (Kind::Seq(a), Kind::Seq(b)) => {
                let kinds = (a.kind as u8).cmp(&(b.kind as u8));
                let items = || a.items.iter().zip(&b.items).map(|(a, b)| a.order(b));
                kinds.then_with(|| items().find(|o| o.is_ne()).unwrap_or(a.items.len().cmp(&b.items.len())))
            }
            (Kind::Map(a), Kind::Map(b)) => {
                let kinds = (a.kind as u8).cmp(&(b.kind as u8));
                let pairs = || a.items.iter().zip(&b.items);
                let items = || pairs().map(|(x, y)| x.0.cmp(y.0).then_with(|| x.1.order(y.1)));
                kinds.then_with(|| items().find(|o| o.is_ne()).unwrap_or(a.items.len().cmp(&b.items.len())))
            }
            (Kind::Ref(a), Kind::Ref(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl Kind {
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::String(_) => 3,
            Self::Seq(_) => 4,
            Self::Map(_) => 5,
            Self::Ref(_) => 6,
        }
    }
}

impl Reference {
    pub(crate) fn describe(&self) -> String {
        match &self.port {
            Some(port) => format!("port \"{port}\" of {} \"{}\"", self.kind, self.name),
            None => format!("{} \"{}\"", self.kind, self.name),
        }
    }
}

impl Facts {
    fn of<'a>(items: impl Iterator<Item = &'a Value>) -> Result<Self, TooLarge> {
        let mut facts = Self { weight: 1, ..Self::default() };
        for item in items {
            let (weight, depth) = item.facts();
            facts.weight = facts.weight.saturating_add(weight);
            facts.depth = facts.depth.max(depth);
            facts.has_reference |= item.has_reference();
            let marks = item.all_marks();
            if !marks.is_empty() {
                facts.marks = facts.marks.join(&marks);
            }
        }
        facts.depth += 1;
        if facts.weight > WEIGHT_MAX || facts.depth > DEPTH_MAX { Err(TooLarge) } else { Ok(facts) }
    }
}

/// Brings text to Unicode's form NFC: what looks the same is the same.
pub(crate) fn normalized(text: &str) -> Arc<str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == unicode_normalization::IsNormalized::Yes {
        text.into()
    } else {
        text.nfc().collect::<String>().into()
    }
}
